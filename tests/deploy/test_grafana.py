"""The dashboard for Grafana: sound by itself, and every query of it against a real server."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.telemetry import Telemetry
from tests.support.cameras import RtspServer, render_clip
from tests.support.prometheus import Prometheus
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.watching import add

DASHBOARD = json.loads(Path("deploy/grafana/dashboards/gvvad.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SETTLED_SECONDS = 60

# What a healthy server with one camera has no series of.
WITHOUT_DATA = {
    "gvvad_alerts_suppressed_total": "nothing was suppressed",
    "gvvad_stream_score_drift": "no calibration",
    "gvvad_stream_reconnects_total": "the camera stayed",
    "gvvad_windows_dropped_total": "nothing was dropped",
    "stream:gvvad_windows_dropped:ratio5m": "nothing was dropped",
    "gvvad_deliveries_total": "no receiver",
    "gvvad_delivery_backlog": "no receiver",
    "gvvad_delivery_oldest_seconds": "no receiver",
    "gvvad_evidence_total": "a store in memory keeps no evidence",
    "gvvad_evidence_deleted_total": "a store in memory keeps no evidence",
}


def queries() -> list[str]:
    found = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
    found += [note["expr"] for note in DASHBOARD["annotations"]["list"]]
    return [re.sub(r"\$(instance|stream)\b", ".*", query) for query in found]


def metrics_of(query: str) -> set[str]:
    return set(re.findall(r"[\w:]*gvvad_\w+(?::\w+)?|process_\w+", query))


def test_panels_lie_beside_each_other() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    for one, other in itertools.combinations([panel["gridPos"] for panel in PANELS], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
        assert one["x"] + one["w"] <= 24


def test_every_panel_asks_the_data_source_that_the_viewer_chose() -> None:
    charts = [panel for panel in PANELS if panel["type"] != "row"]
    for part in [*charts, *(target for panel in charts for target in panel["targets"])]:
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "instance", "stream"]


def test_every_metric_asked_for_is_one_of_the_server_s() -> None:
    groups = yaml.safe_load(Path("deploy/prometheus/rules/recording.yml").read_text())["groups"]
    known = {rule["record"] for group in groups for rule in group["rules"]}
    for doc in Telemetry().documented:
        suffixes = ("_bucket", "_sum", "_count") if doc.kind == "histogram" else ("",)
        known |= {doc.name + suffix for suffix in suffixes}
    known |= {"process_cpu_seconds_total", "process_resident_memory_bytes"}
    for query in queries():
        assert metrics_of(query) <= known, query


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has scraped a server whose camera raised an alert."""
    folder = tmp_path_factory.mktemp("grafana")
    bundle = make_tiny_bundle(folder / "tiny", threshold=0.01).directory
    clip = render_clip(folder / "cam.mp4", seconds=4)
    with RtspServer({"/cam": clip}) as camera, ServerProcess(bundle=bundle) as server:
        target = server.http.removeprefix("http://")
        with Prometheus(folder, target) as scraping, server.client() as client:
            wait_for(scraping, "gvvad_build_info")
            add(client, "cam", camera.url("/cam"))
            wait_for(scraping, "instance:gvvad_window_latency_seconds:p99_5m > 0")
            wait_for(scraping, "stream:gvvad_alerts:increase1h > 0")
            yield scraping


def wait_for(prometheus: Prometheus, expression: str) -> None:
    deadline = time.monotonic() + SETTLED_SECONDS
    while not prometheus.series(expression):
        assert time.monotonic() < deadline, f"{expression} never came true"
        time.sleep(0.2)


@pytest.mark.prometheus
@pytest.mark.rtsp
@pytest.mark.long
def test_every_query_has_its_answer_from_a_real_server(prometheus: Prometheus) -> None:
    for query in queries():
        expected = not metrics_of(query) & WITHOUT_DATA.keys()
        if expected and "changes(" not in query:
            wait_for(prometheus, query)
        else:
            prometheus.series(query)


@pytest.mark.prometheus
@pytest.mark.rtsp
@pytest.mark.long
def test_every_rule_is_evaluated_and_none_fires_on_a_healthy_server(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert {rule["name"] for rule in rules if rule["health"] == "err"} == set()
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert firing - {"GvvadEvidenceDiskLow"} == set()  # there is no evidence here, and no disk
    assert len(rules) == 30
