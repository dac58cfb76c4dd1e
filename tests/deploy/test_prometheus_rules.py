"""Rules for Prometheus and routes for Alertmanager, by their own tools."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path("deploy/prometheus")
ALERTMANAGER = Path("deploy/alertmanager/alertmanager.yml")
pytestmark = pytest.mark.prometheus


def run(*command: object) -> str:
    finished = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules/alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_configuration_and_rules_are_sound() -> None:
    assert "2 rule files found" in run("promtool", "check", "config", FOLDER / "prometheus.yml")
    run("promtool", "check", "rules", "--lint-fatal", *sorted(FOLDER.glob("rules/*.yml")))


def test_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", *sorted(FOLDER.glob("tests/*.yml")))


def test_every_alert_is_tested_both_ways() -> None:
    tests = yaml.safe_load((FOLDER / "tests/alerts.test.yml").read_text())["tests"]
    names = {test["name"] for test in tests}
    wanted = {f"{alert} {what}" for alert in alerts() for what in ("fires", "stays quiet")}
    assert wanted - names == set()


def test_every_alert_says_what_to_do_and_where_that_is_written() -> None:
    parts = re.findall(r"^## (\w+)$", Path("deploy/RUNBOOK.md").read_text(), re.MULTILINE)
    assert parts == sorted(parts, key=list(alerts()).index)
    assert set(parts) == set(alerts())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["runbook"] == f"RUNBOOK.md#{name.lower()}"
        assert {"summary", "description"} <= rule["annotations"].keys()


def test_alertmanager_takes_the_example() -> None:
    assert "SUCCESS" in run("amtool", "check-config", ALERTMANAGER)


@pytest.mark.parametrize(("severity", "receiver"), [("page", "on-call"), ("ticket", "tickets")])
def test_each_severity_reaches_its_receiver(severity: str, receiver: str) -> None:
    route = ["amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}"]
    for name, rule in alerts().items():
        if rule["labels"]["severity"] == severity:
            assert run(*route, f"alertname={name}", f"severity={severity}").strip() == receiver
