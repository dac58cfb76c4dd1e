"""The alert desk over real databases: written first, told then, and nobody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from prometheus_client import generate_latest

from server import desk as desk_module
from server.alert_records import AlertChange, ChangeKind, Evidence, EvidenceState
from server.alerts import Alert, AlertState, EndReason
from server.desk import AlertDesk
from server.store.alerts import AlertLog
from server.store.database import Database
from server.telemetry import Telemetry
from server.views import UnknownAlertError
from tests.support.backend import an_alert
from tests.support.postgresql import Cluster

OPENED, CLOSED = ChangeKind.OPENED, ChangeKind.CLOSED
READY = Evidence(EvidenceState.READY, 1_000, 2_000)


def closed(alert: Alert) -> Alert:
    return replace(alert, state=AlertState.CLOSED, end_reason=EndReason.SCORE_FELL)


def eventually(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


class Desk:
    """A running desk, its database, and the changes that a listener heard of."""

    def __init__(self, url: str, keep_seconds: float | None = None) -> None:
        self.database = Database(url)
        self.log = AlertLog(self.database)
        self.heard: list[AlertChange] = []
        self.telemetry = Telemetry()
        self.desk = AlertDesk(self.log, self.telemetry, [self.heard.append], keep_seconds)

    def waiting(self) -> float | None:
        return self.telemetry.registry.get_sample_value("gvvad_alert_backlog")


@contextmanager
def running(url: str, keep_seconds: float | None = None) -> Iterator[Desk]:
    made = Desk(url, keep_seconds)
    made.desk.start()
    try:
        yield made
    finally:
        made.desk.stop()
        made.database.close()


@pytest.fixture
def desk(store_url: str) -> Iterator[Desk]:
    with running(store_url) as made:
        yield made


def test_changes_are_written_and_told_in_the_order_they_came_in(desk: Desk) -> None:
    for n in range(20):
        desk.desk.submit(an_alert("door", first_sequence=n))
        desk.desk.submit(closed(an_alert("door", first_sequence=n)))
    eventually(lambda: len(desk.heard) == 40)
    assert desk.heard == list(desk.log.changes(0))
    assert [change.kind for change in desk.heard] == [OPENED, CLOSED] * 20
    eventually(lambda: desk.waiting() == 0)


def test_who_hears_of_a_change_finds_it_in_the_store(store_url: str) -> None:
    found: list[AlertState] = []
    other = Database(store_url)
    with running(store_url) as made:
        made.desk.listen(lambda one: found.append(AlertLog(other).get(alert).alert.state))
        alert = an_alert("door").alert_id
        made.desk.submit(an_alert("door"))
        made.desk.submit(closed(an_alert("door")))
        eventually(lambda: len(made.heard) == 2)
    other.close()
    assert found == [AlertState.OPEN, AlertState.CLOSED]


def test_whoever_hands_a_change_in_never_waits_for_the_store(desk: Desk) -> None:
    with desk.database.transaction():  # which is one at a time
        began_seconds = time.monotonic()
        desk.desk.submit(an_alert("door"))
        desk.desk.set_evidence(an_alert("door").alert_id, READY)
        desk.desk.end_stream("door")
        assert time.monotonic() - began_seconds < 0.5
        assert desk.heard == []
        assert desk.waiting() == 3
    eventually(lambda: len(desk.heard) == 2)
    assert desk.log.get(an_alert("door").alert_id).evidence == READY


def test_an_acknowledgement_is_told_and_one_that_changes_nothing_is_not(desk: Desk) -> None:
    desk.desk.submit(an_alert("door"))
    eventually(lambda: len(desk.heard) == 1)
    for _ in range(2):
        assert desk.desk.acknowledge(an_alert("door").alert_id, "seen").note == "seen"
    assert [change.kind for change in desk.heard] == [OPENED, ChangeKind.ACKNOWLEDGED]
    with pytest.raises(UnknownAlertError):
        desk.desk.acknowledge("0" * 16, "seen")


def test_evidence_of_an_alert_that_is_gone_stops_nothing(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.desk.set_evidence("0" * 16, READY)
    desk.desk.submit(an_alert("door"))
    eventually(lambda: len(desk.heard) == 1)
    assert "evidence of alert 0000000000000000 is left out" in caplog.text


def test_what_a_killed_server_left_open_is_told_at_the_start(store_url: str) -> None:
    before = Database(store_url)
    AlertLog(before).append(OPENED, an_alert("door"), 1.0)
    before.close()
    with running(store_url) as made:
        [lost] = made.heard
        assert (lost.kind, lost.record.alert.end_reason) == (CLOSED, EndReason.LOST)


def test_sequences_of_what_waits_are_known(desk: Desk) -> None:
    with desk.database.transaction():
        desk.desk.submit(an_alert("guest", first_sequence=40))
        desk.desk.submit(an_alert("other", first_sequence=90))
        assert desk.desk.begins_at("guest") == 43
        assert desk.desk.begins_at("nobody") == 0


# A store that fails


def test_a_full_disk_costs_nothing_but_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with running(f"sqlite:///{tmp_path / 'full.db'}") as made:
        with made.database.transaction() as connection:
            # SQLite's own word for a disk without room.
            pages = connection.execute(sa.text("PRAGMA page_count")).scalar_one()
            connection.execute(sa.text(f"PRAGMA max_page_count = {pages}"))
        alerts = [
            replace(an_alert("door", first_sequence=n), window_scores=(0.5,) * 5_000)
            for n in range(5)
        ]
        for alert in alerts:
            made.desk.submit(alert)
        eventually(lambda: "disk is full; changes of alerts wait in memory" in caplog.text)
        assert (made.waiting() or 0) > 0
        with made.database.transaction() as connection:
            connection.execute(sa.text("PRAGMA max_page_count = 1000000"))
        eventually(lambda: len(made.heard) == 5)
        assert [change.record.alert.alert_id for change in made.heard] == [
            alert.alert_id for alert in alerts
        ]
        eventually(lambda: "the store takes changes of alerts again" in caplog.text)
        assert caplog.text.count("wait in memory") == 1


@pytest.mark.postgresql
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_postgresql_that_restarts_costs_nothing_but_time(cluster: Cluster, mode: str) -> None:
    with running(cluster.database()) as made:
        made.desk.submit(an_alert("door"))
        eventually(lambda: len(made.heard) == 1)
        cluster.stop(mode)
        try:
            for n in range(10, 15):
                made.desk.submit(an_alert("door", first_sequence=n))
            eventually(lambda: (made.waiting() or 0) == 5)
        finally:
            cluster.start()
        eventually(lambda: len(made.heard) == 6)
        assert made.heard == list(made.log.changes(0))


def test_what_has_no_room_in_memory_is_what_costs_least(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(desk_module, "MOST_WAITING", 4)
    told, go_on = threading.Event(), threading.Event()
    with running("sqlite://") as made:
        made.desk.listen(lambda _: told.set() or (go_on.wait(10) and None))
        made.desk.submit(an_alert("door", first_sequence=100))
        assert told.wait(10)
        second = an_alert("door", first_sequence=2)
        for alert in (
            an_alert("door", first_sequence=1),
            second,
            closed(second),
            *(an_alert("door", first_sequence=n) for n in (3, 4, 5)),
        ):
            made.desk.submit(alert)
        go_on.set()
        eventually(lambda: len(made.heard) == 5)
        # First the opening of the second, whose end says all; then the oldest, the first.
        assert [(c.kind, c.record.alert.first_sequence) for c in made.heard] == [
            (OPENED, 100), (CLOSED, 2), (OPENED, 3), (OPENED, 4), (OPENED, 5),
        ]  # fmt: skip
        assert caplog.text.count("are lost so far") == 1


# The end


def test_a_stop_writes_what_waits(store_url: str) -> None:
    made = Desk(store_url)
    made.desk.start()
    for n in range(50):
        made.desk.submit(an_alert("door", first_sequence=n))
    made.desk.stop(within_seconds=10)
    assert len(made.log.changes(0)) == 50
    made.database.close()


def test_a_stop_that_the_store_does_not_let_finish_ends_in_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = Desk("sqlite://")
    made.desk.start()
    with made.database.transaction():
        for n in range(3):
            made.desk.submit(an_alert("door", first_sequence=n))
        began_seconds = time.monotonic()
        made.desk.stop(within_seconds=0.2)
        assert time.monotonic() - began_seconds < 2
    assert "3 changes of alerts are lost" in caplog.text
    made.database.close()


def test_old_alerts_go_while_new_ones_are_written(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = Database(store_url)
    for n in range(3):
        AlertLog(before).append(CLOSED, closed(an_alert("door", first_sequence=n)), 1.0)
    before.close()
    with running(store_url, keep_seconds=3600.0) as made:
        eventually(lambda: made.log.oldest_position() == 3)
        made.desk.submit(an_alert("hall"))
        eventually(lambda: len(made.heard) == 1)
        assert [change.stream_id for change in made.log.changes(0)] == ["door", "hall"]
    assert "retention deleted 2 alerts and 2 changes of alerts" in caplog.text


def test_the_backlog_is_a_metric(desk: Desk) -> None:
    assert b"gvvad_alert_backlog" in generate_latest(desk.telemetry.registry)
