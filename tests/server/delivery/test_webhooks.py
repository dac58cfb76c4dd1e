"""Webhooks, against real HTTP servers that are well or not."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event

from server.alert_records import AlertRecord, ChangeKind, Evidence, EvidenceState
from server.delivery_records import DeliveryFilter, DeliveryState
from server.store.alerts import AlertLog
from server.store.database import Database
from tests.support.alert_rows import START, an_alert, append, closed
from tests.support.cameras import free_port
from tests.support.delivering import delivering, eventually, webhook
from tests.support.webhook_receiver import (
    Behaviour,
    drips,
    garbage,
    hangs,
    receiving,
    says,
    talks_for_ever,
    well,
)

SECRET = b"a secret of twenty-four bytes and more"
OTHER = bytes(range(32))


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.write_bytes(b"whsec_" + base64.b64encode(OTHER) + b"\n\n" + SECRET + b"\n")
    return path


def test_an_event_says_everything_of_its_alert(database: Database) -> None:
    record = AlertRecord(closed(an_alert(continues="fedcba9876543210")))
    evidence = Evidence(EvidenceState.READY, 1000, 20_000, START, START + 9.5)
    log = AlertLog(database)
    log.append(ChangeKind.OPENED, an_alert(continues="fedcba9876543210"), START)
    log.acknowledge(record.alert.alert_id, "seen", START + 30)
    log.set_evidence(record.alert.alert_id, evidence, START + 31)
    with receiving(well) as receiver, delivering(database, webhook(receiver.url)) as running:
        change = running.append(ChangeKind.CLOSED, record)
        receiver.wait_for(lambda found: len(found.taken) == 1)
    (request,) = receiver.taken
    assert request.headers["content-type"] == "application/cloudevents+json"
    event = from_structured_event(HTTPMessage(request.headers, request.body))
    assert event.get_id() == f"{record.alert.alert_id}.closed"
    assert event.get_source() == "/gvvad"
    assert event.get_type() == "gvvad.v1.alert.closed"
    assert event.get_subject() == "streams/door"
    time = event.get_time()
    assert time is not None
    assert abs(time.timestamp() - change.changed_seconds) < 1e-5
    assert event.get_data() == {
        "alert_id": record.alert.alert_id,
        "stream": "streams/door",
        "bundle_id": "ab" * 32,
        "state": "closed",
        "first_sequence": 3,
        "last_sequence": 4,
        "start_time": "2023-11-14T22:13:23.000000Z",
        "end_time": "2023-11-14T22:13:25.500000Z",
        "peak_score": 0.875,
        "peak_time": "2023-11-14T22:13:24.250000Z",
        "explanation": [{"text": "a person falls", "anomalous": True, "weight": 0.75}],
        "end_reason": "score_fell",
        "continues": "fedcba9876543210",
        "acknowledge_time": "2023-11-14T22:13:50.000000Z",
        "acknowledge_note": "seen",
        "evidence": {
            "state": "ready",
            "snapshot_bytes": 1000,
            "clip_bytes": 20000,
            "clip_start_time": "2023-11-14T22:13:20.000000Z",
            "clip_end_time": "2023-11-14T22:13:29.500000Z",
        },
        "window_scores": [0.625, None, 0.875],
    }


def test_every_secret_signs_what_a_receiver_checks(database: Database, secret_file: Path) -> None:
    with receiving(says(500), well) as receiver:
        settings = webhook(receiver.url, secret_file=secret_file)
        with delivering(database, settings) as running:
            running.append(ChangeKind.OPENED, an_alert())
            receiver.wait_for(lambda found: len(found.taken) == 1)
    for request in receiver.requests:
        assert request.headers["webhook-id"] == request.event["id"]
        assert request.is_signed_with(SECRET)
        assert request.is_signed_with(OTHER)
        assert not request.is_signed_with(SECRET + b"!")
        tampered = replace(request, body=request.body.replace(b"0.875", b"0.125"))
        assert not tampered.is_signed_with(SECRET)
        old = str(int(request.headers["webhook-timestamp"]) - 1)
        moved = replace(request, headers=request.headers | {"webhook-timestamp": old})
        assert not moved.is_signed_with(SECRET)
    first, second = receiver.requests
    assert first.body == second.body, "an attempt says what the one before it said"


def test_the_snippet_of_the_documents_checks_a_signature() -> None:
    from server.delivery import signing

    body = b'{"a": 1}'
    headers = signing.Signer([OTHER, SECRET]).headers("x.opened", 1_700_000_000.9, body)
    (snippet,) = [part for part in (signing.__doc__ or "").split("\n\n") if "expected =" in part]
    names: dict[str, object] = {"secret": SECRET, "body": body, "headers": headers}
    names |= {"id": headers["webhook-id"], "timestamp": headers["webhook-timestamp"]}
    names |= {"hmac": __import__("hmac"), "b64encode": base64.b64encode}
    exec("\n".join(line.strip() for line in snippet.splitlines()), names)
    assert names["genuine"] is True
    assert headers["webhook-timestamp"] == "1700000000"


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (says(500), "answered 500 Internal Server Error"),
        (says(599), "answered 599"),
        (says(429), "answered 429 Too Many Requests"),
        (garbage, "its answer was not HTTP, or broke off"),
        (hangs, "no answer within 0.5 s"),
        (drips, "no answer within 0.5 s"),
    ],
    ids=["500", "599", "429", "garbage", "hangs", "drips"],
)
def test_a_receiver_that_is_not_well_is_tried_again_soon(
    database: Database, behaviour: Behaviour, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        receiving(behaviour, well) as receiver,
        delivering(database, webhook(receiver.url, timeout_seconds=0.5)) as running,
    ):
        running.append(ChangeKind.OPENED, an_alert())
        running.wait_for_states("delivered")
        (one,) = running.list()
    assert f"deliveries to {one.sink} fail: {error}" in caplog.text
    assert (one.attempts, one.error) == (2, "")
    assert [request.event["id"] for request in receiver.requests] == [one.event_id] * 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "answered 400 Bad Request"),
        (401, "answered 401 Unauthorized"),
        (302, "answered 302 Found: redirects are not followed"),
    ],
)
def test_a_refusal_is_tried_again_slowly(database: Database, status: int, error: str) -> None:
    with receiving(well) as elsewhere, receiving(says(status, location=elsewhere.url)) as receiver:
        with delivering(database, webhook(receiver.url)) as running:
            change = running.append(ChangeKind.OPENED, an_alert())
            eventually(lambda: running.list()[0].error != "", running.list)
            (one,) = running.list()
        assert one.error == error
        assert one.due_seconds is not None
        assert 59 < one.due_seconds - change.changed_seconds < 330
    assert elsewhere.requests == [], "no redirect is followed"


def test_a_refusal_stands_after_ten_attempts(database: Database) -> None:
    from server.store.outbox import Outbox

    with receiving(says(404)) as receiver:
        with delivering(database, webhook(receiver.url)) as running:
            running.append(ChangeKind.OPENED, an_alert())
            (sink,) = running.deliveries.sinks
            for attempts in range(1, 10):
                eventually(lambda attempts=attempts: running.list()[0].attempts == attempts)
                # What otherwise takes half an hour.
                Outbox(database, [sink]).hurry(sink, 0.0)
                running.deliveries.wake()
            running.wait_for_states("dead")
        assert len(receiver.requests) == 10


def test_a_receiver_that_is_gone_for_good_gets_nothing_more(database: Database) -> None:
    with receiving(says(410)) as receiver, delivering(database, webhook(receiver.url)) as running:
        running.append(ChangeKind.OPENED, an_alert())
        running.wait_for_states("dead")
        (one,) = running.list()
        assert one.error == "answered 410 Gone: it wants no more events"
        (sink,) = running.deliveries.sinks
        assert running.sample("gvvad_deliveries_total", sink=sink, outcome="dead") == 1
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_receiver_may_ask_for_patience(database: Database, status: int, form: str) -> None:
    at = datetime.now(UTC) + timedelta(seconds=900)
    asked = "900" if form == "seconds" else format_datetime(at, usegmt=True)
    with (
        receiving(says(status, retry_after=asked)) as receiver,
        delivering(database, webhook(receiver.url)) as running,
    ):
        change = running.append(ChangeKind.OPENED, an_alert())
        eventually(lambda: running.list()[0].attempts == 1)
        due_seconds = running.list()[0].due_seconds
    assert due_seconds is not None
    assert 890 < due_seconds - change.changed_seconds < 930


def test_an_answer_counts_by_its_head_whatever_its_body(database: Database) -> None:
    with (
        receiving(talks_for_ever) as receiver,
        delivering(database, webhook(receiver.url)) as running,
    ):
        running.append(ChangeKind.OPENED, an_alert())
        running.wait_for_states("delivered")
    assert len(receiver.requests) == 1


def test_a_receiver_that_is_not_there_is_named_without_its_url(database: Database) -> None:
    url = f"http://joe:s3cret@localhost:{free_port()}/T0KEN?key=s3cret"
    with delivering(database, webhook(url)) as running:
        running.append(ChangeKind.OPENED, an_alert())
        eventually(lambda: running.list()[0].error != "", running.list)
        (one,) = running.list()
    assert "s3cret" not in repr(one)
    assert "T0KEN" not in repr(one)
    assert one.sink.startswith("webhook:localhost:")


def test_what_cannot_be_delivered_in_time_is_given_up_and_can_be_replayed(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(says(500), well) as receiver:
        settings = webhook(receiver.url, max_age_hours=24)
        with delivering(database, settings) as running:
            append(database, ChangeKind.OPENED, an_alert(), running.deliveries.write, START)
            running.deliveries.wake()
            running.wait_for_states("dead")
            (one,) = running.list(DeliveryFilter(DeliveryState.DEAD))
            assert one.error == "answered 500 Internal Server Error"
            assert running.run(running.deliveries.replay([one.delivery_id], None)) == 1
            running.wait_for_states("delivered")
    assert [request.event["id"] for request in receiver.requests] == [one.event_id] * 2
    assert f"event {one.event_id} for {one.sink} is given up" in caplog.text


def test_an_alert_that_is_stuck_holds_up_no_other(database: Database) -> None:
    stuck, other = an_alert(sequence=1), an_alert(sequence=2)

    def refuses_one(request) -> object:
        return (says(500) if request.alert == stuck.alert_id else well)(request)

    with receiving(refuses_one) as receiver, delivering(database, webhook(receiver.url)) as running:
        for alert in (stuck, other):
            running.append(ChangeKind.OPENED, alert)
            running.append(ChangeKind.CLOSED, closed(alert))
        running.wait_for_states("pending", "pending", "delivered", "delivered")
    assert [(one.alert, one.kind) for one in receiver.taken] == [
        (other.alert_id, "opened"),
        (other.alert_id, "closed"),
    ]
    assert {one.kind for one in receiver.requests if one.alert == stuck.alert_id} == {"opened"}


def test_a_receiver_that_hangs_delays_no_other(database: Database) -> None:
    with receiving(hangs) as bad, receiving(well) as good:
        settings = webhook(bad.url, good.url, timeout_seconds=60)
        with delivering(database, settings) as running:
            for sequence in range(20):
                running.append(ChangeKind.OPENED, an_alert(sequence=sequence))
            good.wait_for(lambda found: len(found.taken) == 20)
            bad.wait_for(lambda found: len(found.requests) == 4)
            (sink,) = (one for one in running.deliveries.sinks if f":{bad.port}/" in one)
            eventually(lambda: running.sample("gvvad_delivery_backlog", sink=sink) == 20)
            assert running.sample("gvvad_delivery_oldest_seconds", sink=sink) > 0


def test_a_sink_that_begins_to_fail_is_logged_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with receiving(*[says(500)] * 3, well) as receiver:
        url = receiver.url.replace("//", "//joe:s3cret@") + "/T0KEN?key=s3cret"
        with delivering(database, webhook(url)) as running:
            for sequence in range(3):
                running.append(ChangeKind.OPENED, an_alert(sequence=sequence))
            running.wait_for_states("delivered", "delivered", "delivered")
            (sink,) = running.deliveries.sinks
            assert running.sample("gvvad_deliveries_total", sink=sink, outcome="delivered") == 3
            assert running.sample("gvvad_deliveries_total", sink=sink, outcome="failed") == 3
    ours = [one.getMessage() for one in caplog.records if one.name.startswith("server.")]
    assert [line for line in ours if sink in line] == [
        f"deliveries to {sink} fail: answered 500 Internal Server Error"
    ]
    assert receiver.taken[0].headers["authorization"].startswith("Basic ")
    assert "s3cret" not in caplog.text
    assert "T0KEN" not in caplog.text


def test_certificates_are_verified(database: Database, certificate: Path) -> None:
    with receiving(well, certificate=certificate) as receiver:
        with delivering(database, webhook(receiver.url)) as running:
            running.append(ChangeKind.OPENED, an_alert())
            eventually(lambda: "certificate" in running.list()[0].error.lower(), running.list)
        assert receiver.requests == []
        with delivering(database, webhook(receiver.url, ca_file=certificate)) as running:
            running.append(ChangeKind.CLOSED, closed(an_alert()))
            receiver.wait_for(lambda found: len(found.taken) == 2)


def test_proxies_of_the_environment_are_not_used(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving(well) as proxy, receiving(well) as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://localhost:{proxy.port}")
        with delivering(database, webhook(receiver.url)) as running:
            running.append(ChangeKind.OPENED, an_alert())
            receiver.wait_for(lambda found: len(found.taken) == 1)
        assert proxy.requests == []


def test_what_is_owed_at_a_stop_is_delivered_after_the_next_start(database: Database) -> None:
    with receiving(hangs, well) as receiver:
        with delivering(database, webhook(receiver.url)) as running:
            running.append(ChangeKind.OPENED, an_alert())
            running.append(ChangeKind.CLOSED, closed(an_alert()))
            receiver.wait_for(lambda found: len(found.requests) == 1)
        with delivering(database, webhook(receiver.url)) as running:
            running.wait_for_states("delivered", "delivered")
    assert [one.kind for one in receiver.taken] == ["opened", "closed"]
    assert json.loads(receiver.taken[0].body)["data"].get("window_scores") is None
