"""`gvvad alerts`: list, get, ack, watch."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from server.alert_records import AlertFilter, AlertRecord, Evidence
from server.alerts import AlertState
from server.arguments import UsageError
from server.rpc.alert_messages import WatchedAlert
from server.rpc.client import Client
from server.streams import shown
from server.terminal import Json, alert_json, clock, fields, rfc3339, table
from server.wording import one_line

_LONGEST_CURSOR = 1000


def run(options: argparse.Namespace, client: Client) -> int:
    """Run one action; the exit code.

    Raises:
        ClientError: the server refused or did not answer.
        UsageError: arguments that cannot be used.
    """
    return _ACTIONS[options.command](options, client)


def record_json(record: AlertRecord) -> Json:
    """An alert at rest, for programs."""
    alert, evidence = record.alert, record.evidence
    return {
        **alert_json(alert, 0),
        "end_reason": alert.end_reason.value if alert.end_reason else None,
        "continues": alert.continues,
        "suppression": alert.suppression.value if alert.suppression else None,
        "acknowledge_time": rfc3339(record.acknowledged_seconds),
        "acknowledge_note": record.note,
        "evidence": None if evidence == Evidence() else _evidence_json(evidence),
    }


def record_table(records: list[AlertRecord]) -> list[str]:
    """Alerts as lines under a heading."""
    rows = [("ALERT", "STREAM", "BEGAN", "LASTED", "PEAK", "STATE", "SEEN")]
    rows += [
        (
            record.alert.alert_id,
            record.alert.stream_id,
            rfc3339(record.alert.start_seconds) or "",
            f"{record.alert.end_seconds - record.alert.start_seconds:.1f} s",
            f"{record.alert.peak_score:.3f}",
            _state(record),
            "-" if record.acknowledged_seconds is None else one_line(record.note) or "yes",
        )
        for record in records
    ]
    return table(rows)


def change_line(change: WatchedAlert) -> str:
    """A change for people: when it was written down, of what, and what happened."""
    alert = change.alert
    what = f"{change.kind.value}, peak {alert.peak_score:.3f}"
    if change.record.note:
        what += f", note: {one_line(change.record.note)}"
    where = f"{alert.stream_id.ljust(12)} alert {alert.alert_id}"
    return f"{clock(change.changed_seconds)} {where} {what}"


def change_json(change: WatchedAlert) -> Json:
    """A change for programs."""
    return {
        **record_json(change.record),
        "change": change.kind.value,
        "change_time": rfc3339(change.changed_seconds),
        "cursor": change.cursor,
    }


# Actions


def _list(options: argparse.Namespace, client: Client) -> int:
    if options.limit < 1:
        raise UsageError(f"--limit {options.limit} must be 1 or more")
    wanted = AlertFilter(
        stream_id=options.stream,
        state=AlertState(options.state) if options.state else None,
        start_seconds=_seconds("--since", options.since),
        end_seconds=_seconds("--until", options.until),
        min_peak_score=options.min_peak,
        unacknowledged=options.unacknowledged,
        include_suppressed=options.include_suppressed,
    )
    records = list(client.list_alerts(wanted, options.limit))
    if options.json:
        print(json.dumps([record_json(record) for record in records]))
    else:
        print("\n".join(record_table(records)))
    return 0


def _get(options: argparse.Namespace, client: Client) -> int:
    record = client.get_alert(options.alert)
    # JSON has no NaN; None is a window that was not scored.
    scores = [None if score != score else score for score in record.alert.window_scores]
    _show(options, record_json(record) | {"window_scores": scores})
    return 0


def _acknowledge(options: argparse.Namespace, client: Client) -> int:
    _show(options, record_json(client.acknowledge(options.alert, options.note)))
    return 0


def _watch(options: argparse.Namespace, client: Client) -> int:
    file: Path | None = options.cursor_file
    cursor = options.cursor if file is None else _kept(file)
    with client.watch_alerts(
        options.stream, cursor, include_suppressed=options.include_suppressed
    ) as watch:
        if file is not None and cursor is None and watch.cursor:
            _keep(file, watch.cursor)  # what happens before the first change counts too
        for _, change in watch:
            line = json.dumps(change_json(change)) if options.json else change_line(change)
            print(line, flush=True)
            if file is not None:
                _keep(file, change.cursor)
    return 0


_ACTIONS: dict[str, Callable[[argparse.Namespace, Client], int]] = {
    "alerts list": _list,
    "alerts get": _get,
    "alerts ack": _acknowledge,
    "alerts watch": _watch,
}


# Helpers


def _show(options: argparse.Namespace, content: Json) -> None:
    print(json.dumps(content) if options.json else "\n".join(fields(content)))


def _evidence_json(evidence: Evidence) -> Json:
    return {**asdict(evidence), "state": evidence.state.value}


def _state(record: AlertRecord) -> str:
    alert = record.alert
    why = alert.suppression or alert.end_reason
    return alert.state.value + (f" ({why.value})" if why else "")


def _seconds(flag: str, text: str | None) -> float | None:
    """UTC seconds of a time; one without a zone is UTC."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{flag} {shown(text)!r} is no time; give it as 2026-05-01T08:00:00Z"
        ) from None


def _kept(file: Path) -> str | None:
    """The cursor in a file; None where there is no file yet."""
    try:
        with file.open(encoding="ascii") as opened:
            cursor = opened.read(_LONGEST_CURSOR).strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise UsageError(f"--cursor-file {file} cannot be read; choose another") from None
    if not cursor:
        raise UsageError(f"--cursor-file {file} is empty; delete it to begin with the next change")
    return cursor


def _keep(file: Path, cursor: str) -> None:
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="ascii") as opened:
            opened.write(cursor + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        scratch.replace(file)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise UsageError(
            f"--cursor-file {file} cannot be written ({error.strerror}); choose another"
        ) from None
