"""A real Prometheus scrapes a really loaded service: rules, alerts, and every expression of the dashboard."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from model_store.store import ModelStore
from service.metrics.definitions import DEFINITIONS
from tests.end_to_end.conftest import Server, free_port, picture, running, until
from tests.end_to_end.test_drift import with_reference

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "docker" / "prometheus"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "resnet-serving.json"


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus)")
    return found


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def alert(name: str) -> str:
    """Its expression."""
    groups = yaml.safe_load((CONFIG / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    (found,) = [rule["expr"] for group in groups for rule in group["rules"] if rule["alert"] == name]
    return str(found)


def test_the_dashboard_is_made_by_its_program() -> None:
    program = ROOT / "docker" / "grafana" / "dashboard.py"
    made = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True, timeout=60).stdout
    assert made == DASHBOARD.read_text(encoding="utf-8")


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    known = {definition.name for definition in DEFINITIONS}
    recorded = {
        rule["record"]
        for group in yaml.safe_load((CONFIG / "rules.yml").read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    }
    for expression in expressions():
        names = set(_names(expression))
        assert names, expression
        assert all(name in recorded or name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") in known
                   for name in names), expression  # fmt: skip


def _names(expression: str) -> Iterator[str]:
    word = ""
    for letter in f"{expression} ":
        if letter.isalnum() or letter in "_:":
            word += letter
            continue
        if word.startswith(("resnet_", "resnet:")):
            yield word
        word = ""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("check", "rules", "rules.yml", "alerts.yml"), ("test", "rules", "tests.yml")])
def test_the_rules(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([tool("promtool"), *arguments], cwd=CONFIG, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_explained_and_tested() -> None:
    alerts = [
        rule["alert"]
        for group in yaml.safe_load((CONFIG / "alerts.yml").read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]
    tests = (CONFIG / "tests.yml").read_text(encoding="utf-8")
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert not [name for name in alerts if f"| {name} |" not in operations]
    # The slow twins differ in their windows alone.
    assert not [name for name in alerts if name not in tests and not name.endswith("Slow")]


class Prometheus:
    """A running one, which scrapes ``target`` every second."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def get(self, path: str) -> Any:
        return self._client.get(path).json()

    def ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def prometheus(server: Server, tmp_path: Path) -> Iterator[Prometheus]:
    with scraping(server.url, tmp_path) as found:
        yield found


@contextmanager
def scraping(url: str, tmp_path: Path) -> Iterator[Prometheus]:
    """With the committed rules; only the target and the intervals are the test's."""
    config = yaml.safe_load((CONFIG / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [url.removeprefix("http://")]}]
    for name in config["rule_files"]:
        shutil.copy(CONFIG / name, tmp_path)
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port()
    log = (tmp_path / "log").open("w", encoding="utf-8")
    process = subprocess.Popen(
        [
            tool("prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            found = Prometheus(client)
            until(found.ready, "Prometheus is ready")
            yield found
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()


def load(url: str) -> None:
    """Good images, and one of every kind of trouble that a client can make."""
    with httpx.Client(base_url=url, timeout=60) as client:
        for seed in range(8):
            assert client.post("/v1/classify", content=picture(seed)).status_code == 200
        assert client.post("/v1/classify", content=b"no image").status_code == 415
        assert client.post("/v1/classify", content=picture(0)[:100]).status_code == 422
        assert client.post("/v1/classify?model=none", content=picture(0)).status_code == 404
    # No client library announces more than it sends.
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\n")
        assert b" 413 " in connection.recv(100)


@pytest.mark.slow
def test_the_page_is_as_prometheus_wants_it(server: Server) -> None:
    load(server.url)
    page = httpx.get(f"{server.url}/metrics").text
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=page, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def server_with_canary(tmp_path: Path) -> Iterator[Server]:
    """The service with a copy of the embedded model that says what images to expect; its canary is the model itself."""
    store = ModelStore(tmp_path / "store")
    name = with_reference(store.root, tmp_path / "images")
    store.set_alias(name, "canary", store.versions(name)[0])
    settings = {"MODEL_STORE": str(store.root), "DRIFT_MIN_IMAGES": "8", "CANARY_MODE": "shadow", "CANARY_SHARE": "1"}
    with running(**{f"RESNET_{name}": value for name, value in settings.items()}) as started:
        yield started


@pytest.mark.slow
def test_a_loaded_service_answers_every_expression_of_the_dashboard(server_with_canary: Server, tmp_path: Path) -> None:
    with scraping(server_with_canary.url, tmp_path) as prometheus:
        _all_expressions_are_answered(server_with_canary, prometheus)


def _all_expressions_are_answered(server: Server, prometheus: Prometheus) -> None:
    first = until(lambda: prometheus.query("resnet_workers_ready"), "the first scrape")
    assert first[0]["value"][1] == "1"

    def all_answered() -> bool:
        load(server.url)
        # No GPU is here to be asked (tests/service/metrics/test_gpu.py has a driver of its own).
        asked = [expression for expression in expressions() if "resnet_gpu" not in expression]
        return all(prometheus.query(expression.replace("$__rate_interval", "30s")) for expression in asked)

    until(all_answered, "every expression has data")
    counted = prometheus.query('resnet_requests_total{route="/v1/classify",code="200"}')
    assert float(counted[0]["value"][1]) >= 8
    reasons = {one["metric"]["reason"] for one in prometheus.query("resnet_decode_failures_total")}
    assert reasons == {"not_an_image", "bad_image"}


@pytest.mark.slow
def test_prometheus_takes_the_rules_and_finds_nothing_wrong(server: Server, prometheus: Prometheus) -> None:
    until(lambda: prometheus.query("resnet_workers_ready"), "the first scrape")
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for seed in range(8):
            assert client.post("/v1/classify", content=picture(seed)).status_code == 200

    def evaluated() -> list[dict[str, Any]] | None:
        rules = [rule for group in prometheus.get("/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] == "ok" for rule in rules) else None

    rules = until(evaluated, "every rule was evaluated")
    assert sum(rule["type"] == "alerting" for rule in rules) >= 10
    assert not [rule["name"] for rule in rules if rule.get("state") == "firing"]


@pytest.mark.slow
def test_prometheus_sees_that_a_worker_was_replaced(tmp_path: Path) -> None:
    """Through the metrics' own port, where either worker answers."""
    metrics = free_port()
    expression = alert("ResnetWorkersRestart").replace("[30m]", "[10m]").partition(" > ")[0]
    with (
        running(workers=2, RESNET_METRICS_PORT=str(metrics)) as server,
        scraping(f"http://127.0.0.1:{metrics}", tmp_path) as prometheus,
    ):

        def restarts() -> float:
            found = prometheus.query(expression)
            return float(found[0]["value"][1]) if found else -1.0

        until(lambda: restarts() == 0, "two scrapes")
        os.kill(server.workers()[0].pid, signal.SIGKILL)
        server.wait_for_line("ready after")
        # Two where the youngest was killed, and a scrape saw the older one alone.
        assert until(lambda: restarts() > 0 and restarts(), "the restart") in (1.0, 2.0)
        assert not prometheus.query(alert("ResnetWorkersRestart"))


@pytest.mark.slow
def test_a_killed_worker_leaves_counts_but_no_gauge() -> None:
    """Across two workers and a restart of one of them."""
    with running(workers=2) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        for seed in range(6):
            assert client.post("/v1/classify", content=picture(seed)).status_code == 200

        def value(name: str) -> float:
            lines = client.get("/metrics").text.splitlines()
            return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

        until(lambda: value('resnet_requests_total{code="200"') >= 6, "both workers' counts")
        assert value("resnet_workers_ready") == 2
        os.kill(server.workers()[0].pid, signal.SIGKILL)
        server.wait_for_line("ready after")
        until(lambda: value("resnet_workers_ready") == 2, "the replacement is ready")
        assert value('resnet_requests_total{code="200"') >= 6
