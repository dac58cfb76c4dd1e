"""Worker processes that die, hang, are stopped or lose their parent; and files in them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server.ingest.access import AccessPolicy
from server.ingest.events import IngestEvent, StatusChanged, WindowReady, WindowsSkipped
from server.ingest.pool import IngestPool
from server.ingest.video import file_windows
from server.streams import Reason, SourceError, StreamState
from tests.support.cameras import free_port, render_clip
from tests.support.pools import PREPROCESS, WINDOW, Recorder, camera, listener, running_pool

REPLACED_SECONDS = 5.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clips") / "street.mp4", seconds=8)


@pytest.fixture
def urls(clip: Path) -> Iterator[list[str]]:
    """Two URLs to listen on, and a camera that keeps pushing to each."""
    urls = [f"rtsp://127.0.0.1:{free_port()}/cam" for _ in range(2)]
    with contextlib.ExitStack() as stack:
        for url in urls:
            stack.enter_context(_KeenCamera(clip, url))
        yield urls


class _KeenCamera:
    """A camera that comes back whenever its session ends."""

    def __init__(self, clip: Path, url: str) -> None:
        code = "import sys\nfrom server.demo import camera\nwhile True: camera.main(sys.argv[1:])"
        command = [sys.executable, "-c", code, "--clip", str(clip), "--url", url]
        self._process = subprocess.Popen(
            [*command, "--seconds", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)


def _gone(pid: int) -> bool:
    """Whether a process has ended; where nobody reaps orphans it may lie there dead."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    "blow", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.long)]
)
def test_a_lost_worker_is_replaced_and_only_its_streams_notice(
    urls: list[str], blow: signal.Signals
) -> None:
    recorder = Recorder()
    with running_pool(recorder, workers=2) as pool:
        pool.add(listener("a", urls[0]))
        pool.add(listener("b", urls[1]))
        recorder.wait_windows("a", 1)
        recorder.wait_windows("b", 1)
        first_pid, other_pid = pool.worker_pids()
        struck = time.monotonic()
        os.kill(first_pid, blow)
        lost = recorder.wait_state("a", StreamState.BACKING_OFF, after=struck)
        assert lost.reason is Reason.WORKER_LOST
        noticed = time.monotonic()
        recorder.wait_state("a", StreamState.CONNECTING, after=noticed)
        assert time.monotonic() - noticed < REPLACED_SECONDS
        assert recorder.wait_windows("a", 1, after=noticed)[0].number == 0
        assert recorder.wait_reconnected("a").reason is Reason.WORKER_LOST
        assert psutil.pid_exists(other_pid)
        assert not psutil.pid_exists(first_pid)
        assert not recorder.of("b", StatusChanged, after=struck)
        numbers = [window.number for window in recorder.wait_windows("b", 4)]
        assert numbers == list(range(len(numbers)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_whose_reader_fails_is_replaced(urls: list[str]) -> None:
    recorder = Recorder()
    failures = [MemoryError()]

    def take(event: IngestEvent) -> None:
        recorder(event)
        if isinstance(event, WindowReady) and failures:
            raise failures.pop()

    with running_pool(take) as pool:
        pool.add(listener("a", urls[0]))
        failed = time.monotonic()
        recorder.wait_reason("a", Reason.WORKER_LOST, after=failed)
        assert recorder.wait_reconnected("a").reason is Reason.WORKER_LOST
        recorder.wait_windows("a", 2, after=time.monotonic())


def test_stop_leaves_no_process_behind(urls: list[str]) -> None:
    recorder = Recorder()
    with running_pool(recorder, workers=2) as pool:
        pool.add(listener("a", urls[0]))
        recorder.wait_windows("a", 1)
        pids = pool.worker_pids()
        os.kill(pids[1], signal.SIGSTOP)  # one that cannot answer
        asked = time.monotonic()
        pool.stop(timeout_seconds=1.0)
        assert time.monotonic() - asked < 3.0
        assert len(pids) == 2
        assert not [pid for pid in pids if psutil.pid_exists(pid)]
        pool.stop()


def test_workers_ignore_the_interrupt_meant_for_their_parent(urls: list[str]) -> None:
    recorder = Recorder()
    with running_pool(recorder) as pool:
        pool.add(listener("a", urls[0]))
        recorder.wait_windows("a", 1)
        for blow in (signal.SIGINT, signal.SIGTERM):
            os.kill(pool.worker_pids()[0], blow)
        struck = time.monotonic()
        recorder.wait_windows("a", 1, after=struck)
        assert not recorder.of("a", StatusChanged, after=struck)


def test_a_worker_whose_parent_is_killed_ends_by_itself() -> None:
    code = (
        "import sys, time\n"
        "from tests.support.pools import running_pool, camera\n"
        "with running_pool(lambda event: None) as pool:\n"
        "    pool.add(camera('a', 'rtsp://127.0.0.1:1/cam'))\n"
        "    while not pool.worker_pids(): time.sleep(0.01)\n"
        "    print(pool.worker_pids()[0], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait(10)
    Recorder().wait(lambda: _gone(pid), "the orphan's end", 5.0)


def test_no_credential_reaches_arguments_or_environment() -> None:
    recorder = Recorder()
    with running_pool(recorder) as pool:
        pool.add(camera("a", "rtsp://joe:hunter2@127.0.0.1:1/cam"))
        recorder.wait_state("a", StreamState.BACKING_OFF)
        process = psutil.Process(pool.worker_pids()[0])
        shown = " ".join([*process.cmdline(), *process.environ().values()])
    assert "hunter2" not in shown
    assert "hunter2" not in repr(recorder.of("a", StatusChanged))


def test_a_worker_loads_nothing_heavy() -> None:
    code = (
        "import sys, server.ingest.worker\n"
        "heavy = {'onnxruntime', 'grpc', 'sqlalchemy', 'cv2', 'torch', 'pydantic'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _play(clip: Path, on_event: Recorder) -> None:
    """Play a file through a pool to its end, taking each window as it comes."""
    pools: list[IngestPool] = []

    def take(event: IngestEvent) -> None:
        on_event(event)
        if isinstance(event, WindowReady):
            pools[0].acknowledge(event.stream_id)

    access = AccessPolicy(file_roots=(clip.parent,))
    with running_pool(take, access=access) as pool:
        pools.append(pool)
        pool.add(camera("a", clip.as_uri()))
        on_event.wait_state("a", StreamState.ENDED)


def test_a_file_is_played_once_without_loss(clip: Path) -> None:
    recorder = Recorder()
    _play(clip, recorder)
    windows = [event.window for event in recorder.of("a", WindowReady)]
    expected = list(file_windows(clip, WINDOW, PREPROCESS))
    assert len(expected) == 8 * 25 // 16
    assert [window.number for window in windows] == [window.number for window in expected]
    assert [window.images.tobytes() for window in windows] == [
        window.images.tobytes() for window in expected
    ]
    assert recorder.of("a", StatusChanged)[-1].reason is Reason.END_OF_STREAM
    assert not recorder.of("a", WindowsSkipped)


def test_a_file_waits_for_a_parent_that_is_not_done(clip: Path) -> None:
    recorder = Recorder()
    access = AccessPolicy(file_roots=(clip.parent,))
    with running_pool(recorder, access=access) as pool:
        pool.add(camera("a", clip.as_uri()))
        recorder.wait_windows("a", 2)
        pool.add(camera("other", "rtsp://127.0.0.1:1/cam"))
        recorder.wait_state("other", StreamState.BACKING_OFF)  # the worker is not held up
        pool.add(camera("b", clip.as_uri()))
        recorder.wait_windows("b", 2)  # nor is the decoding of others
        assert len(recorder.of("a", WindowReady)) == 2
        pool.acknowledge("a")
        assert [window.number for window in recorder.wait_windows("a", 3)] == [0, 1, 2]


def test_a_file_outside_the_allowed_directories_is_denied(clip: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.mp4"
    link.symlink_to(clip)
    with running_pool(Recorder(), access=AccessPolicy(file_roots=(tmp_path,))) as pool:
        for path in (clip, link):
            with pytest.raises(SourceError, match="not below a directory") as denied:
                pool.add(camera("a", path.as_uri()))
            assert denied.value.reason is Reason.ADDRESS_DENIED


def test_a_file_that_is_no_video_is_parked_with_its_sentence(tmp_path: Path) -> None:
    recorder = Recorder()
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    with running_pool(recorder, access=AccessPolicy(file_roots=(tmp_path,))) as pool:
        pool.add(camera("a", text.as_uri()))
        parked = recorder.wait_state("a", StreamState.PARKED)
        assert parked.reason is Reason.CODEC_UNSUPPORTED
        assert "not a video" in parked.message
        pool.add(camera("b", (tmp_path / "missing.mp4").as_uri()))
        assert recorder.wait_state("b", StreamState.PARKED).reason is Reason.NOT_FOUND


def test_a_stream_id_is_used_once_at_a_time() -> None:
    with running_pool(Recorder()) as pool:
        pool.add(camera("a", "rtsp://127.0.0.1:1/cam"))
        with pytest.raises(ValueError, match="exists"):
            pool.add(camera("a", "rtsp://127.0.0.1:1/cam"))
        pool.remove("a")
        pool.remove("a")
        with pytest.raises(KeyError):
            pool.update(camera("a", "rtsp://127.0.0.1:1/cam"))
