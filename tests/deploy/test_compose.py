"""The Compose file: held to the specification's schema, and to what it names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.arguments import parse
from server.ingest.access import AccessPolicy
from server.settings import load_settings
from server.streams import Mode, SourceUrl, StreamConfig

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "compose.yaml"
OURS = ("server", "server-gpu")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


def checked(file: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [program, "--builtin-schema", "vendor.compose-spec", file]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_file_fits_the_specification(tmp_path: Path) -> None:
    assert checked(FILE).returncode == 0, checked(FILE).stdout
    bent = tmp_path / "compose.yaml"
    bent.write_text(FILE.read_text().replace("stop_signal:", "stop_signl:"))
    assert "'stop_signl' was unexpected" in checked(bent).stdout


def test_whatever_a_service_names_is_there(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for kind in ("secrets", "networks", "configs"):
            for used in service.get(kind, []):
                used = used["source"] if isinstance(used, dict) else used
                assert used in compose[kind], f"{name} uses {kind} {used}"
        for needed in service.get("depends_on", {}):
            assert "healthcheck" in compose["services"][needed] or needed in OURS
        for mount in service.get("volumes", []):
            source, target, *_ = mount.split(":")
            named = source in compose["volumes"] or source.startswith("./")
            assert named, f"{name} mounts {source}"
            assert target.startswith("/")


@pytest.mark.parametrize("folder", ["prometheus/rules", "alertmanager", "grafana/provisioning"])
def test_the_folders_that_are_mounted_exist(folder: str, compose: dict[str, Any]) -> None:
    mounts = [m for service in compose["services"].values() for m in service.get("volumes", [])]
    assert any(mount.startswith(f"./{folder}") for mount in mounts)
    assert (FILE.parent / folder).is_dir()


def test_every_service_is_held_short(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= limits.keys(), name
        assert "healthcheck" in service or name in OURS, name  # ours comes with the image
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        assert name in (*OURS, "demo-camera") or service["user"].split(":")[0] != "0"


@pytest.mark.parametrize("name", OURS)
def test_the_server_takes_its_environment_and_its_stage_exists(
    name: str, compose: dict[str, Any], tmp_path: Path
) -> None:
    service = compose["services"][name]
    secret = tmp_path / "store-url"
    secret.write_text("postgresql+psycopg://gvvad:x@postgres/gvvad\n")
    environ = dict(service["environment"])
    assert environ.pop("GVVAD_STORE__URL_FILE") == f"/run/secrets/{secret.name}"
    settings = load_settings(None, environ=environ | {"GVVAD_STORE__URL_FILE": str(secret)})
    assert settings.store.url == secret.read_text().strip()
    assert f"AS {service['build']['target']}\n" in (ROOT / "Dockerfile").read_text()
    assert (FILE.parent / service["build"]["context"]).resolve() == ROOT


def test_the_demo_camera_is_a_command_that_the_server_will_listen_for(
    compose: dict[str, Any],
) -> None:
    options = parse(compose["services"]["demo-camera"]["command"])
    assert options.command == "demo-camera"
    url = SourceUrl(options.url)
    assert (url.host, options.server) == ("server", "server:50051")
    environ = dict(compose["services"]["server"]["environment"])
    del environ["GVVAD_STORE__URL_FILE"]
    settings = load_settings(None, environ=environ)
    listened = SourceUrl(f"rtsp://{options.listen_host}:{url.port}{url.path}")
    networks = settings.access.listen_networks
    AccessPolicy(listen_networks=networks).check(StreamConfig("demo", listened, Mode.LISTEN))


def test_prometheus_differs_from_the_example_in_addresses_alone(compose: dict[str, Any]) -> None:
    ours = yaml.safe_load(compose["configs"]["prometheus"]["content"])
    example = yaml.safe_load((FILE.parent / "prometheus" / "prometheus.yml").read_text())
    assert ours["global"] == example["global"]
    assert [job["job_name"] for job in ours["scrape_configs"]] == [
        job["job_name"] for job in example["scrape_configs"]
    ]


def test_grafana_finds_its_dashboards_and_prometheus(compose: dict[str, Any]) -> None:
    grafana = compose["services"]["grafana"]
    mounts = dict(mount.split(":")[:2] for mount in grafana["volumes"])
    provisioning = FILE.parent / "grafana" / "provisioning"
    for file in (provisioning / "dashboards").glob("*.yml"):
        for provider in yaml.safe_load(file.read_text())["providers"]:
            assert provider["options"]["path"] == mounts["./grafana/dashboards"]
    [file] = (provisioning / "datasources").glob("*.yml")
    [source] = yaml.safe_load(file.read_text())["datasources"]
    url = grafana["environment"][source["url"].strip("${}")]
    assert url == "http://prometheus:9090"


def test_no_secret_is_committed() -> None:
    listed = ["git", "ls-files", "deploy/secrets"]
    finished = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout == ""
    ignored = ["git", "check-ignore", "--quiet", "deploy/secrets/store-url"]
    assert subprocess.run(ignored, cwd=ROOT).returncode == 0
