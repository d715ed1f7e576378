"""docker/compose.yaml: valid, whole, and of one mind with the files that it mounts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.container.conftest import COMPOSE
from tests.container.engine import ROOT

SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]


def mounts(name: str) -> dict[str, str]:
    """Where a container sees the files of this checkout."""
    pairs = (volume.split(":") for volume in SERVICES[name]["volumes"])
    return {pair[1]: pair[0] for pair in pairs if pair[0].startswith(".")}


def test_it_keeps_to_the_specification() -> None:
    """As docker-compose reads it, which holds it against the Compose specification's JSON schema."""
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed (Debian: apt-get install docker-compose)")
    done = subprocess.run(
        ["docker-compose", "--file", COMPOSE, "config"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(SERVICES)


def test_what_is_mounted_is_there_and_read_only() -> None:
    for name in ("prometheus", "grafana"):
        assert mounts(name)
        for volume in SERVICES[name]["volumes"]:
            source, _, rights = volume.partition(":")
            if source.startswith("."):
                assert (COMPOSE.parent / source).is_dir(), source
                assert rights.endswith(":ro"), volume
    build = SERVICES["service"]["build"]
    assert (COMPOSE.parent / build["context"] / build["dockerfile"]).is_file()


def test_images_are_pinned_and_named_without_a_registry() -> None:
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])
    assert SERVICES["service"]["image"] == "resnet-serving"


def test_prometheus_finds_its_rules_and_the_service() -> None:
    (folder,) = (
        COMPOSE.parent / source for place, source in mounts("prometheus").items() if place == "/etc/prometheus"
    )
    config = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    assert config["rule_files"]
    assert all((folder / rules).is_file() for rules in config["rule_files"])
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert port in [published.rpartition(":")[2] for published in SERVICES[name]["ports"]]
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert f"EXPOSE {port}\n" in dockerfile
    assert f"BENTOML_PORT={port} " in dockerfile
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "config", folder / "prometheus.yml"], check=True, capture_output=True)


def test_grafana_finds_its_prometheus_and_its_dashboard() -> None:
    seen = mounts("grafana")
    provisioning = COMPOSE.parent / seen["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert port in [published.rpartition(":")[2] for published in SERVICES[host]["ports"]]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "resnet-serving.yml").read_text())["providers"]
    folder = provider["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(f"{folder}/")
    assert json.loads((COMPOSE.parent / seen[folder] / home.removeprefix(f"{folder}/")).read_text())["panels"]


def test_nobody_logs_in_to_grafana_and_it_calls_nobody() -> None:
    wanted = {
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        "GF_AUTH_BASIC_ENABLED": "false",  # the form is but one way in
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED": "true",
    }
    assert wanted.items() <= SERVICES["grafana"]["environment"].items()


def test_a_service_without_an_image_yet_has_no_age_on_the_dashboard(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    panels = json.loads((COMPOSE.parent / "grafana" / "dashboards" / "resnet-serving.json").read_text())["panels"]
    (age,) = (panel["targets"][0]["expr"] for panel in panels if panel["title"] == "Since the last image")
    series = {"series": "resnet_last_success_timestamp_seconds", "values": "0x4 240x4"}
    asked = [
        {"expr": age, "eval_time": "2m", "exp_samples": []},
        {"expr": age, "eval_time": "6m", "exp_samples": [{"labels": "{}", "value": 120}]},
    ]
    test = tmp_path / "test.yml"
    test.write_text(
        yaml.safe_dump({"tests": [{"interval": "1m", "input_series": [series], "promql_expr_test": asked}]})
    )
    done = subprocess.run(["promtool", "test", "rules", test], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_waits_for_a_healthy_service() -> None:
    assert SERVICES["prometheus"]["depends_on"]["service"]["condition"] == "service_healthy"
    assert "\nHEALTHCHECK " in (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")


def test_ports_for_operators_are_this_machines_alone() -> None:
    published = [port for service in SERVICES.values() for port in service["ports"]]
    assert len({port.rsplit(":", 2)[-2] for port in published}) == len(published)
    assert all(port.startswith("127.0.0.1:") for name in ("prometheus", "grafana") for port in SERVICES[name]["ports"])
