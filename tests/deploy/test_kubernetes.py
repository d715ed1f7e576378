"""The manifests as kustomize renders them: held against Kubernetes' own schemas, and against the service's settings."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service import __version__
from service.config import Settings
from service.metrics.definitions import DEFINITIONS
from service.process import workers
from service.process.workers import worker_count

pytestmark = pytest.mark.slow  # they need kubectl, which that lane installs

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("overlays/cpu", "overlays/gpu", "overlays/dev")
COMPONENTS = ("ingress", "podmonitor", "hpa", "keda")
KUBERNETES = "1.32"
# Of operators whose schemas are not among Kubernetes' own.
CUSTOM = {"PodMonitor", "ScaledObject", "ServingRuntime", "InferenceService"}
WORKER_BYTES = 512 * 2**20
"""What a worker takes with ResNet-50 int8 after overload: docs/performance.md."""
UNITS = {"Mi": 2**20, "Gi": 2**30}


def rendered(folder: Path) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed (Debian: apt-get install kubernetes-client)")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@functools.cache
def overlay(name: str) -> list[dict[str, Any]]:
    return rendered(FOLDER / name)


def one(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def pod(documents: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = one(documents, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = pod(documents)["containers"]
    return dict(found)


def settings(documents: list[dict[str, Any]]) -> Settings:
    return Settings.from_env(one(documents, "ConfigMap")["data"])


def with_components(tmp_path: Path, *names: str) -> list[dict[str, Any]]:
    base = Path(os.path.relpath(FOLDER, tmp_path))
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(base / "overlays" / "cpu")],
        "components": [str(base / "components" / name) for name in names],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
    return rendered(tmp_path)


def check(documents: list[dict[str, Any]]) -> None:
    for document in documents:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", [*OVERLAYS, "kserve"])
def test_manifests_are_what_kubernetes_takes(name: str) -> None:
    documents = overlay(name)
    check(documents)
    assert {document["kind"] for document in documents} & (CUSTOM | {"Deployment"})


def test_a_wrong_manifest_would_be_found() -> None:
    broken = yaml.safe_load(yaml.safe_dump(one(overlay("overlays/cpu"), "Deployment")))
    broken["spec"]["template"]["spec"]["containers"][0]["port"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        check([broken])


@pytest.mark.parametrize("names", [COMPONENTS[:3], COMPONENTS[:2] + COMPONENTS[3:]])
def test_components_go_with_an_overlay(names: tuple[str, ...], tmp_path: Path) -> None:
    documents = with_components(tmp_path, *names)
    check(documents)
    assert "replicas" not in one(documents, "Deployment")["spec"]
    kinds = {document["kind"] for document in documents}
    assert {"Ingress", "PodMonitor"} <= kinds
    assert kinds & {"HorizontalPodAutoscaler", "ScaledObject"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_ports_and_probes_are_the_services(name: str) -> None:
    found, configured = container(overlay(name)), settings(overlay(name))
    ports = {port["name"]: port["containerPort"] for port in found["ports"]}
    assert ports == {"http": 3000, "metrics": configured.server.metrics_port}
    for probe, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        assert found[probe]["httpGet"] == {"path": path, "port": "http"}
    assert one(overlay(name), "Service")["spec"]["ports"][0]["targetPort"] == "http"


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_grace_period_is_longer_than_the_drain(name: str) -> None:
    configured = settings(overlay(name))
    probe = container(overlay(name))["readinessProbe"]
    unready_s = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    drain_s = configured.server.drain_s
    assert drain_s >= unready_s or drain_s == 0  # 0: a cluster of one, where nobody takes over
    stop_s = configured.server.stop_s or drain_s + configured.limits.deadline_s + 10
    assert pod(overlay(name))["terminationGracePeriodSeconds"] >= stop_s + 5


@pytest.mark.parametrize("name", OVERLAYS)
def test_cores_and_memory_are_what_the_service_makes_of_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resources = container(overlay(name))["resources"]
    assert resources["requests"] == resources["limits"]
    cores = int(resources["limits"]["cpu"])  # whole ones: a slot each
    monkeypatch.setattr(workers, "available_cpus", lambda: cores)
    found = settings(overlay(name))
    count = worker_count(found.server.workers, on_gpu=found.inference.provider == "cuda")
    slots = max(1, cores // count)
    assert count * slots == cores
    amount, unit = re.fullmatch(r"(\d+)([MG]i)", resources["limits"]["memory"]).groups()  # type: ignore[union-attr]
    assert int(amount) * UNITS[unit] >= count * WORKER_BYTES


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_pod_may_do_nothing_that_it_need_not(name: str) -> None:
    spec, found = pod(overlay(name)), container(overlay(name))
    assert spec["automountServiceAccountToken"] is False
    assert one(overlay(name), "ServiceAccount")["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    user = re.search(r"^USER (\d+)", (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert user is not None
    assert spec["securityContext"]["runAsUser"] == int(user[1])
    assert found["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    policy = one(overlay(name), "NetworkPolicy")["spec"]
    assert policy["egress"] == []
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}


def _selectors(documents: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            yield spec["selector"]
        elif document["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
            yield spec["selector"]["matchLabels"]
        elif document["kind"] == "NetworkPolicy":
            yield spec["podSelector"]["matchLabels"]
    yield from (limit["labelSelector"]["matchLabels"] for limit in pod(documents)["topologySpreadConstraints"])


def test_what_selects_pods_finds_them(tmp_path: Path) -> None:
    documents = with_components(tmp_path, *COMPONENTS[:3])
    labels = one(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = list(_selectors(documents))
    assert len(selectors) == 7
    for selector in selectors:
        assert selector.items() <= labels.items()


def test_the_image_is_this_version() -> None:
    assert container(overlay("overlays/cpu"))["image"] == f"resnet-serving:{__version__}"
    assert container(overlay("overlays/gpu"))["image"] == f"resnet-serving-gpu:{__version__}"
    runtime = one(overlay("kserve"), "ServingRuntime")
    assert runtime["spec"]["containers"][0]["image"] == f"resnet-serving:{__version__}"


def test_autoscalers_ask_for_metrics_that_there_are(tmp_path: Path) -> None:
    known = {definition.name for definition in DEFINITIONS}
    values = yaml.safe_load((FOLDER / "components" / "hpa" / "adapter-values.yaml").read_text(encoding="utf-8"))
    offered = {rule["name"]["as"] for rule in values["rules"]["custom"]}
    hpa = one(with_components(tmp_path, "hpa"), "HorizontalPodAutoscaler")
    assert {metric["pods"]["metric"]["name"] for metric in hpa["spec"]["metrics"]} == offered
    keda = one(with_components(tmp_path, "keda"), "ScaledObject")
    queries = [rule["metricsQuery"] for rule in values["rules"]["custom"]]
    queries += [trigger["metadata"]["query"] for trigger in keda["spec"]["triggers"]]
    for query in queries:
        names = set(re.findall(r"\bresnet_\w+", query))
        assert names
        assert {name.removesuffix("_bucket") for name in names} <= known


def test_kserve_gives_the_service_its_store_and_port() -> None:
    (found,) = one(overlay("kserve"), "ServingRuntime")["spec"]["containers"]
    environment = {variable["name"]: variable["value"] for variable in found["env"]}
    assert Settings.from_env(
        {name: value for name, value in environment.items() if name.startswith("RESNET_")}
    ).store.model_store == Path("/mnt/models")
    assert int(environment["BENTOML_PORT"]) == found["ports"][0]["containerPort"]
