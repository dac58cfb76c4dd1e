"""What users get wrong: one clear sentence each, a non-zero exit, and nothing else harmed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.contract import WindowSpec
from server.streams import Reason, StreamState
from tests.support.cameras import RtspServer, free_port, mute_server, render_clip
from tests.support.clips import grey_clip
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle

WAIT_SECONDS = 20


def gvvad(*arguments: object) -> tuple[int, str, str]:
    """Run the command line as a user would: exit code, standard output, standard error."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GVVAD_")}
    finished = subprocess.run(
        [sys.executable, "-m", "server", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    return finished.returncode, finished.stdout, finished.stderr


def assert_one_sentence(result: tuple[int, str, str], *said: str) -> None:
    """Exit code 2 and one line that names what was wrong."""
    code, out, err = result
    assert code == 2, err
    assert out == ""
    lines = [line for line in err.splitlines() if " INFO " not in line]
    assert len(lines) == 1, err
    for part in said:
        assert part in lines[0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles") / "tiny"
    return make_tiny_bundle(directory, window=WindowSpec(4, 10.0)).directory


@pytest.fixture(scope="module")
def server(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, Path]]:
    """A server with hasty timeouts, and the directory that it takes files from."""
    files = tmp_path_factory.mktemp("files")
    hasty = {"ingest__open_timeout_seconds": 1.5, "ingest__backoff_max_seconds": 1}
    with ServerProcess(bundle=bundle, access__file_roots=files, **hasty) as process:
        yield process, files


def add(server: ServerProcess, stream: str, url: str) -> tuple[int, str, str]:
    return gvvad("streams", "add", stream, url, "--server", server.address)


def assert_settles(
    server: ServerProcess, stream: str, state: StreamState, reason: Reason, *said: str
) -> None:
    """The stream gets into a state for a reason, and says so in one sentence."""
    client = server.client()
    deadline = time.monotonic() + WAIT_SECONDS
    while (status := client.get(stream).status).reason is not reason:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    assert status.state is state or state is StreamState.BACKING_OFF
    assert "\n" not in status.message
    for part in said:
        assert part in status.message
    client.delete(stream)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("camera-in-the-hall", "must start with one of rtsp://"),
        ("http://127.0.0.1/cam", "must start with one of rtsp://"),
        ("rtsp:///cam", "has no host"),
        ("rtsp://127.0.0.1:port/cam", "is not a URL"),
    ],
)
def test_a_url_that_is_none(server: tuple[ServerProcess, Path], url: str, said: str) -> None:
    assert_one_sentence(add(server[0], "cam", url), said)


def test_a_host_that_refuses(server: tuple[ServerProcess, Path]) -> None:
    url = f"rtsp://127.0.0.1:{free_port()}/cam"
    assert add(server[0], "refuses", url)[0] == 0
    assert_settles(server[0], "refuses", StreamState.BACKING_OFF, Reason.UNREACHABLE, "connected")


def test_a_host_that_does_not_answer(server: tuple[ServerProcess, Path]) -> None:
    with mute_server() as port:
        assert add(server[0], "mute", f"rtsp://127.0.0.1:{port}/cam")[0] == 0
        said = ("did not answer in 1.", f"127.0.0.1:{port}")
        assert_settles(server[0], "mute", StreamState.BACKING_OFF, Reason.TIMEOUT, *said)


@pytest.mark.rtsp
def test_a_path_that_is_not_there_and_a_wrong_password(
    server: tuple[ServerProcess, Path], tmp_path: Path
) -> None:
    clip = render_clip(tmp_path / "cam.mp4")
    with RtspServer({"/cam": clip}) as camera:
        assert add(server[0], "lost", camera.url("/nowhere"))[0] == 0
        missing = (StreamState.BACKING_OFF, Reason.NOT_FOUND, "/nowhere")
        assert_settles(server[0], "lost", *missing)
    with RtspServer({"/cam": clip}, user="joe", password="right") as camera:
        assert add(server[0], "locked", camera.url("/cam", "joe", "wr0ng"))[0] == 0
        parked = (StreamState.PARKED, Reason.AUTH_FAILED, "refuses the user name or password")
        assert_settles(server[0], "locked", *parked)
    assert "wr0ng" not in "".join(server[0].log)


def test_a_file_that_is_no_video(
    server: tuple[ServerProcess, Path], bundle: Path, tmp_path: Path
) -> None:
    fake = server[1] / "fake.mp4"
    fake.write_bytes(b"not a video at all")
    assert add(server[0], "fake", f"file://{fake}")[0] == 0
    wrong = (StreamState.PARKED, Reason.CODEC_UNSUPPORTED, "is not a video")
    assert_settles(server[0], "fake", *wrong)
    code, _, err = gvvad("backtest", fake, "--bundle", bundle)
    assert code == 2
    assert "fake.mp4 is not a video" in err
    assert len(err.splitlines()) == 1


def test_a_file_outside_the_allowed_directories(
    server: tuple[ServerProcess, Path], tmp_path: Path
) -> None:
    clip = grey_clip(tmp_path / "secret.mp4", [9] * 20)
    (server[1] / "link.mp4").symlink_to(clip)
    for path in (clip, server[1] / "link.mp4", server[1] / ".." / clip.name):
        refused = add(server[0], "secret", f"file://{path}")
        assert_one_sentence(refused, "not below a directory that the settings allow")


def test_a_clip_of_15_frames_is_counted_and_left_out(bundle: Path, tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "short.mp4", [9] * 15)
    code, out, _ = gvvad("backtest", clip, "--bundle", bundle)
    assert code == 0
    assert "no window" in out


def test_a_folder_that_is_not_there(bundle: Path) -> None:
    result = gvvad("backtest", "/nowhere/at/all", "--bundle", bundle)
    assert_one_sentence(result, "/nowhere/at/all does not exist", "give a folder")


@pytest.fixture
def own_bundle(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "own").directory


def serve(bundle: Path, *more: str) -> tuple[int, str, str]:
    flags = ["grpc.port=0", "http.port=0", "store.url=sqlite://", f"bundle={bundle}", *more]
    return gvvad("serve", *(part for flag in flags for part in ("--set", flag)))


def test_a_bundle_with_one_byte_changed(own_bundle: Path) -> None:
    content = bytearray((own_bundle / "encoder.onnx").read_bytes())
    content[-1] ^= 1
    (own_bundle / "encoder.onnx").write_bytes(content)
    assert_one_sentence(serve(own_bundle), "encoder.onnx does not match its manifest", "again")


def test_a_bundle_with_a_file_missing(own_bundle: Path) -> None:
    (own_bundle / "head.onnx").unlink()
    assert_one_sentence(serve(own_bundle), "lacks head.onnx")


def test_a_bundle_with_a_graph_of_another_shape(tmp_path: Path) -> None:
    liar = make_tiny_bundle(tmp_path / "liar", feature_dim_said=7).directory
    assert_one_sentence(serve(liar), "feature float32 (*, 3)", "says feature float32 (*, 7)")


def test_a_settings_file_with_an_unknown_key(own_bundle: Path, tmp_path: Path) -> None:
    config = tmp_path / "gvvad.toml"
    config.write_text("[grpc]\nprot = 50051\n")
    result = gvvad("serve", "--config", config)
    assert_one_sentence(result, "grpc.prot", str(config), "grpc.port")


def test_an_engine_that_cannot_be_had(own_bundle: Path) -> None:
    code, _, err = serve(own_bundle, "engine.device=cuda")
    assert code in (1, 2)
    assert "CUDAExecutionProvider" in err
    assert "Traceback" not in err


def test_an_engine_that_has_no_such_device(own_bundle: Path) -> None:
    code, _, err = serve(own_bundle, "engine.name=tensorrt_rtx", "engine.device=cpu")
    assert code == 1
    assert "engine.device is cpu; leave engine.device out" in err
    assert "Traceback" not in err


def test_a_port_that_is_taken(own_bundle: Path, server: tuple[ServerProcess, Path]) -> None:
    taken = server[0].address.rsplit(":", 1)[1]
    code, _, err = serve(own_bundle, f"grpc.port={taken}")
    assert code == 1
    assert f"127.0.0.1:{taken}" in err
    assert "Traceback" not in err


def test_a_server_that_is_not_there() -> None:
    code, _, err = gvvad("streams", "list", "--server", f"127.0.0.1:{free_port()}")
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "gvvad serve" in err
