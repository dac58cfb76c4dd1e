"""A server that is killed under traffic: what a client was told of is there afterwards.

KILLS says how often it is killed, ten times by default.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from server.alert_records import AlertFilter, ChangeKind
from server.alerts import Alert, EndReason
from server.contract import WindowSpec
from server.pushed import PushedFrame
from server.rpc.alert_messages import WatchedAlert, cursor
from server.rpc.client import Client, ClientError, Watch
from server.streams import PUSHED
from tests.support.cameras import free_port
from tests.support.faults import Tell
from tests.support.pushing import endless, grey_frames, raw
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.watching import add

KILLS = int(os.environ.get("KILLS", "10"))
STREAMS = ("door", "hall")
GUEST = "guest"
DARK, BRIGHT = 26, 250
FRAMES_A_TURN = 48
"""Of dark and of bright each: three windows, enough to open an alert and to close it."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    return make_tiny_bundle(folder, window=WindowSpec(4, 25.0)).directory


def footage() -> Iterator[PushedFrame]:
    """Dark and bright in turns, for ever, as fast as the server takes it but for a breath."""
    levels = [DARK] * FRAMES_A_TURN + [BRIGHT] * FRAMES_A_TURN
    return endless(list(grey_frames(levels)), 0.0005)


@dataclass
class Traffic:
    """Clients that push and one that watches, whatever becomes of the server."""

    address: str
    over: threading.Event = field(default_factory=threading.Event)
    seen: list[WatchedAlert] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    watching: Watch[WatchedAlert] | None = None

    def push(self, stream_id: str) -> None:
        """Push to a stream, a temporary one in case of the guest."""
        named = None if stream_id == GUEST else stream_id
        while not self.over.is_set():
            with Client(self.address) as client:
                try:
                    temporary = "" if named else GUEST
                    for _ in client.push(footage(), raw(), named, temporary_id=temporary):
                        if self.over.is_set():
                            break
                except ClientError as error:
                    self._note(error)
            self.over.wait(0.05)

    def watch(self) -> None:
        """Watch from the last change that was seen, however often the server goes."""
        while not self.over.is_set():
            with Client(self.address) as client:
                try:
                    at = self.seen[-1].cursor if self.seen else cursor(0)
                    with client.watch_alerts(cursor=at) as self.watching:
                        for _, change in self.watching:
                            self.seen.append(change)
                except ClientError as error:
                    self._note(error)
            self.over.wait(0.05)

    def end(self) -> None:
        """Let the pushes end with their next score, and the watch now."""
        self.over.set()
        if self.watching is not None:
            self.watching.cancel()

    def _note(self, error: ClientError) -> None:
        # Gone, not there yet, or still holding the push of the call before.
        if error.code not in ("UNAVAILABLE", "FAILED_PRECONDITION", "ALREADY_EXISTS", "CANCELLED"):
            self.complaints.append(f"{error.code}: {error.sentence}")


def wait_for_changes(traffic: Traffic, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(traffic.seen) < count:
        assert time.monotonic() < deadline, traffic.complaints
        time.sleep(0.01)


def serve(bundle: Path, url: str, port: int) -> ServerProcess:
    return ServerProcess(
        bundle=bundle, grpc__port=port, store__url=url, alerts__min_duration_seconds=0
    )


@pytest.mark.long
@pytest.mark.timeout(120 + 15 * KILLS)
def test_what_a_client_saw_of_alerts_outlives_every_kill(
    bundle: Path, store_url: str, tell: Tell
) -> None:
    dice, port = random.Random(KILLS), free_port()
    traffic = Traffic(f"127.0.0.1:{port}")
    threads = [
        threading.Thread(target=traffic.push, args=(stream_id,)) for stream_id in (*STREAMS, GUEST)
    ]
    threads.append(threading.Thread(target=traffic.watch))
    for turn in range(KILLS):
        with serve(bundle, store_url, port) as server:
            if not turn:
                with server.client() as client:
                    for stream_id in STREAMS:
                        add(client, stream_id, PUSHED)
                for thread in threads:
                    thread.start()
            wait_for_changes(traffic, len(traffic.seen) + 2)
            time.sleep(dice.random())  # the moment is any
            server.kill()
    with serve(bundle, store_url, port) as server:
        wait_for_changes(traffic, len(traffic.seen) + 5)
        traffic.end()
        for thread in threads:
            thread.join(30)
        with server.client() as client:
            written = whole_log(client, traffic.seen[-1].cursor)
            kept = {
                record.alert.alert_id: record.alert
                for record in client.list_alerts(AlertFilter(include_suppressed=True))
            }
    assert traffic.complaints == []
    assert traffic.seen == written  # nothing lost, nothing twice, nothing changed
    assert_each_id_is_one_event(traffic.seen)
    assert_kept(traffic.seen, kept)
    lost = [c for c in traffic.seen if c.alert.end_reason is EndReason.LOST]
    tell(
        f"{KILLS} kills: {len(traffic.seen)} changes seen, all there; {len(lost)} alerts lost open"
    )
    assert lost
    assert {change.alert.stream_id for change in traffic.seen} == {*STREAMS, GUEST}


def whole_log(client: Client, last: str) -> list[WatchedAlert]:
    """All changes up to one, read anew."""
    found: list[WatchedAlert] = []
    with client.watch_alerts(cursor=cursor(0), include_suppressed=True) as watch:
        for _, change in watch:
            found.append(change)
            if change.cursor == last:
                return found
    raise AssertionError("the watch ended before its last change")


def assert_each_id_is_one_event(seen: list[WatchedAlert]) -> None:
    kinds: dict[str, list[ChangeKind]] = {}
    events: dict[str, tuple[object, ...]] = {}
    for change in seen:
        alert = change.alert
        kinds.setdefault(alert.alert_id, []).append(change.kind)
        event = (alert.stream_id, alert.first_sequence, alert.start_seconds)
        assert events.setdefault(alert.alert_id, event) == event
    assert {tuple(told) for told in kinds.values()} <= {
        (ChangeKind.OPENED,),
        (ChangeKind.OPENED, ChangeKind.CLOSED),
    }


def assert_kept(seen: list[WatchedAlert], kept: dict[str, Alert]) -> None:
    newest = {change.alert.alert_id: change.alert for change in seen}
    for alert_id, alert in newest.items():
        if alert.is_closed:  # one that is open may have closed since
            assert kept[alert_id] == alert
        else:
            assert kept[alert_id].first_sequence == alert.first_sequence
