"""A server that is killed under traffic: what a client was told of is there afterwards,
what a receiver is owed reaches it under one id, and files of evidence are whole or absent.

KILLS says how often it is killed, ten times by default.
"""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import pytest

from server.alert_records import AlertFilter, ChangeKind
from server.alerts import Alert, EndReason
from server.contract import WindowSpec
from server.rpc.alert_messages import WatchedAlert, cursor
from server.rpc.client import Client, ClientError, Watch
from server.sender import VideoSource
from server.streams import PUSHED
from tests.support.cameras import free_port
from tests.support.clips import grey_clip
from tests.support.faults import Tell
from tests.support.pushing import endless, grey_frames, raw
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.watching import add
from tests.support.webhook_receiver import Receiver, Reply, fails_half_the_time, receiving

KILLS = int(os.environ.get("KILLS", "10"))
STREAMS = ("door", "hall")
GUEST = "guest"
SECRET = b"a secret of twenty-four bytes and more"
DARK, BRIGHT = 26, 250
FRAMES_A_TURN = 48
"""Of dark and of bright each: three windows, enough to open an alert and to close it."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    return make_tiny_bundle(folder, window=WindowSpec(4, 25.0)).directory


LEVELS = [DARK] * FRAMES_A_TURN + [BRIGHT] * FRAMES_A_TURN


@dataclass
class Traffic:
    """Clients that push and one that watches, whatever becomes of the server.

    What they push is dark and bright in turns, for ever, as fast as the server takes it but
    for a breath: raw pictures, and to the hall a clip's own packets.
    """

    address: str
    clip: VideoSource
    over: threading.Event = field(default_factory=threading.Event)
    seen: list[WatchedAlert] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    watching: Watch[WatchedAlert] | None = None

    def push(self, stream_id: str) -> None:
        """Push to a stream, a temporary one in case of the guest."""
        named = None if stream_id == GUEST else stream_id
        frames, push = list(grey_frames(LEVELS)), raw()
        if stream_id == "hall":
            frames, push = list(self.clip.frames()), self.clip.push
        while not self.over.is_set():
            with Client(self.address) as client:
                try:
                    temporary = "" if named else GUEST
                    for _ in client.push(
                        endless(frames, 0.0005), push, named, temporary_id=temporary
                    ):
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


@dataclass(frozen=True)
class Place:
    """Where a server is started again and again."""

    bundle: Path
    store_url: str
    port: int
    evidence: Path
    receiver: Receiver

    def serve(self) -> ServerProcess:
        secrets = self.evidence.with_name("secrets")
        secrets.write_bytes(SECRET)
        return ServerProcess(
            bundle=self.bundle,
            grpc__port=self.port,
            store__url=self.store_url,
            alerts__min_duration_seconds=0,
            alerts__merge_gap_seconds=0,
            evidence__directory=self.evidence,
            evidence__post_roll_seconds=0,
            webhook__urls=self.receiver.url,
            webhook__secret_file=secrets,
        )


@pytest.mark.long
@pytest.mark.timeout(480 + 15 * KILLS)
def test_what_was_told_of_alerts_outlives_every_kill(
    bundle: Path, store_url: str, tmp_path: Path, tell: Tell
) -> None:
    dice, port = random.Random(KILLS), free_port()
    clip = VideoSource(str(grey_clip(tmp_path / "hall.mp4", LEVELS, fps=25)))
    traffic = Traffic(f"127.0.0.1:{port}", clip)
    threads = [
        threading.Thread(target=traffic.push, args=(stream_id,)) for stream_id in (*STREAMS, GUEST)
    ]
    threads.append(threading.Thread(target=traffic.watch))
    calm, unwell = threading.Event(), fails_half_the_time(dice)
    with receiving(lambda asked: Reply() if calm.is_set() else unwell(asked)) as receiver:
        place = Place(bundle, store_url, port, tmp_path / "evidence", receiver)
        for turn in range(KILLS):
            with place.serve() as server:
                if not turn:
                    with server.client() as client:
                        for stream_id in STREAMS:
                            add(client, stream_id, PUSHED)
                    for thread in threads:
                        thread.start()
                wait_for_changes(traffic, len(traffic.seen) + 2)
                time.sleep(dice.random())  # the moment is any
                server.kill()
                assert_files_are_whole(place.evidence)
        with place.serve() as server:
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
            calm.set()  # of hundreds one fails ten times in a row, and again, and again
            wait_for_deliveries(traffic.seen, receiver)
    assert traffic.complaints == []
    assert traffic.seen == written  # nothing lost, nothing twice, nothing changed
    assert_each_id_is_one_event(traffic.seen)
    assert_kept(traffic.seen, kept)
    assert_delivered_under_one_id(receiver)
    files = assert_files_are_whole(place.evidence)
    lost = [c for c in traffic.seen if c.alert.end_reason is EndReason.LOST]
    tell(
        f"{KILLS} kills: {len(traffic.seen)} changes seen, all there; {len(lost)} alerts lost "
        f"open; {len(receiver.requests)} deliveries tried, {len(receiver.taken)} taken; "
        f"{files} files whole"
    )
    assert lost
    assert files
    assert {change.alert.stream_id for change in traffic.seen} == {*STREAMS, GUEST}


def wait_for_deliveries(seen: list[WatchedAlert], receiver: Receiver) -> None:
    owed = {(change.alert.alert_id, change.kind.value) for change in seen}
    deadline = time.monotonic() + 330  # a pause between two attempts lasts five minutes at most
    while missing := owed - {(one.alert, one.kind) for one in list(receiver.taken)}:
        assert time.monotonic() < deadline, missing
        time.sleep(0.1)


def assert_delivered_under_one_id(receiver: Receiver) -> None:
    told: dict[str, set[bytes]] = {}
    ids: dict[tuple[str, str], set[str]] = {}
    for request in receiver.requests:
        assert request.is_signed_with(SECRET)
        told.setdefault(request.event["id"], set()).add(request.body)
        if request.kind in ("opened", "closed"):
            ids.setdefault((request.alert, request.kind), set()).add(request.event["id"])
    assert {len(bodies) for bodies in told.values()} == {1}
    assert {len(found) for found in ids.values()} == {1}


def assert_files_are_whole(directory: Path) -> int:
    """Every snapshot and clip can be decoded to its end; how many there are."""
    pictures, clips = list(directory.rglob("*.jpg")), list(directory.rglob("*.mp4"))
    for picture in pictures:
        assert cv2.imread(str(picture)) is not None, picture
    for clip in clips:
        with av.open(str(clip)) as container:
            assert [*container.decode(video=0)], clip
    return len(pictures) + len(clips)


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
    kinds: dict[str, list[ChangeKind]] = {change.alert.alert_id: [] for change in seen}
    events: dict[str, tuple[object, ...]] = {}
    for change in seen:
        alert = change.alert
        if change.kind is not ChangeKind.EVIDENCE:  # it comes when it comes
            kinds[alert.alert_id].append(change.kind)
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
