"""What the server writes to standard error: lines for people, or JSON for programs.

A line about one stream names it by `extra=about(stream_id)`, never in its words,
so that both formats can show it in the same place. Python's own logging does all
else, and everything that logs goes through it: uvicorn, gRPC and warnings too.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["plain", "json"]

_FIELDS = ("stream", "state", "reason", "alert", "worker")


def about(stream_id: str, **more: str) -> dict[str, str]:
    """Fields of a line about a stream, for logging's `extra`.

    Args:
        stream_id: of the stream.
        more: `state`, `reason` or `alert`, which a program may want to look for.
    """
    return {"stream": stream_id, **more}


def set_up(level: str, log_format: LogFormat) -> None:
    """Send everything from `level` upwards to standard error; once, before anything logs.

    Args:
        level: debug, info, warning or error.
        log_format: plain or json.
    """
    # gRPC's core writes past Python, in a form of its own; what matters it also raises.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else PlainFormatter())
    handler.addFilter(_is_news)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # It tells of every step that it does not have to take.
    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)


def _is_news(record: logging.LogRecord) -> bool:
    # gRPC's way to say that a client hung up while its answer was under way.
    hung_up = "ExecuteBatchError raised in core"
    return not (record.name.startswith("grpc.") and record.getMessage().startswith(hung_up))


class PlainFormatter(logging.Formatter):
    """Time, level, logger, the stream where there is one, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        stream_id = getattr(record, "stream", None)
        if stream_id is not None:
            record.message = f"stream {stream_id} {record.message}"
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message; where they apply also
    stream, state, reason, alert, worker and exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
