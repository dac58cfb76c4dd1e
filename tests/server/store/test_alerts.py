"""Alerts at rest and the log of their changes, in each kind of database."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection

from server.alert_records import (
    AlertChange,
    AlertFilter,
    AlertRecord,
    ChangeKind,
    Evidence,
    EvidenceState,
)
from server.alerts import Alert, AlertState, EndReason, Suppression
from server.bank import NearSentence
from server.store.alert_pages import PageTokenError
from server.store.alerts import AlertLog, Purged
from server.store.database import Database, StoreError
from server.store.streams import StreamStore
from server.store.tables import DELIVERIES
from server.streams import SourceUrl, StreamConfig
from server.views import UnknownAlertError
from tests.support.backend import an_alert

OPENED, CLOSED = ChangeKind.OPENED, ChangeKind.CLOSED
READY = Evidence(EvidenceState.READY, 1_000, 2_000_000, 1.25, 9.5)


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    database = Database(store_url)
    yield database
    database.close()


@pytest.fixture
def log(database: Database) -> AlertLog:
    return AlertLog(database)


def closed(alert: Alert, reason: EndReason = EndReason.SCORE_FELL) -> Alert:
    return replace(alert, state=AlertState.CLOSED, end_reason=reason)


def rich_alert() -> Alert:
    return replace(
        closed(an_alert("door")),
        peak_score=1 / 3,
        peak_seconds=1_700_000_000.123456,
        explanation=(NearSentence("\u2603 \0 fell", True, 0.1), NearSentence("b", False, 0.2)),
        continues="ab" * 8,
        suppression=Suppression.QUIET_HOURS,
        window_scores=(0.5, 0.25, 0.75),
    )


# Changes


def test_an_alert_comes_back_whole_after_a_restart(log: AlertLog, store_url: str) -> None:
    alert = rich_alert()
    log.append(CLOSED, alert, 5.5)
    log.set_evidence(alert.alert_id, READY, 6.0)
    log.acknowledge(alert.alert_id, "a cat", 7.25)
    again = Database(store_url)
    assert AlertLog(again).get(alert.alert_id) == AlertRecord(alert, 7.25, "a cat", READY)
    [first, *_] = AlertLog(again).changes(0)
    listed = AlertRecord(replace(alert, window_scores=()))
    assert first == AlertChange(1, CLOSED, listed, 5.5)
    again.close()


def test_a_window_without_a_score_is_not_a_number(log: AlertLog) -> None:
    alert = replace(an_alert("door"), window_scores=(0.5, math.nan, 1.0))
    log.append(OPENED, alert, 1.0)
    kept = log.get(alert.alert_id).alert.window_scores
    assert (kept[0], math.isnan(kept[1]), kept[2]) == (0.5, True, 1.0)


def test_a_change_that_is_said_again_is_written_once(log: AlertLog) -> None:
    alert = an_alert("door")
    first = log.append(OPENED, alert, 1.0)
    end = log.append(CLOSED, closed(alert), 2.0)
    assert log.append(OPENED, alert, 3.0) == first
    assert log.append(CLOSED, closed(alert), 3.0) == end
    assert log.get(alert.alert_id).alert == closed(alert)
    assert [change.position for change in log.changes(0)] == [1, 2]


def test_the_first_acknowledgement_stays_and_the_newest_note(log: AlertLog) -> None:
    alert = an_alert("door")
    log.append(OPENED, alert, 1.0)
    first = log.acknowledge(alert.alert_id, "", 2.0)
    again = log.acknowledge(alert.alert_id, "", 3.0)
    assert again == first
    noted = log.acknowledge(alert.alert_id, "a cat", 4.0)
    assert log.acknowledge(alert.alert_id, "", 5.0) == noted
    assert (noted.record.acknowledged_seconds, noted.record.note) == (2.0, "a cat")
    assert log.acknowledge(alert.alert_id, "a dog", 6.0).record.note == "a dog"
    assert [change.position for change in log.changes(0)] == [1, 2, 3, 4]


def test_a_close_keeps_what_was_acknowledged_before(log: AlertLog) -> None:
    alert = an_alert("door")
    log.append(OPENED, alert, 1.0)
    log.acknowledge(alert.alert_id, "seen", 2.0)
    change = log.append(CLOSED, closed(alert), 3.0)
    assert (change.record.acknowledged_seconds, change.record.note) == (2.0, "seen")


def test_evidence_is_told_once_it_can_be_read_or_not(log: AlertLog) -> None:
    alert = an_alert("door")
    log.append(OPENED, alert, 1.0)
    assert log.set_evidence(alert.alert_id, Evidence(EvidenceState.PENDING), 2.0) is None
    assert log.get(alert.alert_id).evidence.state is EvidenceState.PENDING
    told = log.set_evidence(alert.alert_id, READY, 3.0)
    assert told is not None
    assert (told.kind, told.record.evidence) == (ChangeKind.EVIDENCE, READY)
    assert log.set_evidence(alert.alert_id, READY, 4.0) == told
    assert log.set_evidence(alert.alert_id, Evidence(EvidenceState.DELETED), 5.0) is None
    assert len(log.changes(0)) == 2


def test_a_cooldown_is_remembered_by_the_newest_delivered_end(log: AlertLog) -> None:
    assert log.delivered_until("door") is None
    log.append(OPENED, an_alert("door"), 1.0)
    assert log.delivered_until("door") is None
    ends = [100.0, 300.0, 200.0]
    for sequence, end_seconds in enumerate(ends):
        alert = replace(an_alert("door", first_sequence=sequence), end_seconds=end_seconds)
        log.append(CLOSED, closed(alert), 2.0)
    snoozed = replace(an_alert("door", first_sequence=9), suppression=Suppression.SNOOZED)
    log.append(CLOSED, closed(replace(snoozed, end_seconds=400.0)), 3.0)
    assert log.delivered_until("door") == 300.0
    assert log.delivered_until("hall") is None


def test_an_alert_that_is_not_there_is_unknown(log: AlertLog) -> None:
    for ask in (log.get, lambda one: log.acknowledge(one, "", 1.0)):
        with pytest.raises(UnknownAlertError, match="no alert '0000000000000000'"):
            ask("0" * 16)
    with pytest.raises(UnknownAlertError):
        log.set_evidence("0" * 16, READY, 1.0)


def test_what_joins_a_change_is_there_with_it_or_neither(database: Database) -> None:
    refuse = [False]

    def deliver(connection: Connection, change: AlertChange) -> None:
        connection.execute(sa.insert(DELIVERIES).values(delivery(change.position)))
        if refuse[0]:
            connection.execute(sa.text("SELECT no_such_column FROM deliveries"))

    log = AlertLog(database, [deliver])
    log.append(OPENED, an_alert("door"), 1.0)
    refuse[0] = True
    with pytest.raises(StoreError):
        log.append(CLOSED, closed(an_alert("door")), 2.0)
    assert [change.kind for change in log.changes(0)] == [OPENED]
    assert log.get(an_alert("door").alert_id).alert.state is AlertState.OPEN
    assert deliveries(database) == [1]
    refuse[0] = False
    assert log.append(CLOSED, closed(an_alert("door")), 2.0).position == 2


def delivery(position: int, state: str = "pending") -> dict[str, object]:
    return {
        "position": position, "alert_id": "0" * 16, "sink": "webhook", "event_id": str(position),
        "state": state, "attempts": 0, "created_seconds": 0.0, "due_seconds": 0.0, "error": "",
        "since_seconds": 0.0,
    }  # fmt: skip


def deliveries(database: Database) -> list[int]:
    with database.transaction() as connection:
        rows = connection.execute(sa.select(DELIVERIES.c.position).order_by(DELIVERIES.c.position))
        return list(rows.scalars())


def test_what_a_killed_server_left_open_is_closed_as_lost(log: AlertLog) -> None:
    scored = replace(an_alert("hall", first_sequence=9), window_scores=(0.5, 0.75))
    log.append(OPENED, scored, 1.0)
    log.append(OPENED, an_alert("door"), 1.0)
    log.append(CLOSED, closed(an_alert("door")), 2.0)
    [lost] = log.close_lost(50.0)
    assert (lost.kind, lost.position, lost.changed_seconds) == (CLOSED, 4, 50.0)
    assert log.get(scored.alert_id).alert == closed(scored, EndReason.LOST)
    assert log.close_lost(51.0) == []


def test_a_stream_that_is_not_stored_uses_its_sequences_up(database: Database) -> None:
    log, store = AlertLog(database), StreamStore(database)
    store.save(StreamConfig("door", SourceUrl("rtsp://cam/a")), 0.0)
    log.append(OPENED, an_alert("door", first_sequence=40), 1.0)
    log.append(OPENED, an_alert("guest", first_sequence=40), 1.0)
    assert store.begins_at("door") == 0  # its own row says where it goes on
    assert store.begins_at("guest") == 43
    log.append(CLOSED, replace(closed(an_alert("guest", first_sequence=40)), last_sequence=90), 2.0)
    assert store.begins_at("guest") == 91


# Lists

FILTERS = [
    AlertFilter(),
    AlertFilter(include_suppressed=True),
    AlertFilter(stream_id="hall"),
    AlertFilter(state=AlertState.OPEN),
    AlertFilter(start_seconds=1_700_000_004.0, end_seconds=1_700_000_008.0),
    AlertFilter(min_peak_score=0.5, unacknowledged=True),
]


def some_alerts() -> list[Alert]:
    made = [an_alert(("door", "hall")[n % 2], first_sequence=n) for n in range(12)]
    varied = [replace(one, peak_score=n / 12) for n, one in enumerate(made)]
    return [
        replace(
            closed(one) if n % 3 else one,
            suppression=Suppression.COOLDOWN if n % 4 == 0 else None,
            start_seconds=1_700_000_000.0 + n // 2,  # two begin at once
        )
        for n, one in enumerate(varied)
    ]


def fits(record: AlertRecord, wanted: AlertFilter) -> bool:
    alert = record.alert
    return (
        wanted.stream_id in (None, alert.stream_id)
        and wanted.state in (None, alert.state)
        and (wanted.start_seconds is None or alert.start_seconds >= wanted.start_seconds)
        and (wanted.end_seconds is None or alert.start_seconds < wanted.end_seconds)
        and alert.peak_score >= wanted.min_peak_score
        and not (wanted.unacknowledged and record.acknowledged_seconds is not None)
        and (wanted.include_suppressed or alert.suppression is None)
    )


@pytest.mark.parametrize("wanted", FILTERS)
def test_filters_hold_together_and_pages_are_newest_first(
    log: AlertLog, wanted: AlertFilter
) -> None:
    for alert in some_alerts():
        log.append(CLOSED if alert.is_closed else OPENED, alert, 1.0)
    log.acknowledge(some_alerts()[7].alert_id, "", 2.0)
    everything = [log.get(alert.alert_id) for alert in some_alerts()]
    expected = [
        record.alert.alert_id for record in newest_first(everything) if fits(record, wanted)
    ]
    assert pages(log, wanted, 2) == expected
    assert expected


def newest_first(records: list[AlertRecord]) -> list[AlertRecord]:
    return sorted(records, key=lambda one: (one.alert.start_seconds, one.alert.alert_id))[::-1]


def pages(log: AlertLog, wanted: AlertFilter, size: int) -> list[str]:
    found: list[str] = []
    token: str | None = None
    while True:
        records, token = log.list(wanted, size, token)
        found += [record.alert.alert_id for record in records]
        if token is None:
            return found
        assert len(records) == size


@settings(deadline=None, max_examples=60)
@given(
    begins=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    later=st.lists(st.integers(0, 8), max_size=12),
    size=st.integers(1, 4),
)
def test_alerts_that_begin_meanwhile_shift_no_page(
    begins: list[int], later: list[int], size: int
) -> None:
    database = Database("sqlite://")
    log = AlertLog(database)
    made = [
        replace(an_alert("door", first_sequence=n), start_seconds=float(begin))
        for n, begin in enumerate(begins + later)
    ]
    before, meanwhile = made[: len(begins)], made[len(begins) :]
    for alert in before:
        log.append(OPENED, alert, 1.0)
    found: list[str] = []
    records, token = log.list(AlertFilter(), size)
    while True:
        found += [record.alert.alert_id for record in records]
        if token is None:
            break
        if meanwhile:
            log.append(OPENED, meanwhile.pop(), 2.0)
        records, token = log.list(AlertFilter(), size, token)
    database.close()
    assert len(found) == len(set(found))
    assert {alert.alert_id for alert in before} <= set(found)


def test_a_token_goes_with_its_filters_alone(log: AlertLog) -> None:
    for alert in some_alerts():
        log.append(OPENED, alert, 1.0)
    _, token = log.list(AlertFilter(), 2)
    assert token is not None
    for wanted, text in (
        (AlertFilter(stream_id="hall"), token),
        (AlertFilter(), token[:-4]),
        (AlertFilter(), "!"),
        (AlertFilter(), ""),
        (AlertFilter(), "AAAA" + token[4:]),
    ):
        with pytest.raises(PageTokenError, match="with the same filters"):
            log.list(wanted, 2, text)


# The log's ends


def fill(log: AlertLog, count: int) -> list[Alert]:
    """So many alerts that opened and closed, one change a second."""
    alerts = [an_alert("door", first_sequence=n) for n in range(count)]
    for n, alert in enumerate(alerts):
        log.append(OPENED, alert, 2.0 * n)
        log.append(CLOSED, closed(alert), 2.0 * n + 1)
    return alerts


def test_a_log_is_read_from_any_place_and_by_stream(log: AlertLog) -> None:
    fill(log, 3)
    log.append(OPENED, an_alert("hall"), 9.0)
    assert (log.oldest_position(), log.newest_position()) == (1, 7)
    assert [change.position for change in log.changes(2, limit=3)] == [3, 4, 5]
    assert [change.position for change in log.changes(2, "hall")] == [7]
    assert log.changes(7) == []


def test_an_empty_log_begins_at_one(log: AlertLog) -> None:
    assert (log.oldest_position(), log.newest_position(), list(log.changes(0))) == (1, 0, [])


def test_retention_deletes_the_old_a_little_at_a_time(database: Database) -> None:
    log = AlertLog(database)
    alerts = fill(log, 4)
    with database.transaction() as connection:
        connection.execute(sa.insert(DELIVERIES), [delivery(1, "delivered"), delivery(7, "dead")])
    assert log.purge(4.0, limit=3) == Purged(changes=3, alerts=1, deliveries=1)
    assert log.purge(4.0, limit=3) == Purged(changes=1, alerts=1)
    assert log.purge(4.0, limit=3) == Purged()
    assert (log.oldest_position(), log.newest_position()) == (5, 8)
    assert pages(log, AlertFilter(), 9) == [a.alert_id for a in reversed(alerts[2:])]
    assert deliveries(database) == [7]


def test_retention_leaves_the_newest_change_and_what_is_still_open(log: AlertLog) -> None:
    log.append(OPENED, an_alert("hall"), 0.0)
    fill(log, 2)
    assert log.purge(1e9) == Purged(changes=4, alerts=1)
    assert log.newest_position() == log.oldest_position() == 5
    assert log.get(an_alert("hall").alert_id).alert.state is AlertState.OPEN
    log.append(CLOSED, closed(an_alert("hall")), 10.0)
    assert log.newest_position() == 6


def test_an_alert_lives_as_long_as_its_newest_change(log: AlertLog) -> None:
    [alert, _] = fill(log, 2)
    log.acknowledge(alert.alert_id, "keep", 100.0)
    assert log.purge(50.0) == Purged(changes=4, alerts=1)
    assert log.get(alert.alert_id).note == "keep"
