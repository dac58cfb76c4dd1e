"""Lines of the log, in both formats, and which states of a stream are worth one."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from server.ingest.events import StatusChanged
from server.journal import StateLog
from server.logs import JsonFormatter, PlainFormatter, about
from server.streams import Reason, StreamState

CONNECTING, RUNNING = StreamState.CONNECTING, StreamState.RUNNING
BACKING_OFF, PARKED = StreamState.BACKING_OFF, StreamState.PARKED

PROGRAM = """
import logging, sys, warnings
from server.logs import about, set_up
set_up("info", sys.argv[1])
logging.getLogger("uvicorn.error").info("of uvicorn")
logging.getLogger("grpc._cython.cygrpc").warning("of gRPC")
logging.getLogger("grpc._cython.cygrpc").error("ExecuteBatchError raised in core by a method")
warnings.warn("of Python")
try:
    raise RuntimeError("two\\nlines")
except RuntimeError:
    logging.getLogger("server").exception("broken", extra=about("door"))
logging.getLogger("server").debug("never shown")
"""


def written(log_format: str) -> list[str]:
    """Standard error of a process that logs in many ways."""
    command = [sys.executable, "-c", PROGRAM, log_format]
    return subprocess.run(command, capture_output=True, text=True).stderr.splitlines()


def test_whoever_logs_and_warns_does_so_in_one_json_object_a_line() -> None:
    lines = [json.loads(line) for line in written("json")]
    loggers = [line["logger"] for line in lines]
    assert loggers == ["uvicorn.error", "grpc._cython.cygrpc", "py.warnings", "server"]
    assert [line["level"] for line in lines] == ["info", "warning", "warning", "error"]
    for line in lines:
        time = datetime.fromisoformat(line["time"])
        assert time.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - time) < timedelta(minutes=1)
    assert lines[-1]["stream"] == "door"
    assert lines[-1]["exception"].startswith("Traceback")
    assert lines[-1]["exception"].endswith("RuntimeError: two\nlines")
    assert "stream" not in lines[0]


def test_people_read_the_stream_before_the_message() -> None:
    lines = written("plain")
    assert lines[0].endswith(" INFO uvicorn.error of uvicorn")
    assert any(line.endswith(" ERROR server stream door broken") for line in lines)


@pytest.mark.parametrize("formatter", [JsonFormatter(), PlainFormatter()])
def test_both_formats_name_the_stream_once(formatter: logging.Formatter) -> None:
    record = logging.makeLogRecord({"msg": "%s", "args": ("running",), **about("door")})
    assert [formatter.format(record).count("door") for _ in range(2)] == [1, 1]


def told(caplog: pytest.LogCaptureFixture, *states: tuple[StreamState, Reason | None]) -> list[str]:
    log = StateLog()
    with caplog.at_level(logging.INFO):
        for state, reason in states:
            log.note(StatusChanged("door", state, reason, ""))
    assert all(record.__dict__["stream"] == "door" for record in caplog.records)
    return [record.message for record in caplog.records]


def test_every_change_of_state_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    states = [(CONNECTING, None), (RUNNING, None), (PARKED, Reason.AUTH_FAILED), (CONNECTING, None)]
    assert told(caplog, *states) == ["connecting", "running", "parked (auth_failed)", "connecting"]
    assert caplog.records[2].__dict__["reason"] == "auth_failed"


def test_an_outage_is_one_line_however_often_it_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    off = (BACKING_OFF, Reason.TIMEOUT)
    again = [off, (CONNECTING, Reason.TIMEOUT)] * 5
    other = [(BACKING_OFF, Reason.NOT_FOUND), (CONNECTING, Reason.NOT_FOUND), (RUNNING, None)]
    assert told(caplog, (RUNNING, None), *again, *other, off) == [
        "running",
        "backing_off (timeout)",
        "backing_off (not_found)",
        "running",
        "backing_off (timeout)",
    ]
