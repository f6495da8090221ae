"""The manifests against Kubernetes' schemas, the Procfile and the settings."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from common.discovery.models import HEARTBEAT_SECONDS
from tests.deploy.processes import COMMANDS, ROOT
from tests.settings_classes import SETTINGS, VARIABLES, WORKERS

FOLDER = ROOT / "deploy/kubernetes"
OVERLAYS = ("local", "production")
# unhealthyPodEvictionPolicy and matchLabelKeys are on by default since 1.27.
OLDEST = "1.27"
VERSIONS = (OLDEST, kubernetes_validate.latest_version())
FILES = [path for path in sorted((FOLDER / "base").glob("*.yaml")) if path.stem != "kustomization"]
# Which processes call a service: the gateway, and those that make a ServiceClient or RevocationWatcher.
CALLERS = {
    "users": {"gateway", "timelines", "timelines-worker", "likes", "polls", "likes-notification-worker"},
    "timelines": {"gateway", "likes-validation-worker"},
    "likes": {"gateway"},
    "polls": {"gateway", "timelines"},
}
SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "KEY")

overlays = pytest.mark.parametrize("overlay", OVERLAYS)
processes = pytest.mark.parametrize("name", COMMANDS)


@cache
def _rendered(overlay: str) -> list[dict[str, Any]]:
    """What the cluster gets."""
    if shutil.which("kustomize"):
        command = ["kustomize", "build"]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    else:
        pytest.skip("there is neither kustomize nor kubectl")
    done = subprocess.run([*command, FOLDER / "overlays" / overlay], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def _objects(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    return {
        each["metadata"]["name"]: each.get("spec", each)
        for each in _rendered(overlay)
        if each["kind"] == kind
    }


def _deployed(overlay: str) -> dict[str, dict[str, Any]]:
    return _objects(overlay, "Deployment") | _objects(overlay, "StatefulSet")


def _template(overlay: str, name: str) -> dict[str, Any]:
    return _deployed(overlay)[name.replace("_", "-")]["template"]


def _pod(overlay: str, name: str) -> dict[str, Any]:
    return _template(overlay, name)["spec"]


def _pods(overlay: str) -> list[dict[str, Any]]:
    return [each["template"]["spec"] for each in _deployed(overlay).values()]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_a_manifest_is_what_the_schemas_allow(file: Path, version: str) -> None:
    for each in yaml.safe_load_all(file.read_text()):
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@overlays
def test_an_overlay_is_what_the_schemas_allow(overlay: str, version: str) -> None:
    for each in _rendered(overlay):
        kubernetes_validate.validate(each, version, strict=True)


def test_a_misspelled_field_is_not_what_the_schemas_allow() -> None:
    deployment = next(yaml.safe_load_all((FOLDER / "base/users.yaml").read_text()))
    deployment["spec"]["replcas"] = 2

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, OLDEST, strict=True)


@processes
@overlays
def test_every_process_of_the_procfile_is_deployed(overlay: str, name: str) -> None:
    (container,) = _pod(overlay, name)["containers"]

    assert container["command"] == COMMANDS[name]


@overlays
def test_every_variable_is_a_setting(overlay: str) -> None:
    settings = [each["data"] for name, each in _objects(overlay, "ConfigMap").items() if "settings" in name]
    containers = [_pod(overlay, name)["containers"][0] for name in COMMANDS]

    assert {name for each in settings for name in each} <= VARIABLES
    assert {variable["name"] for each in containers for variable in each["env"]} <= VARIABLES


@processes
@overlays
def test_a_process_listens_on_the_port_of_its_settings_and_is_probed_there(overlay: str, name: str) -> None:
    (container,) = _pod(overlay, name)["containers"]
    probes = {
        probe: (container[probe]["httpGet"]["path"], container[probe]["httpGet"]["port"])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert container["ports"] == [
        {"name": "http", "containerPort": (SETTINGS | WORKERS)[name].model_fields["port"].default}
    ]
    assert probes == {
        "startupProbe": ("/livez", "http"),
        "livenessProbe": ("/livez", "http"),
        "readinessProbe": ("/health", "http"),
    }


@processes
@overlays
def test_a_pod_has_the_time_that_its_end_takes(overlay: str, name: str) -> None:
    expected = 15 if name == "gateway" else 30 if name.endswith("worker") else 10

    assert _pod(overlay, name)["terminationGracePeriodSeconds"] == expected


@overlays
def test_the_gateway_serves_on_until_it_is_known_to_end(overlay: str) -> None:
    (container,) = _pod(overlay, "gateway")["containers"]

    assert container["lifecycle"]["preStop"] == {"exec": {"command": ["sleep", "4"]}}


@overlays
def test_pods_are_what_pod_security_calls_restricted(overlay: str) -> None:
    for pod in _pods(overlay):
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}


@overlays
def test_no_pod_has_a_token_or_the_addresses_of_services(overlay: str) -> None:
    for pod in _pods(overlay):
        assert not pod["automountServiceAccountToken"]
        assert not pod["enableServiceLinks"]
        assert pod["serviceAccountName"] in _objects(overlay, "ServiceAccount")


@pytest.mark.parametrize(("overlay", "count"), [("local", 1), ("production", 2)])
def test_every_registry_has_a_name_of_its_own_in_the_settings(overlay: str, count: int) -> None:
    [settings] = [each["data"] for name, each in _objects(overlay, "ConfigMap").items() if "settings" in name]
    registries = _objects(overlay, "StatefulSet")["registry"]
    service = _objects(overlay, "Service")[registries["serviceName"]]
    names = ["registry"] if count == 1 else [f"registry-{number}.registry" for number in range(count)]

    assert registries["replicas"] == count
    assert service["clusterIP"] == "None", "two behind one address share the heartbeats"
    assert settings["REGISTRY_URL"] == ",".join(f"http://{name}:8006" for name in names)


@overlays
def test_a_registry_is_whole_before_a_rollout_ends_the_next(overlay: str) -> None:
    assert _objects(overlay, "StatefulSet")["registry"]["minReadySeconds"] > HEARTBEAT_SECONDS
    assert _objects(overlay, "PodDisruptionBudget")["registry"]["maxUnavailable"] == 1


@overlays
def test_what_scales_by_itself_says_nowhere_how_many_there_are(overlay: str) -> None:
    for name in _objects(overlay, "HorizontalPodAutoscaler"):
        assert "replicas" not in _objects(overlay, "Deployment")[name]
        assert _objects(overlay, "PodDisruptionBudget")[name]["maxUnavailable"] == 1


@overlays
def test_every_pod_asks_for_what_it_needs_and_has_a_bound(overlay: str) -> None:
    for pod in _pods(overlay):
        resources = pod["containers"][0]["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}
        assert "memory" in resources["limits"]


@overlays
def test_what_listens_is_reached_by_those_that_a_policy_names(overlay: str) -> None:
    policies = _objects(overlay, "NetworkPolicy")
    listening = {
        name
        for name, each in _deployed(overlay).items()
        if "ports" in each["template"]["spec"]["containers"][0]
    }

    uncalled = {name.replace("_", "-") for name in WORKERS}

    assert policies["default"]["podSelector"] == {}
    assert policies["default"]["policyTypes"] == ["Ingress", "Egress"]
    assert listening - uncalled == {name.removeprefix("to-") for name in policies if name.startswith("to-")}


@pytest.mark.parametrize("name", CALLERS)
@overlays
def test_a_service_is_reached_by_its_callers(overlay: str, name: str) -> None:
    [rule] = _objects(overlay, "NetworkPolicy")[f"to-{name}"]["ingress"]
    [[names]] = [peer["podSelector"]["matchExpressions"] for peer in rule["from"]]

    assert set(names["values"]) == CALLERS[name]


@processes
@overlays
def test_prometheus_and_the_gateway_may_read_what_a_process_measures(overlay: str, name: str) -> None:
    policy = _objects(overlay, "NetworkPolicy")["prometheus"]
    pods = _template(overlay, name)
    (container,) = pods["spec"]["containers"]

    assert policy["podSelector"] == {
        "matchExpressions": [{"key": "app.kubernetes.io/component", "operator": "Exists"}]
    }
    assert "app.kubernetes.io/component" in pods["metadata"]["labels"]
    assert policy["ingress"][0]["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}}},
    ]
    assert policy["ingress"][0]["ports"] == [{"port": container["ports"][0]["name"]}]
    assert {"secretRef": {"name": "tokens"}} in container["envFrom"], "it has no STATUS_TOKEN"


@overlays
def test_a_process_may_send_traces_where_the_commented_setting_sends_them(overlay: str) -> None:
    settings = (ROOT / "deploy/kubernetes/base/kustomization.yaml").read_text()
    [(namespace, port)] = re.findall(r"# - OTEL_EXPORTER_OTLP_ENDPOINT=http://\w+\.(\w+):(\d+)", settings)
    policies = _objects(overlay, "NetworkPolicy")

    assert policies["collector"]["podSelector"] == policies["prometheus"]["podSelector"]
    assert policies["collector"]["egress"] == [
        {
            "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}],
            "ports": [{"port": int(port)}],
        }
    ]


@overlays
def test_every_image_has_a_version(overlay: str) -> None:
    tags = [pod["containers"][0]["image"].rpartition(":")[2] for pod in _pods(overlay)]

    assert all("/" not in tag and tag != "latest" for tag in tags)


@overlays
def test_secrets_are_named_and_not_written(overlay: str) -> None:
    settings = [each["data"] for each in _objects(overlay, "ConfigMap").values()]
    secrets = [each["data"] for each in _objects(overlay, "Secret").values()]
    written = {name for each in settings + secrets for name in each}

    assert not [name for name in written if any(word in name for word in SECRET_WORDS)]
