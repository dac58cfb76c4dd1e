"""The manifests for Kubernetes, rendered by kubectl's kustomize: valid, and true to the server."""

from __future__ import annotations

import base64
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from starlette.routing import Route

from server.settings import Settings, load_settings
from server.telemetry import Telemetry
from server.web.port import application

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
VERSIONS = ("1.30", "1.34", "1.37")
RENDERED = ("base", "overlays/example")
# Of the Prometheus operator; no schema of Kubernetes' own has it.
FOREIGN = {"ServiceMonitor"}

Manifest = dict[str, Any]


@cache
def rendered(folder: str) -> tuple[Manifest, ...]:
    kubectl = Path(sys.executable).with_name("kubectl")
    command = [kubectl, "kustomize", FOLDER / folder]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""  # kustomize warns there of what it will drop
    return tuple(yaml.safe_load_all(finished.stdout))


def one(folder: str, kind: str) -> Manifest:
    [found] = [manifest for manifest in rendered(folder) if manifest["kind"] == kind]
    return found


def pod(folder: str) -> Manifest:
    spec: Manifest = one(folder, "StatefulSet")["spec"]["template"]["spec"]
    return spec


def container(folder: str) -> Manifest:
    [found] = pod(folder)["containers"]
    return dict(found)


def data(folder: str, kind: str, name: str) -> dict[str, str]:
    [found] = [m for m in rendered(folder) if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    if kind == "Secret":
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}
    return dict(found["data"])


@pytest.mark.parametrize("folder", RENDERED)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_fits_the_schema_of_its_kind(folder: str, version: str) -> None:
    kinds = set()
    for manifest in rendered(folder):
        kinds.add(manifest["kind"])
        if manifest["kind"] not in FOREIGN:
            kubernetes_validate.validate(manifest, version, strict=True)
    assert {"StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap"} <= kinds


def test_what_is_not_in_the_schema_is_refused() -> None:
    service = dict(one("base", "Service")) | {"spec": {"portz": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", RENDERED)
def test_everything_selects_the_servers_pod(folder: str) -> None:
    labels = one(folder, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    chosen = {"app.kubernetes.io/name": "gvvad"}
    assert chosen.items() <= labels.items()
    assert one(folder, "StatefulSet")["spec"]["selector"]["matchLabels"] == chosen
    assert one(folder, "Service")["spec"]["selector"] == chosen
    assert one(folder, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == chosen
    policy = one(folder, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == chosen
    callers = policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert callers == {"gvvad.io/client": "true"}


@pytest.mark.parametrize("folder", RENDERED)
def test_probes_and_ports_are_those_of_the_server(folder: str) -> None:
    application_routes = application(Telemetry(), lambda: None).routes
    paths = {route.path for route in application_routes if isinstance(route, Route)}
    defaults = Settings()
    ports = {port["name"]: port["containerPort"] for port in container(folder)["ports"]}
    assert ports == {"grpc": defaults.grpc.port, "http": defaults.http.port}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container(folder)[probe]["httpGet"]
        assert asked["path"] in paths
        assert asked["port"] in ports
    # A server that is not ready must not be restarted for it.
    assert container(folder)["livenessProbe"]["httpGet"]["path"] == "/healthz"
    served = {p["name"]: p["targetPort"] for p in one(folder, "Service")["spec"]["ports"]}
    assert served == {"grpc": "grpc", "http": "http"}
    for rule in one(folder, "NetworkPolicy")["spec"]["ingress"]:
        assert {port["port"] for port in rule["ports"]} <= set(ports)


@pytest.mark.parametrize("folder", RENDERED)
def test_every_mount_has_its_volume_and_every_volume_what_it_names(folder: str) -> None:
    volumes = {volume["name"]: volume for volume in pod(folder)["volumes"]}
    claims = one(folder, "StatefulSet")["spec"]["volumeClaimTemplates"]
    names = set(volumes) | {claim["metadata"]["name"] for claim in claims}
    assert {mount["name"] for mount in container(folder)["volumeMounts"]} == names
    account = one(folder, "ServiceAccount")["metadata"]["name"]
    assert pod(folder)["serviceAccountName"] == account
    assert data(folder, "ConfigMap", volumes["settings"]["configMap"]["name"])
    secret = volumes["secrets"]["secret"]
    assert secret["defaultMode"] == 0o440
    if folder == "base":
        assert secret["optional"]
    else:
        assert set(data(folder, "Secret", secret["secretName"])) == {"store-url"}


@pytest.mark.parametrize("folder", RENDERED)
def test_the_server_takes_the_settings_that_are_mounted(folder: str, tmp_path: Path) -> None:
    command = container(folder)["args"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container(folder)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(folder)["volumes"]}
    files = data(folder, "ConfigMap", volumes["settings"]["configMap"]["name"])
    config = Path(command[command.index("--config") + 1])
    assert str(config.parent) == mounts["settings"]
    text = files[config.name]
    secrets = {}
    if "url_file" in text:
        secrets = data(folder, "Secret", volumes["secrets"]["secret"]["secretName"])
        for key, value in secrets.items():
            (tmp_path / key).write_text(value)
        assert f'"{mounts["secrets"]}/store-url"' in text
        text = text.replace(mounts["secrets"], str(tmp_path))
    (tmp_path / config.name).write_text(text)
    settings = load_settings(tmp_path / config.name, environ={})
    assert (settings.grpc.host, settings.http.host) == ("0.0.0.0", "0.0.0.0")
    assert settings.log.format == "json"
    assert (settings.store.url == secrets["store-url"].strip()) if secrets else True


@pytest.mark.parametrize("folder", RENDERED)
def test_the_pod_may_do_nothing_that_it_need_not(folder: str) -> None:
    whole, part = pod(folder)["securityContext"], container(folder)["securityContext"]
    assert whole["runAsNonRoot"]
    assert (whole["runAsUser"], whole["fsGroup"]) == (10001, 10001)
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert part["readOnlyRootFilesystem"]
    assert not part["allowPrivilegeEscalation"]
    assert part["capabilities"] == {"drop": ["ALL"]}
    assert not pod(folder)["automountServiceAccountToken"]
    assert one(folder, "StatefulSet")["spec"]["replicas"] == 1
    assert "memory" in container(folder)["resources"]["limits"]


def test_the_monitor_scrapes_the_services_port() -> None:
    monitor = one("overlays/example", "ServiceMonitor")["spec"]
    service = one("overlays/example", "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"
    assert not [m for m in rendered("base") if m["kind"] in FOREIGN]


def test_the_overlay_changes_what_it_says_it_does() -> None:
    assert container("overlays/example")["image"] == "registry.example.com/gvvad:0.1.0"
    assert container("overlays/example")["resources"]["limits"]["memory"] == "8Gi"
    spaces = {m["metadata"].get("namespace") for m in rendered("overlays/example")}
    assert spaces == {"gvvad", None}
    egress = one("overlays/example", "NetworkPolicy")["spec"]["egress"]
    assert [rule["ports"][0]["port"] for rule in egress] == [53, 554, 5432]
