"""What is owed to whom, in real databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from server.alert_records import AlertRecord, ChangeKind, Evidence, EvidenceState
from server.alerts import Suppression
from server.delivery_records import Backlog, DeliveryFilter, DeliveryState
from server.store.database import Database
from server.store.outbox import Outbox
from server.store.tables import ALERT_CHANGES
from tests.support.alert_rows import START, an_alert, append, closed

A, B = "webhook:a.example.com", "mqtt:b.example.com"
LATER = START + 100
EVERYTHING = DeliveryFilter()


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    database = Database(store_url)
    yield database
    database.close()


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database, [A, B])


def kinds(outbox: Outbox, sink: str = A, now: float = LATER) -> list[tuple[str, str]]:
    return [(one.delivery.alert_id, one.change.kind.value) for one in outbox.due(sink, now, 100)]


def test_every_sink_is_owed_every_change_once_its_alert_is_up_to_it(database, outbox) -> None:
    alert = an_alert()
    append(database, ChangeKind.OPENED, alert, outbox.write)
    append(database, ChangeKind.CLOSED, closed(alert), outbox.write)
    for sink in (A, B):
        assert kinds(outbox, sink) == [(alert.alert_id, "opened")]
        outbox.delivered(outbox.due(sink, LATER, 1)[0].delivery.delivery_id)
        assert kinds(outbox, sink) == [(alert.alert_id, "closed")]
        outbox.delivered(outbox.due(sink, LATER, 1)[0].delivery.delivery_id)
        assert kinds(outbox, sink) == []


def test_an_end_comes_with_its_windows_scores_and_a_beginning_without(database, outbox) -> None:
    alert = an_alert()
    for kind, state in ((ChangeKind.OPENED, alert), (ChangeKind.CLOSED, closed(alert))):
        change = append(database, kind, state, outbox.write, START + 0.25)
        (due,) = outbox.due(A, LATER, 5)
        outbox.delivered(due.delivery.delivery_id)
        assert (due.change.position, due.change.kind) == (change.position, kind)
        assert due.change.changed_seconds == START + 0.25
        assert repr(due.change.record.alert) == repr(state)  # NaN equals nothing


def test_a_suppressed_alert_is_owed_to_nobody(database, outbox) -> None:
    alert = an_alert(suppression=Suppression.QUIET_HOURS)
    append(database, ChangeKind.OPENED, alert, outbox.write)
    append(database, ChangeKind.CLOSED, closed(alert), outbox.write)
    assert outbox.list(EVERYTHING, 10, None) == ([], None)


def test_a_change_that_is_not_written_is_owed_to_nobody(database, outbox) -> None:
    def write_and_fail(connection, change) -> None:
        outbox.write(connection, change)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        append(database, ChangeKind.OPENED, an_alert(), write_and_fail)
    assert outbox.list(EVERYTHING, 10, None) == ([], None)


def test_ids_are_of_alert_and_kind_and_numbered_where_a_kind_repeats(database, outbox) -> None:
    record = AlertRecord(an_alert())
    ready = replace(record, evidence=Evidence(EvidenceState.READY, 100, 2000))
    for kind, state in (
        (ChangeKind.OPENED, record),
        (ChangeKind.ACKNOWLEDGED, replace(record, acknowledged_seconds=START, note="a")),
        (ChangeKind.ACKNOWLEDGED, replace(record, acknowledged_seconds=START, note="b")),
        (ChangeKind.EVIDENCE, ready),
    ):
        append(database, kind, state, outbox.write)
    ids = [one.event_id for one in outbox.list(DeliveryFilter(sink=A), 10, None)[0]]
    alert_id = record.alert.alert_id
    assert ids[::-1] == [
        f"{alert_id}.opened",
        f"{alert_id}.acknowledged.2",
        f"{alert_id}.acknowledged.3",
        f"{alert_id}.evidence.4",
    ]


def test_an_alert_that_waits_holds_up_itself_alone(database, outbox) -> None:
    stuck, other = an_alert(sequence=1), an_alert(sequence=2)
    append(database, ChangeKind.OPENED, stuck, outbox.write)
    (due,) = outbox.due(A, LATER, 1)
    outbox.failed(due.delivery.delivery_id, "refused", LATER + 50)
    append(database, ChangeKind.CLOSED, closed(stuck), outbox.write)
    append(database, ChangeKind.OPENED, other, outbox.write)
    assert kinds(outbox) == [(other.alert_id, "opened")]
    assert outbox.next_due(A, LATER) == LATER + 50
    assert kinds(outbox, now=LATER + 50) == [(other.alert_id, "opened"), (stuck.alert_id, "opened")]
    assert kinds(outbox, B) == [(stuck.alert_id, "opened"), (other.alert_id, "opened")]


def test_what_is_given_up_lets_the_next_of_its_alert_pass(database, outbox) -> None:
    alert = an_alert()
    append(database, ChangeKind.OPENED, alert, outbox.write)
    append(database, ChangeKind.CLOSED, closed(alert), outbox.write)
    outbox.dead(outbox.due(A, LATER, 1)[0].delivery.delivery_id, "answered 410")
    assert kinds(outbox) == [(alert.alert_id, "closed")]


def test_a_list_has_attempts_errors_and_times_and_pages_newest_first(database, outbox) -> None:
    for sequence in range(3):
        append(database, ChangeKind.OPENED, an_alert(sequence=sequence), outbox.write)
    first, second, third = (one.delivery for one in outbox.due(A, LATER, 3))
    outbox.failed(first.delivery_id, "no answer", LATER + 1)
    outbox.failed(first.delivery_id, "still none", LATER + 2)
    outbox.delivered(second.delivery_id)
    outbox.dead(third.delivery_id, "answered 410")
    page, token = outbox.list(DeliveryFilter(sink=A), 2, None)
    rest, end = outbox.list(DeliveryFilter(sink=A), 2, token)
    shown = [(one.state.value, one.attempts, one.due_seconds, one.error) for one in page + rest]
    assert shown == [
        ("dead", 1, None, "answered 410"),
        ("delivered", 1, None, ""),
        ("pending", 2, LATER + 2, "still none"),
    ]
    assert end is None
    (dead,), _ = outbox.list(DeliveryFilter(DeliveryState.DEAD), 10, None)
    assert (dead.delivery_id, dead.created_seconds) == (third.delivery_id, START)


def test_a_replay_is_the_same_delivery_with_a_new_life(database, outbox) -> None:
    append(database, ChangeKind.OPENED, an_alert(), outbox.write)
    (due,) = outbox.due(A, LATER, 1)
    assert outbox.replay([due.delivery.delivery_id], None, LATER) == 0, "it is not dead"
    outbox.dead(due.delivery.delivery_id, "too old")
    assert outbox.replay([due.delivery.delivery_id], B, LATER) == 0
    assert outbox.replay([due.delivery.delivery_id + 1000], None, LATER) == 0
    assert outbox.replay([due.delivery.delivery_id], A, LATER + 7) == 1
    (again,) = outbox.due(A, LATER + 7, 1)
    assert again.delivery.event_id == due.delivery.event_id
    assert (again.since_seconds, again.delivery.attempts) == (LATER + 7, 0)
    assert again.delivery.created_seconds == START


def test_a_replay_without_ids_takes_all_that_are_dead(database, outbox) -> None:
    for sequence in range(4):
        append(database, ChangeKind.OPENED, an_alert(sequence=sequence), outbox.write)
    for one in outbox.due(A, LATER, 3):
        outbox.dead(one.delivery.delivery_id, "gone")
    outbox.dead(outbox.due(B, LATER, 1)[0].delivery.delivery_id, "gone")
    assert outbox.replay([], None, LATER) == 4
    assert outbox.counts(A, LATER + 5) == Backlog(4, LATER + 5 - START)


def test_what_is_owed_to_a_receiver_that_is_gone_is_dead_and_stays_so(database, outbox) -> None:
    append(database, ChangeKind.OPENED, an_alert(), outbox.write)
    later = Outbox(database, [B, "webhook:new.example.com"])
    assert (later.bury_orphans(), later.bury_orphans()) == (1, 0)
    (dead,), _ = later.list(DeliveryFilter(DeliveryState.DEAD), 10, None)
    assert (dead.sink, dead.error) == (A, "the server's settings name this receiver no more")
    assert later.replay([], None, LATER) == 0
    assert kinds(later, B) != []
    assert kinds(later, "webhook:new.example.com") == [], "a new one begins with the next change"


def test_a_receiver_that_is_back_gets_at_once_what_waits(database, outbox) -> None:
    append(database, ChangeKind.OPENED, an_alert(), outbox.write)
    outbox.failed(outbox.due(A, LATER, 1)[0].delivery.delivery_id, "refused", LATER + 300)
    outbox.hurry(B, LATER + 1)
    assert kinds(outbox, now=LATER + 1) == []
    outbox.hurry(A, LATER + 1)
    assert len(kinds(outbox, now=LATER + 1)) == 1


def test_what_is_long_delivered_or_has_lost_its_change_is_forgotten(database, outbox) -> None:
    for sequence in range(3):
        append(
            database, ChangeKind.OPENED, an_alert(sequence=sequence), outbox.write, START + sequence
        )
    old, kept, lost = outbox.due(A, LATER, 3)
    for one in (old, kept):
        outbox.delivered(one.delivery.delivery_id)
    outbox.dead(lost.delivery.delivery_id, "gone")
    with database.transaction() as connection:
        connection.execute(
            sa.delete(ALERT_CHANGES).where(ALERT_CHANGES.c.position == lost.change.position)
        )
    assert outbox.purge(START + 1) == 3  # of A the old and the lost one, of B the lost one
    (left,), _ = outbox.list(DeliveryFilter(sink=A), 10, None)
    assert left.delivery_id == kept.delivery.delivery_id


def test_a_record_that_cannot_be_read_is_dead_and_holds_up_nobody(database, outbox) -> None:
    bad = append(database, ChangeKind.OPENED, an_alert(sequence=1), outbox.write)
    good = an_alert(sequence=2)
    append(database, ChangeKind.OPENED, good, outbox.write)
    with database.transaction() as connection:
        connection.execute(
            sa.update(ALERT_CHANGES)
            .where(ALERT_CHANGES.c.position == bad.position)
            .values(record='{"alert": 1}')
        )
    assert kinds(outbox) == [(good.alert_id, "opened")]
    (dead,), _ = outbox.list(DeliveryFilter(DeliveryState.DEAD, A), 10, None)
    assert "unreadable" in dead.error


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["take", "fail", "die"])), max_size=30)
)
def test_changes_of_an_alert_are_never_tried_out_of_order(steps) -> None:
    database = Database("sqlite://")
    outbox, tried = Outbox(database, [A]), {}
    for sequence in range(4):
        for kind, state in (
            (ChangeKind.OPENED, an_alert(sequence=sequence)),
            (ChangeKind.ACKNOWLEDGED, an_alert(sequence=sequence)),
            (ChangeKind.CLOSED, closed(an_alert(sequence=sequence))),
        ):
            append(database, kind, state, outbox.write)
    for number, (place, outcome) in enumerate(steps):
        due = outbox.due(A, LATER + number, 10)
        assert len({one.delivery.alert_id for one in due}) == len(due)
        if place >= len(due):
            continue
        one = due[place]
        positions = tried.setdefault(one.delivery.alert_id, [])
        positions.append(one.change.position)
        assert positions == sorted(positions)
        if outcome == "take":
            outbox.delivered(one.delivery.delivery_id)
        elif outcome == "die":
            outbox.dead(one.delivery.delivery_id, "gone")
        else:
            outbox.failed(one.delivery.delivery_id, "refused", LATER + number + 3)
    database.close()
