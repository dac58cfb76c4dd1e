"""The committed stubs are those that the protos make, and enums agree with the domain."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gvvad.v1 import alert_pb2, score_pb2, stream_pb2

from server.alerts import AlertState
from server.scoring import DropReason
from server.streams import Mode, Reason, StreamState, Transport

PROTOS = Path(__file__).parents[3] / "protos"


def test_the_committed_stubs_are_fresh(tmp_path: Path) -> None:
    subprocess.run(
        ["sh", PROTOS / "generate.sh", tmp_path],
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
        capture_output=True,
        timeout=60,
    )
    made = {path.name: path.read_text() for path in (tmp_path / "gvvad/v1").iterdir()}
    kept = {path.name: path.read_text() for path in (PROTOS / "gvvad/v1").glob("*_pb2*.py*")}
    assert made == kept


@pytest.mark.parametrize(
    ("message", "prefix", "domain"),
    [
        (stream_pb2.Mode, "MODE_", Mode),
        (stream_pb2.Transport, "TRANSPORT_", Transport),
        (stream_pb2.StreamState, "STREAM_STATE_", StreamState),
        (stream_pb2.StreamReason, "STREAM_REASON_", Reason),
        (score_pb2.DropReason, "DROP_REASON_", DropReason),
        (alert_pb2.AlertState, "ALERT_STATE_", AlertState),
    ],
)
def test_enums_have_the_domains_names_and_one_more(message, prefix: str, domain) -> None:
    assert set(message.keys()) == {prefix + item.name for item in domain} | {prefix + "UNSPECIFIED"}
    assert message.Value(prefix + "UNSPECIFIED") == 0
