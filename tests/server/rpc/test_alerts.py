"""AlertService through a real server on port 0, over a real log of changes."""

from __future__ import annotations

import time
from dataclasses import replace

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from gvvad.v1 import alert_pb2, alert_pb2_grpc

from server.alert_records import AlertFilter, ChangeKind, Evidence, EvidenceState
from server.alerts import Alert, AlertState, EndReason, Suppression
from server.rpc.alert_messages import WatchedAlert, cursor
from server.rpc.client import Client, ClientError, Watch
from server.store.alerts import AlertLog
from server.streams import SourceUrl, StreamConfig
from tests.support.backend import an_alert
from tests.support.served import Served

OPENED, CLOSED = ChangeKind.OPENED, ChangeKind.CLOSED


@pytest.fixture(autouse=True)
def door(served: Served) -> None:
    for stream_id in ("door", "hall"):
        served.run(served.backend.create(StreamConfig(stream_id, SourceUrl("rtsp://cam/a"))))


def closed(alert: Alert) -> Alert:
    return replace(alert, state=AlertState.CLOSED, end_reason=EndReason.SCORE_FELL)


def write(served: Served, count: int, stream_id: str = "door", first: int = 0) -> list[Alert]:
    """So many alerts that opened, in the log."""
    alerts = [an_alert(stream_id, first_sequence=first + n) for n in range(count)]
    for n, alert in enumerate(alerts):
        served.backend.desk.log.append(OPENED, alert, 1_700_000_000.0 + n)
    return alerts


def received(watch: Watch[WatchedAlert], count: int) -> list[WatchedAlert]:
    return [next(watch)[1] for _ in range(count)]


def refusal(watch: Watch[WatchedAlert]) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        next(watch)
    return caught.value.code, caught.value.sentence


# Watches


def test_a_watch_tells_what_happened_in_order(client: Client, served: Served) -> None:
    desk, alert = served.backend.desk, an_alert("door")
    ready = Evidence(EvidenceState.READY, 10, 20, 1.5, 2.5)
    with client.watch_alerts() as watch:
        before_seconds = time.time()
        desk.submit(alert)
        desk.submit(closed(alert))
        desk.set_evidence(alert.alert_id, ready)
        first = received(watch, 3)
        client.acknowledge(alert.alert_id, "a cat")
        [seen] = received(watch, 1)
    kinds = [change.kind for change in (*first, seen)]
    assert kinds == [OPENED, CLOSED, ChangeKind.EVIDENCE, ChangeKind.ACKNOWLEDGED]
    assert [change.alert for change in first] == [alert, closed(alert), closed(alert)]
    assert (seen.record.note, seen.record.evidence) == ("a cat", ready)
    assert before_seconds - 1 < first[0].changed_seconds < time.time() + 1


def test_a_watch_goes_on_after_any_cursor_without_loss_or_repeat(
    client: Client, served: Served
) -> None:
    with client.watch_alerts() as watch:
        begins = watch.cursor
        alerts = write(served, 250)  # more than a watch reads at once
        served.backend.desk.submit(an_alert("hall"))  # wakes it
        whole = received(watch, 251)
    assert [change.alert for change in whole[:250]] == alerts
    for place, at in ((0, begins), (1, whole[0].cursor), (240, whole[239].cursor)):
        with client.watch_alerts(cursor=at) as watch:
            assert received(watch, 251 - place) == whole[place:]
    with client.watch_alerts(cursor=whole[-1].cursor) as watch:
        served.backend.desk.submit(an_alert("hall", first_sequence=9))
        assert received(watch, 1)[0].alert.first_sequence == 9


def test_a_watch_without_a_cursor_begins_with_the_next_change(
    client: Client, served: Served
) -> None:
    write(served, 3)
    with client.watch_alerts() as watch:
        assert watch.cursor == cursor(3)
        served.backend.desk.submit(an_alert("hall"))
        assert received(watch, 1)[0].alert.stream_id == "hall"


def test_a_watch_of_one_stream_gets_its_own_alone(client: Client, served: Served) -> None:
    begins = cursor(0)
    write(served, 150, "hall")
    [mine] = write(served, 1)
    with client.watch_alerts("door", begins) as watch:
        assert received(watch, 1)[0].alert == mine


def test_suppressed_alerts_are_sent_on_request_alone(client: Client, served: Served) -> None:
    desk = served.backend.desk
    quiet = replace(an_alert("door"), suppression=Suppression.QUIET_HOURS)
    with (
        client.watch_alerts() as some,
        client.watch_alerts(include_suppressed=True) as every,
    ):
        desk.submit(quiet)
        desk.submit(an_alert("hall"))
        assert received(some, 1)[0].alert == an_alert("hall")
        assert [change.alert for change in received(every, 2)] == [quiet, an_alert("hall")]


def test_a_cursor_whose_future_is_gone_is_out_of_range(client: Client, served: Served) -> None:
    write(served, 6)
    served.backend.desk.log.purge(1_700_000_004.0)  # the first four
    code, sentence = refusal(client.watch_alerts(cursor=cursor(1)))
    assert code == "OUT_OF_RANGE"
    assert sentence.startswith("cursor: 3 changes after it are gone with their retention")
    with client.watch_alerts(cursor=cursor(4)) as watch:
        assert [change.alert.first_sequence for change in received(watch, 2)] == [4, 5]
    code, sentence = refusal(client.watch_alerts(cursor=cursor(7)))
    assert (code, "another log" in sentence) == ("OUT_OF_RANGE", True)


def test_a_watch_of_a_stream_at_peace_outlives_the_retention_of_the_others(
    client: Client, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = served.backend.desk.log
    read_up_to: list[int] = []
    # The last that a watch asks of the log before it moves on.
    monkeypatch.setattr(log, "oldest_position", lambda: noted(log, read_up_to))
    with client.watch_alerts("door") as watch:
        served.backend.desk.submit(an_alert("door"))
        received(watch, 1)
        write(served, 3, "hall")
        served.backend.desk.submit(an_alert("hall", first_sequence=50))
        assert eventually_is(lambda: read_up_to[-1], 5)
        log.purge(1e12)
        served.backend.desk.submit(an_alert("door", first_sequence=60))
        assert received(watch, 1)[0].alert.first_sequence == 60


def noted(log: AlertLog, read_up_to: list[int]) -> int:
    read_up_to.append(log.newest_position())
    return AlertLog.oldest_position(log)


def eventually_is(get, wanted: int) -> bool:
    deadline = time.monotonic() + 10
    while get() != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return get() == wanted


@pytest.mark.parametrize("text", ["7", "!", "YWxlcnRzLzIvNw==", "YWxlcnRzLzEvMDc=", "x" * 9_000])
def test_a_cursor_that_is_none_is_refused(client: Client, text: str) -> None:
    code, sentence = refusal(client.watch_alerts(cursor=text))
    assert code == "INVALID_ARGUMENT"
    assert sentence.startswith("cursor (")
    assert "must be" in sentence


def test_the_watch_of_a_deleted_stream_ends_after_its_last_change(
    client: Client, served: Served
) -> None:
    with client.watch_alerts("door") as watch:
        served.backend.desk.submit(closed(an_alert("door")))
        client.delete("door")
        assert received(watch, 1)[0].kind is CLOSED
        code, sentence = refusal(watch)
    assert (code, sentence) == ("NOT_FOUND", "stream door was deleted")


# Lists


def test_filters_reach_the_log_and_pages_hold_all(client: Client, served: Served) -> None:
    alerts = write(served, 230)
    write(served, 3, "hall", first=500)
    served.backend.desk.log.append(CLOSED, closed(alerts[7]), 1.0)
    client.acknowledge(alerts[9].alert_id)
    found = client.list_alerts(AlertFilter(stream_id="door"))
    assert [record.alert.alert_id for record in found] == [
        alert.alert_id for alert in reversed(alerts)
    ]
    wanted = AlertFilter("door", AlertState.OPEN, alerts[5].start_seconds, alerts[12].start_seconds)
    kept = [record.alert.first_sequence for record in client.list_alerts(wanted)]
    assert kept == [11, 10, 9, 8, 6, 5]
    unseen = client.list_alerts(replace(wanted, unacknowledged=True), most=4)
    assert [record.alert.first_sequence for record in unseen] == [11, 10, 8, 6]
    assert client.list_alerts(AlertFilter(min_peak_score=0.9)) == []


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"page_size": -1}, "page_size (-1) must be 0 to 200"),
        ({"state": 9}, "state (9) must be"),
        ({"min_peak_score": 1.5}, "min_peak_score (1.5) must be 0 to 1"),
        ({"min_peak_score": float("nan")}, "min_peak_score (nan) must be"),
        ({"stream": "door"}, "stream ('door') must be streams/{id}"),
        ({"start_time": Timestamp(seconds=10**12)}, "start_time (1000000000000 s"),
        ({"end_time": Timestamp(nanos=-5)}, "end_time (0 s, -5 ns) must lie"),
        ({"page_token": "c3RyZWFtcy9kb29y"}, "page_token must be the next_page_token"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(
    served: Served, request_: dict[str, object], sentence: str
) -> None:
    with grpc.insecure_channel(served.address) as channel:
        stub = alert_pb2_grpc.AlertServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListAlerts(alert_pb2.ListAlertsRequest(**request_), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith(sentence)


# One alert


def test_one_alert_comes_with_the_scores_of_its_windows(client: Client, served: Served) -> None:
    alert = replace(closed(an_alert("door")), window_scores=(0.5, 0.875, 0.25), continues="a" * 16)
    served.backend.desk.log.append(CLOSED, alert, 1.0)
    assert client.get_alert(alert.alert_id).alert == alert
    [listed] = client.list_alerts()
    assert listed.alert == replace(alert, window_scores=())


def test_an_acknowledgement_keeps_the_first_time_and_the_newest_note(
    client: Client, served: Served
) -> None:
    [alert] = write(served, 1)
    first = client.acknowledge(alert.alert_id, "a cat")
    again = client.acknowledge(alert.alert_id, "no, a dog")
    assert first.acknowledged_seconds == again.acknowledged_seconds
    assert first.acknowledged_seconds == pytest.approx(time.time(), abs=20)
    assert (first.note, again.note) == ("a cat", "no, a dog")
    assert client.get_alert(alert.alert_id) == again


@pytest.mark.parametrize(
    ("note", "sentence"),
    [("x" * 2001, "note has 2001 characters"), ("a\0b", "note holds a zero character")],
)
def test_a_note_that_cannot_be_kept_is_refused(
    client: Client, served: Served, note: str, sentence: str
) -> None:
    [alert] = write(served, 1)
    with pytest.raises(ClientError, match=sentence) as caught:
        client.acknowledge(alert.alert_id, note)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert client.acknowledge(alert.alert_id, "\u2603" * 2000).note == "\u2603" * 2000


def test_an_alert_that_is_none_or_unknown_is_told_apart(client: Client) -> None:
    for ask in (client.get_alert, client.acknowledge):
        for alert_id, code in (("door", "INVALID_ARGUMENT"), ("0" * 16, "NOT_FOUND")):
            with pytest.raises(ClientError) as caught:
                ask(alert_id)
            assert caught.value.code == code
