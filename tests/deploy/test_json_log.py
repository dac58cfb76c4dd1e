"""The log of a real server as a log store reads it, while cameras come and go."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from server.contract import WindowSpec
from server.streams import Mode, SourceUrl, StreamConfig
from tests.support.cameras import PushCamera, free_port, render_clip
from tests.support.faults import decode_workers
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle

PASSWORD = "hunter2secret"
WAIT_SECONDS = 30


def parsed(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in list(server.log)]


def states(server: ServerProcess, stream_id: str) -> list[str]:
    """States of a stream that the log tells, in order."""
    lines = [line for line in parsed(server) if line.get("stream") == stream_id]
    return [line["state"] for line in lines if "state" in line and "alert" not in line]


def until(holds: Callable[[], bool], server: ServerProcess) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "".join(server.log)
        time.sleep(0.05)


@pytest.mark.long
def test_each_change_of_state_is_one_json_line_with_its_stream(tmp_path: Path) -> None:
    clip = render_clip(tmp_path / "clip.mp4")
    url = f"rtsp://127.0.0.1:{free_port()}/live"
    with ServerProcess(
        bundle=make_tiny_bundle(tmp_path / "bundle", window=WindowSpec(4, 25.0)).directory,
        log__format="json",
        ingest__workers=1,
        ingest__backoff_first_seconds=0.2,
        ingest__backoff_max_seconds=0.2,
        alerts__min_duration_seconds=0,
    ) as server:
        client = server.client()
        client.create(StreamConfig("door", SourceUrl(url), Mode.LISTEN, open_threshold=0.001))
        nobody = SourceUrl(f"rtsp://viewer:{PASSWORD}@127.0.0.1:{free_port()}/live")
        client.create(StreamConfig("yard", nobody))
        with PushCamera(clip, url):
            until(lambda: states(server, "door") == ["connecting", "running"], server)
            until(lambda: any("alert" in line for line in parsed(server)), server)
        until(lambda: states(server, "door")[2:] == ["connecting"], server)
        with PushCamera(clip, url):
            until(lambda: states(server, "door")[3:] == ["running"], server)
            os.kill(decode_workers(server)[0].pid, signal.SIGKILL)
            until(lambda: "backing_off" in states(server, "door"), server)
        client.delete("door")
        client.close()
        assert server.terminate()[0] == 0
        server.kill()
        lines = parsed(server)
    check_every_line(lines)
    door = ["connecting", "running", "connecting", "running", "backing_off"]
    assert states(server, "door")[:5] == door
    # Every further try of a camera that is not there is the same outage.
    yard = [line for line in lines if line.get("stream") == "yard" and "state" in line]
    assert [line["state"] for line in yard][:2] == ["connecting", "backing_off"]
    reasons = [line.get("reason") for line in yard]
    assert all(one != other for one, other in itertools.pairwise(reasons))
    lost = [line for line in lines if "is replaced" in line["message"]]
    assert [line["worker"] for line in lost] == ["0"]
    check_alerts([line for line in lines if "alert" in line])


def check_every_line(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys()
        assert datetime.fromisoformat(line["time"]).utcoffset() is not None
        assert PASSWORD not in json.dumps(line)
    told = [line["message"].split(":")[0] for line in lines]
    assert {"ready", "stopping", "stopped", "deleted"} <= set(told)


def check_alerts(lines: list[dict[str, Any]]) -> None:
    assert lines
    told = [(line["alert"], line["state"]) for line in lines]
    assert len(set(told)) == len(told)
    assert [state for _, state in told[:2]] == ["open", "closed"]
    assert {line["stream"] for line in lines} == {"door"}
