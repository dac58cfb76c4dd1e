"""`gvvad` as an operator types it, against a real gRPC server where one is needed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from server.cli import main
from server.scoring import DropReason
from server.streams import (
    Mode,
    Reason,
    SourceUrl,
    StreamConfig,
    StreamState,
    StreamStatus,
    Transport,
)
from tests.support.backend import MODEL, MemoryBackend, a_score, an_alert
from tests.support.served import Served, loop_in_thread, serving

ROOT = Path(__file__).parents[2]
URL = "rtsp://joe:s3cret@cam/a"


@pytest.fixture(scope="module")
def run():
    with loop_in_thread() as run:
        yield run


@pytest.fixture
def served(run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(run, MemoryBackend()) as served:
        monkeypatch.setenv("GVVAD_SERVER", served.address)
        yield served


def command(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gvvad: ")
    assert captured.err.count("\n") == 1
    return captured.err


# Streams


def test_a_stream_is_added_shown_changed_and_removed(served: Served, capsys) -> None:
    assert main(["streams", "add", "door", URL, "--transport", "udp", "--threshold", "0.5"]) == 0
    config = served.backend.views["door"].config
    assert (config.url.reveal(), config.mode, config.transport, config.open_threshold) == (
        URL, Mode.PULL, Transport.UDP, 0.5,
    )  # fmt: skip
    assert main(["streams", "update", "door", "--transport", "tcp", "--bundle-threshold"]) == 0
    config = served.backend.views["door"].config
    assert (config.url.reveal(), config.transport, config.open_threshold) == (
        URL, Transport.TCP, None,
    )  # fmt: skip
    assert main(["streams", "get", "door"]) == 0
    assert main(["streams", "list"]) == 0
    assert main(["streams", "remove", "door"]) == 0
    assert served.backend.views == {}
    shown = capsys.readouterr().out
    assert "rtsp://***@cam/a" in shown
    assert "s3cret" not in shown


def test_programs_read_json(served: Served, capsys) -> None:
    assert main(["streams", "add", "door", URL, "--json"]) == 0
    added = json.loads(capsys.readouterr().out)
    assert added["id"] == "door"
    assert added["url"] == "rtsp://***@cam/a"
    assert added["create_time"] == "2023-11-14T22:13:20.500+00:00"
    assert main(["streams", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [added]
    assert main(["streams", "get", "door", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == added


def test_a_table_tells_why_a_stream_does_not_run(served: Served, capsys) -> None:
    main(["streams", "add", "door", URL])
    status = StreamStatus(StreamState.PARKED, Reason.AUTH_FAILED, "give the right password")
    served.backend.views["door"] = replace(served.backend.views["door"], status=status)
    capsys.readouterr()
    main(["streams", "list"])
    assert "parked (auth_failed)" in capsys.readouterr().out
    main(["streams", "get", "door"])
    assert "give the right password" in capsys.readouterr().out


def test_a_password_comes_by_standard_input(served: Served, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("p@ss/w:rd\n"))
    assert main(["streams", "add", "door", "rtsp://joe@cam:8554/a", "--password-stdin"]) == 0
    revealed = served.backend.views["door"].config.url.reveal()
    assert revealed == "rtsp://joe:p%40ss%2Fw%3Ard@cam:8554/a"
    monkeypatch.setattr(sys, "stdin", io.StringIO("new"))
    update = ["streams", "update", "door", "--url", "rtsp://joe@cam/a", "--password-stdin"]
    assert main(update) == 0
    assert served.backend.views["door"].config.url.reveal() == "rtsp://joe:new@cam/a"


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (["add", "door", "rtsp://cam/a", "--password-stdin"], "x", "a URL with a user only"),
        (["add", "door", URL, "--password-stdin"], "x", "a URL with a user only"),
        (["add", "door", "rtsp://joe@cam/a", "--password-stdin"], "", "found no password"),
        (["update", "door", "--password-stdin"], "x", "needs --url"),
        (["update", "door"], "", "nothing to update"),
        (["add", "door", "http://cam/a"], "", "must start with one of"),
        (["add", "Door", "rtsp://cam/a"], "", "stream id 'Door'"),
        (["add", "door", "rtsp://cam/a", "--threshold", "2"], "", "open_threshold (2.0)"),
        (["add", "door", "rtsp://cam/a", "--mode", "push"], "", "see gvvad streams add --help"),
        (["get", "ghost"], "", "there is no stream ghost"),
        (["add", "door", "file:///etc/passwd"], "", "not allowed"),
        (["update", "door", "--thresh", "0.5"], "", "unrecognized arguments"),
        ([], "", "required: ACTION"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    served: Served, monkeypatch, capsys, arguments: list[str], stdin: str, sentence: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    assert main(["streams", *arguments]) == 2
    assert sentence in one_line(capsys)


def test_a_full_server_is_a_failure_at_run_time(served: Served, capsys) -> None:
    served.backend.max_streams = 0
    assert main(["streams", "add", "door", URL]) == 1
    assert "all 0 streams are taken" in one_line(capsys)


def test_no_server_is_a_failure_that_says_how_to_start_one(capsys) -> None:
    assert main(["model", "--server", "127.0.0.1:1"]) == 1
    assert "start one with: gvvad serve" in one_line(capsys)


def test_the_model_is_shown(served: Served, capsys) -> None:
    assert main(["model"]) == 0
    assert MODEL.bundle_id in capsys.readouterr().out
    assert main(["model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["window_seconds"] == 1.28


def test_the_capacity_is_shown(served: Served, capsys) -> None:
    for stream_id in ("door", "yard"):
        served.run(served.backend.create(StreamConfig(stream_id, SourceUrl("rtsp://10.0.0.1/x"))))
    assert main(["capacity"]) == 0
    shown = capsys.readouterr().out
    assert "2 of about 3 like these, 0 thinned" in shown
    assert "1.75 of 3.00 in use: decode 1.00, encode 0.50, rest 0.25" in shown
    assert main(["capacity", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["streams_estimated"] == 3
    assert found["enforced"]


# Watch


@contextmanager
def watching(served: Served, *arguments: str) -> Iterator[Iterator[str]]:
    """Lines of a running `gvvad watch`, which Ctrl-C ends."""
    running = command("watch", *arguments, GVVAD_SERVER=served.address)
    assert running.stdout is not None
    assert running.stderr is not None
    deadline = threading.Timer(20, running.kill)
    deadline.start()
    while not (served.backend.scores.subscriptions and served.backend.desk.changed.subscriptions):
        assert running.poll() is None
        threading.Event().wait(0.01)
    yield running.stdout
    running.send_signal(signal.SIGINT)
    assert (running.wait(timeout=10), running.stderr.read()) == (130, "")
    deadline.cancel()
    running.stdout.close()
    running.stderr.close()


def publish(served: Served) -> None:
    served.backend.scores.publish(a_score("door", 0, 0.25))
    served.backend.scores.publish(a_score("door", 1, None, DropReason.OVERLOAD))
    served.backend.desk.submit(an_alert("door"))


def test_watch_shows_scores_drops_and_alerts_until_ctrl_c(served: Served) -> None:
    with watching(served) as lines:
        publish(served)
        assert {next(lines) for _ in range(3)} == {
            "22:13:21.250Z door         0.250 #####............... latency 0.125 s\n",
            "22:13:22.250Z door         dropped (overload)\n",
            "22:13:26.500Z door         ALERT open after 3.5 s, peak 0.875\n",
        }


def test_watch_writes_json_lines_of_one_stream_for_programs(served: Served) -> None:
    main(["streams", "add", "door", URL])
    with watching(served, "door", "--json") as lines:
        served.backend.scores.publish(a_score("hall", 0))
        publish(served)
        received = [json.loads(next(lines)) for _ in range(3)]
    scores = [item for item in received if item["type"] == "score"]
    assert [(item["sequence"], item["score"], item["drop_reason"]) for item in scores] == [
        (0, 0.25, None),
        (1, None, "overload"),
    ]
    (alert,) = [item for item in received if item["type"] == "alert"]
    assert (alert["state"], alert["peak_score"]) == ("open", 0.875)


def test_a_watch_of_an_unknown_stream_is_refused(served: Served, capsys) -> None:
    assert main(["watch", "ghost"]) == 2
    assert "there is no stream ghost" in one_line(capsys)


def test_a_reader_that_has_enough_ends_the_watch_without_noise(served: Served) -> None:
    running = command("watch", GVVAD_SERVER=served.address)
    assert running.stdout is not None
    assert running.stderr is not None
    while not served.backend.scores.subscriptions:
        assert running.poll() is None
        threading.Event().wait(0.01)
    running.stdout.close()
    while running.poll() is None:
        served.backend.scores.publish(a_score("door", 0))
        threading.Event().wait(0.01)
    assert (running.returncode, running.stderr.read()) == (1, "")
    running.stderr.close()


# The rest


def test_help_is_fast_because_it_imports_no_engine_and_no_grpc() -> None:
    code = (
        "import sys; from server.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'numpy', 'onnxruntime', 'av', 'sqlalchemy', 'pydantic'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("demo", "serve", "streams", "watch", "alerts", "model", "backtest"):
        assert f"\n    {name} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["serve", "--set", "grpc.port"], "must be KEY=VALUE"),
        (["serve", "--set", "grpc.prot=1"], "unknown setting grpc.prot"),
        (["serve", "--config", "/nowhere.toml"], "/nowhere.toml cannot be read"),
        (["serve", "--set", "bundle=/nowhere", "--set", "http.port=0"], "/nowhere is not a bundle"),
        (["backtest", "/nowhere", "--bundle", "/nowhere"], "/nowhere"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_what_cannot_run_is_one_line_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "server", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (2, "")
    assert last.startswith("gvvad: ")
    assert sentence in last
