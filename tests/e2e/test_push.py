"""Clients that send their video: the same scores as a file's, lossless or live, and their ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import pytest
from gvvad.v1 import score_pb2_grpc

from server.contract import WindowSpec
from server.pushed import Codec, PushedFrame
from server.rpc.client import Client, ClientError, StreamChange
from server.scoring import DropReason, WindowScore
from server.sender import VideoSource
from server.streams import PUSHED, Reason, SourceUrl, StreamState
from tests.support.cameras import free_port, render_clip
from tests.support.faults import (
    BACK_SECONDS,
    NORMAL_LATENCY_SECONDS,
    Holdings,
    Tell,
    decode_workers,
)
from tests.support.pushing import (
    ENCODERS,
    TINY,
    answers_of,
    at,
    endless,
    grey_frames,
    messages_of,
    narrow_channel,
    raw,
    tiny_frames,
    units_to_push,
)
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import COLOURS, make_tiny_bundle, trail_scores
from tests.support.watching import WAIT_SECONDS, Scores, add, interrupted, is_in, wait_for

ROOT = Path(__file__).parents[2]
MANY = 30_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles") / "tiny"
    return make_tiny_bundle(directory, window=WindowSpec(4, 25.0)).directory


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def server(bundle: Path, files: Path) -> Iterator[ServerProcess]:
    with ServerProcess(bundle=bundle, access__file_roots=files) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with server.client() as client:
        yield client


_DOORS = count()


@pytest.fixture
def door(client: Client) -> Iterator[str]:
    """A stream that clients push to, with an id of its own: sequences outlive a stream."""
    stream_id = f"door-{next(_DOORS)}"
    add(client, stream_id, PUSHED)
    yield stream_id
    client.delete(stream_id)


def scores_of(client: Client, clip: Path, stream_id: str | None = None) -> list[WindowScore]:
    """What pushing a whole clip gives."""
    video = VideoSource(str(clip))
    answers = answers_of(client.push(video.frames(), video.push, stream_id))
    return [answer.score for answer in answers if answer.score is not None]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "libvpx-vp9"])
def test_a_pushed_clip_gets_the_scores_of_the_file(codec: str, files: Path, client: Client) -> None:
    suffix = ".webm" if codec == "libvpx-vp9" else ".mp4"
    clip = render_clip(files / f"{codec}{suffix}", seconds=5, codec=codec)
    with client.watch_scores() as watch:
        add(client, "file", f"file://{clip}")
        expected = [next(watch)[1] for _ in range(7)]
    client.delete("file")
    got = scores_of(client, clip)
    assert [s.score for s in got] == pytest.approx([s.score for s in expected], abs=0.005)
    assert [(s.span.first_frame, s.span.end_frame) for s in got] == [
        (s.span.first_frame, s.span.end_frame) for s in expected
    ]
    if codec in ("libx264", "libx265"):  # sent as they are, so decoded to the very same pictures
        assert [s.score for s in got] == [s.score for s in expected]


@pytest.mark.parametrize("codec", list(ENCODERS), ids=lambda codec: codec.name)
def test_frames_of_every_kind_are_scored(codec: Codec, client: Client) -> None:
    levels = [40 + 10 * (index // 16) for index in range(64)]
    answers = answers_of(client.push(grey_frames(levels, codec), raw(codec)))
    scores = [answer.score for answer in answers if answer.score is not None]
    # Video range and JPEG move a grey by a level or two of 255.
    expected = trail_scores([(40 + 10 * window) / 255 for window in range(4)])
    assert [s.score for s in scores] == pytest.approx(expected, abs=0.01)
    assert [s.sequence for s in scores] == [0, 1, 2, 3]
    assert answers[-1].score is None
    assert (answers[-1].counts.received, answers[-1].counts.damaged) == (64, 0)


def test_a_temporary_stream_lives_as_long_as_its_call(
    server: ServerProcess, client: Client
) -> None:
    push = client.push(endless(list(grey_frames([50] * 16)), 0.01), raw(), temporary_id="guest")
    next(push)
    assert [view.config.stream_id for view in client.list()] == ["guest"]
    assert client.get("guest").status.state is StreamState.RUNNING
    assert 'stream="guest"' in metrics(server)
    with pytest.raises(ClientError, match="'guest' exists") as caught:
        answers_of(client.push(grey_frames([50]), raw(), temporary_id="guest"))
    assert caught.value.code == "ALREADY_EXISTS"
    push.cancel()
    until_gone(client, "guest")
    assert 'stream="guest"' not in metrics(server)


def metrics(server: ServerProcess) -> str:
    return httpx.get(f"{server.http}/metrics", trust_env=False).text


def until_gone(client: Client, stream_id: str) -> None:
    deadline = time.monotonic() + BACK_SECONDS
    while any(view.config.stream_id == stream_id for view in client.list()):
        assert time.monotonic() < deadline, client.list()
        time.sleep(0.02)


def test_a_named_stream_goes_on_from_call_to_call(client: Client, door: str) -> None:
    waiting = client.get(door)
    assert (waiting.status.state, waiting.status.reason) == (StreamState.CONNECTING, None)
    watching = Scores(client)
    first = answers_of(client.push(grey_frames([50] * 32), raw(), door))
    second = answers_of(client.push(grey_frames([90] * 32), raw(), door))
    scores = [answer.score for answer in [*first, *second] if answer.score is not None]
    assert [s.sequence for s in scores] == [0, 1, 2, 3]
    # The second call begins from nothing: what came before it is another time.
    assert [s.span.number for s in scores] == [0, 1, 0, 1]
    assert scores[2].score == pytest.approx(trail_scores([90 / 255])[0], abs=0.005)
    assert [s.score for s in watching.wait(door, 4)] == [s.score for s in scores]
    watching.close()
    view = wait_for(client, door, is_in(StreamState.CONNECTING, Reason.END_OF_STREAM))
    assert view.status.frames_decoded == 64


def test_the_sequence_of_a_named_stream_survives_a_restart(bundle: Path, tmp_path: Path) -> None:
    store = tmp_path / "streams.db"
    for first in (0, 2):
        with ServerProcess(bundle=bundle, store=store) as server, server.client() as client:
            if not first:
                add(client, "door", PUSHED)
            answers = answers_of(client.push(grey_frames([50] * 32), raw(), "door"))
            assert [a.score.sequence for a in answers if a.score] == [first, first + 1]
            client.push(endless(list(grey_frames([50] * 16)), 0.01), raw(), temporary_id="guest")
            code, seconds = server.terminate()
            assert (code, seconds < BACK_SECONDS) == (0, True)


def test_scores_and_alerts_are_told_in_the_bundle_s_sentences(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(
        tmp_path / "bundle", window=WindowSpec(4, 25.0), threshold=0.3, sentences=COLOURS
    )
    red = np.full((48, 64, 3), (230, 20, 60), np.uint8)
    frames = [at(n, ENCODERS[Codec.RGB24](red)) for n in range(160)]
    with ServerProcess(bundle=bundle.directory) as server, server.client() as client:
        add(client, "door", PUSHED)
        with client.watch_alerts("door") as alerts:
            answers = answers_of(client.push(iter(frames), raw(), "door"))
            alert = next(alerts)[1].alert
    told = [answer.score.explanation for answer in answers if answer.score is not None]
    assert {tuple(near.text for near in one) for one in told} == {("red", "blue")}
    assert told[0][0].weight == pytest.approx(230 / 255, abs=0.01)
    assert [near.text for near in alert.explanation] == ["red", "blue"]


def test_one_call_at_a_time_and_push_streams_alone(client: Client, door: str) -> None:
    add(client, "cam", f"rtsp://127.0.0.1:{free_port()}/a")
    push = client.push(endless(list(grey_frames([50] * 16)), 0.01), raw(), door)
    next(push)
    for stream_id, said in ((door, "another call pushes"), ("cam", "is read from rtsp://")):
        with pytest.raises(ClientError, match=said) as caught:
            answers_of(client.push(grey_frames([50]), raw(), stream_id))
        assert caught.value.code == "FAILED_PRECONDITION"
    client.update(door, StreamChange(open_threshold=0.9))  # does not touch the call
    sequences = [next(push)[1].score.sequence for _ in range(3)]
    assert sequences == [1, 2, 3]
    push.cancel()
    client.delete("cam")


@pytest.mark.parametrize("how", ["deleted", "given another source"])
def test_a_call_ends_with_its_stream(how: str, client: Client) -> None:
    add(client, "gone", PUSHED)
    push = client.push(endless(list(grey_frames([50] * 16)), 0.01), raw(), "gone")
    next(push)
    if how == "deleted":
        client.delete("gone")
    else:
        client.update("gone", StreamChange(url=SourceUrl(f"rtsp://127.0.0.1:{free_port()}/a")))
    with pytest.raises(ClientError, match="gone") as caught:
        answers_of(push)
    assert caught.value.code == ("NOT_FOUND" if how == "deleted" else "FAILED_PRECONDITION")
    if how != "deleted":
        wait_for(client, "gone", interrupted(Reason.UNREACHABLE))
        client.update("gone", StreamChange(url=SourceUrl(PUSHED)))
        assert len(answers_of(client.push(grey_frames([50] * 16), raw(), "gone"))) == 2
        client.delete("gone")


@pytest.mark.long
def test_a_client_that_reads_late_is_slowed_and_loses_nothing(
    server: ServerProcess, tell: Tell
) -> None:
    taken = 0

    def frames() -> Iterator[PushedFrame]:
        nonlocal taken
        for frame in tiny_frames(MANY):
            taken += 1
            yield frame

    with narrow_channel(server.address) as channel:
        stub = score_pb2_grpc.ScoreServiceStub(channel)
        call = stub.ScoreVideo(messages_of(frames(), TINY))
        held = settled(lambda: taken)
        tell(f"nothing read: the client was held after {held} of {MANY} frames")
        assert held < MANY
        sequences = [answer.score.sequence for answer in call if answer.HasField("score")]
    assert sequences == list(range(MANY // 16))


def settled(value: Callable[[], int]) -> int:
    """The value once it has stood still for a second."""
    last, since = value(), time.monotonic()
    while time.monotonic() - since < 1:
        time.sleep(0.02)
        if value() != last:
            last, since = value(), time.monotonic()
    return last


def test_a_live_client_that_is_too_fast_loses_frames_and_is_told(
    tmp_path: Path, client: Client, tell: Tell
) -> None:
    clip = render_clip(tmp_path / "large.mp4", seconds=2, size=(1280, 720))
    video = VideoSource(str(clip), live=True)
    frames = [frame for _, frame in zip(range(1500), endless(units_to_push(clip)), strict=False)]
    answers = answers_of(client.push(frames, video.push))
    counts = answers[-1].counts
    scores = [answer.score for answer in answers if answer.score is not None]
    tell(f"live at any speed: {counts}, {len(scores)} windows")
    assert counts.received == 1500
    assert counts.dropped > 100
    assert counts.damaged == 0  # what is left can be decoded: only whole groups were dropped
    assert [s.sequence for s in scores] == list(range(len(scores)))
    assert {s.drop_reason for s in scores} <= {None, DropReason.OVERLOAD, DropReason.BACKLOG}


def test_a_live_client_in_time_loses_nothing(client: Client) -> None:
    push = client.push(
        (f for _, f in zip(range(50), endless(list(grey_frames([50] * 25)), 0.04), strict=False)),
        raw(lossless=False),
    )
    answers = answers_of(push)
    assert (answers[-1].counts.received, answers[-1].counts.dropped) == (50, 0)
    assert [a.score.sequence for a in answers if a.score] == [0, 1, 2]
    assert max(a.score.latency_seconds for a in answers if a.score) < NORMAL_LATENCY_SECONDS


def test_damaged_frames_are_counted_and_the_rest_is_scored(client: Client) -> None:
    frames = list(grey_frames([50] * 64, Codec.JPEG))
    for index in (3, 30, 31):
        frames[index] = at(index, frames[index].data[:40])
    answers = answers_of(client.push(frames, raw(Codec.JPEG)))
    assert answers[-1].counts.damaged == 3
    assert len(answers) == 5


def test_a_push_ends_when_its_worker_dies_and_can_begin_again(bundle: Path, tell: Tell) -> None:
    with ServerProcess(bundle=bundle, ingest__workers=1) as server, server.client() as client:
        add(client, "door", PUSHED)
        push = client.push(endless(list(grey_frames([50] * 16)), 0.01), raw(), "door")
        next(push)
        struck_seconds = time.monotonic()
        decode_workers(server)[0].send_signal(signal.SIGKILL)
        with pytest.raises(ClientError, match="push again") as caught:
            answers_of(push)
        assert caught.value.code == "UNAVAILABLE"
        assert answers_of(client.push(grey_frames([50] * 32), raw(), "door"))[-1].score is None
        tell(
            f"worker lost: pushed and scored again after {time.monotonic() - struck_seconds:.1f} s"
        )
        assert time.monotonic() - struck_seconds < BACK_SECONDS


@pytest.mark.long
@pytest.mark.quiet
def test_a_hanging_worker_does_not_hold_up_pushes_to_another(bundle: Path) -> None:
    with (
        ServerProcess(bundle=bundle, ingest__workers=2, ingest__hang_seconds=60) as server,
        server.client() as client,
    ):
        frames = list(grey_frames([50] * 16))
        pushes = {n: client.push(endless(frames, 0.01), raw(), temporary_id=n) for n in "ab"}
        for push in pushes.values():
            next(push)
        decode_workers(server)[0].suspend()
        got: Counter[str] = Counter()
        for name, push in pushes.items():
            threading.Thread(target=count_answers, args=(push, name, got), daemon=True).start()
        deadline = time.monotonic() + WAIT_SECONDS
        while max(got.values(), default=0) < 20:  # far more than is under way at once
            assert time.monotonic() < deadline, got
            time.sleep(0.02)
        assert min(got[name] for name in "ab") < 5
        for push in pushes.values():
            push.cancel()


def count_answers(push: Iterator[object], name: str, got: Counter[str]) -> None:
    for _ in push:
        got[name] += 1


def test_a_stopping_server_ends_pushes(bundle: Path) -> None:
    with ServerProcess(bundle=bundle) as server, server.client() as client:
        push = client.push(endless(list(grey_frames([50] * 16)), 0.01), raw())
        next(push)
        code, seconds = server.terminate()
        assert (code, seconds < BACK_SECONDS) == (0, True)
        with pytest.raises(ClientError, match="the server is stopping") as caught:
            answers_of(push)
        assert caught.value.code == "UNAVAILABLE"


def test_clients_that_vanish_leave_nothing(server: ServerProcess, tell: Tell) -> None:
    frames = list(grey_frames([50] * 16))

    def come_and_vanish(times: int) -> None:
        for number in range(times):
            client = server.client()
            push = client.push(endless(frames, 0.001), raw(), temporary_id=f"guest-{number}")
            next(push)
            client.close()

    come_and_vanish(3)
    before = Holdings.of(server)
    come_and_vanish(20)
    with server.client() as client:
        for number in range(20):
            until_gone(client, f"guest-{number}")
        before.assert_again(server, tell)


def gvvad_push(server: ServerProcess, *arguments: str, **given: object) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "server", "push", *arguments, "--server", server.address]
    finished = subprocess.run(command, capture_output=True, timeout=60, **given)
    return finished.returncode, finished.stdout.decode(), finished.stderr.decode()


@pytest.fixture(scope="module")
def transport_stream(files: Path) -> Path:
    return render_clip(files / "clip.ts", seconds=3)


def test_gvvad_push_sends_a_file_or_standard_input(
    transport_stream: Path, server: ServerProcess, client: Client, door: str
) -> None:
    code, out, err = gvvad_push(server, door, str(transport_stream))
    assert (code, err, len(out.splitlines())) == (0, "", 5)
    assert "75 frames in" in out
    with transport_stream.open("rb") as file:
        code, piped, err = gvvad_push(server, "guest", "-", "--temporary", stdin=file)
    assert (code, err) == (0, "")
    scores = [line.split()[2] for line in out.splitlines()[:-1]]
    assert [line.split()[2] for line in piped.splitlines()[:-1]] == scores
    cat = subprocess.Popen(["cat", str(transport_stream)], stdout=subprocess.PIPE)
    code, piped, err = gvvad_push(server, "guest", "-", "--temporary", stdin=cat.stdout)
    assert [line.split()[2] for line in piped.splitlines()[:-1]] == scores
    assert (cat.wait(10), cat.stdout.close()) == (0, None)


def test_gvvad_push_says_what_is_wrong(
    transport_stream: Path, files: Path, server: ServerProcess
) -> None:
    (files / "text.mp4").write_text("no video at all")
    for arguments, said in (
        (
            ("door", str(transport_stream)),
            "there is no stream 'door'; create it with the URL push://",
        ),
        (("guest", str(files / "none.mp4"), "--temporary"), "none.mp4 is not a file"),
        (("guest", str(files / "text.mp4"), "--temporary"), "is not a video"),
        (("NO", str(transport_stream), "--temporary"), "temporary_stream_id ('NO') must be"),
        (("guest", "-", "--temporary"), "standard input is not a video"),
    ):
        code, out, err = gvvad_push(server, *arguments, stdin=subprocess.DEVNULL)
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert said in err


def test_the_client_in_the_readme_works_as_it_stands(
    tmp_path: Path, server: ServerProcess, client: Client
) -> None:
    text = (ROOT / "README.md").read_text()
    program = text.split("```python\n")[1].split("```")[0]
    lines = [line for line in program.splitlines() if line and "import" not in line]
    assert len(lines) == 10
    (tmp_path / "push.py").write_text(program)
    clip = render_clip(tmp_path / "clip.mp4", seconds=3)
    command = [sys.executable, "push.py", server.address, str(clip)]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    printed = [float(line.split()[-1]) for line in finished.stdout.splitlines()]
    expected = [score.score for score in scores_of(client, clip)]
    assert printed == pytest.approx(expected, abs=0.01)
