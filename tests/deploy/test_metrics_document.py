"""deploy/METRICS.md says what the server really tells."""

from __future__ import annotations

import re
from pathlib import Path

from server.metrics_document import document
from server.telemetry import Telemetry

FILE = Path("deploy/METRICS.md")


def test_the_file_is_what_the_registry_makes_of_it() -> None:
    remedy = "run: python -m server.metrics_document > deploy/METRICS.md"
    assert FILE.read_text() == document(), remedy


def test_every_metric_that_is_registered_is_in_it() -> None:
    text = FILE.read_text()
    registered = {metric.name for metric in Telemetry().registry.collect()}
    named = set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))
    assert {name for name in registered if not {name, f"{name}_total"} & named} == set()


def test_units_stand_in_the_names() -> None:
    for doc in Telemetry().documented:
        assert doc.name.startswith("gvvad_")
        assert doc.kind != "counter" or doc.name.endswith("_total")
        assert "url" not in doc.labels
