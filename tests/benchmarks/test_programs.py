"""The programs as they are called: their help, their options, and short runs of the real thing."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.images import load_images, made_images, rgb_only
from benchmarks.page import fill
from benchmarks.scaling import copies
from benchmarks.subject import add_model_options, settings_of
from benchmarks.suite import commands
from model_store.store import ModelStore
from tests.benchmarks.test_peers import APPS

ROOT = Path(__file__).parents[2]
PROGRAMS = (
    "load",
    "end_to_end",
    "bound",
    "bulk",
    "stages",
    "scaling",
    "metrics_cost",
    "mlperf",
    "replicas",
    "page",
    "suite",
    "peers",
)
PAGE = ROOT / "docs" / "performance.md"


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def options(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    return parser.parse_args(given)


def test_options_become_settings(tmp_path: Path) -> None:
    given = options("--store", str(tmp_path), "--model", "m@2", "--precision", "int8", "--set", "RESNET_SLOTS=1")
    assert settings_of(given) == {
        "RESNET_MODEL_STORE": str(tmp_path),
        "RESNET_MODELS": "m@2",
        "RESNET_PRECISION": "int8",
        "RESNET_SLOTS": "1",
    }
    assert settings_of(options()) == {}
    with pytest.raises(SystemExit, match="RESNET_NAME=VALUE"):
        settings_of(options("--set", "RESNET_SLOTS"))


def test_made_images_are_the_same_every_time() -> None:
    made = made_images(64, 48, 3)
    assert made.bodies == made_images(64, 48, 3).bodies
    assert len(set(made.bodies)) == 3
    assert rgb_only(made).bodies == made.bodies


def test_images_come_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(made_images(8, 8, 1).bodies[0])
    assert load_images(tmp_path).bodies == made_images(8, 8, 1).bodies


def test_copies_of_a_model_are_models(tmp_path: Path) -> None:
    settings = copies({"RESNET_SLOTS": "1"}, 2, tmp_path)
    assert settings == {
        "RESNET_SLOTS": "1",
        "RESNET_MODEL_STORE": str(tmp_path),
        "RESNET_MODELS": "copy0,copy1",
    }
    for name in ModelStore(tmp_path).names():
        ModelStore(tmp_path).resolve(name).verify()


def test_the_set_measures_another_model_where_one_is_named(tmp_path: Path) -> None:
    base = argparse.Namespace(store=None, model=None, precision=None, provider=None, images=None, smoke=False)
    assert list(commands(base)) == ["embedded", "stages-embedded"]
    base.store, base.model, base.precision = tmp_path, "mine", "int8"
    found = commands(base)
    assert list(found) == ["embedded", "stages-embedded", "mine", "stages-mine"]
    assert found["mine"][-6:] == ["--store", str(tmp_path), "--model", "mine", "--precision", "int8"]


def test_the_page_names_programs_that_are_there() -> None:
    named = set(re.findall(r"python -m benchmarks\.(\w+)", PAGE.read_text()))
    assert named
    assert named <= set(PROGRAMS)
    assert (APPS.parent / "__main__.py").exists()


def test_the_page_has_the_figures_of_the_results_and_no_others(tmp_path: Path) -> None:
    copy = tmp_path / PAGE.name
    copy.write_text(PAGE.read_text())
    fill(copy, ROOT / "benchmarks" / "results")
    assert copy.read_text() == PAGE.read_text()
    for plot in tmp_path.rglob("*.svg"):
        assert (PAGE.parent / plot.relative_to(tmp_path)).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_help(program: str) -> None:
    assert f"python -m benchmarks.{program}" in run(f"benchmarks.{program}", "--help")


@pytest.mark.slow
def test_make_bench_in_short(tmp_path: Path) -> None:
    """All of the set on the embedded model with made images, as in a clone without photos."""
    for number, body in enumerate(made_images(200, 150, 4).bodies):
        (tmp_path / f"{number}.jpg").write_bytes(body)
    out = tmp_path / "out"
    printed = run("benchmarks.suite", "--smoke", "--out", str(out), "--images", str(tmp_path))
    assert printed.count("SMOKE RUN") == 2
    result = json.loads((out / "embedded.json").read_text())
    assert result["smoke"] is True
    assert len(result["targets"]) == 11
    closed = result["data"]["rounds"]["closed"]
    assert all(load["statuses"].keys() == {"200"} for loads in closed.values() for load in loads)
    assert all(ms[0] > 0 for ms in json.loads((out / "stages-embedded.json").read_text())["data"]["stages_ms"].values())
    page = (out / "index.md").read_text()
    assert "A smoke run" in page
    assert (out / "embedded.svg").exists()


@pytest.mark.slow
def test_bulk_in_short(tmp_path: Path) -> None:
    printed = run("benchmarks.bulk", "--smoke", "--json", str(tmp_path / "bulk.json"))
    assert "SMOKE RUN" in printed
    (target,) = json.loads((tmp_path / "bulk.json").read_text())["targets"]
    assert target["measured"] > 0


@pytest.mark.slow
def test_replicas_in_short(tmp_path: Path) -> None:
    printed = run("benchmarks.replicas", "--smoke", "--json", str(tmp_path / "replicas.json"))
    assert "The service beside its prediction" in printed
    data = json.loads((tmp_path / "replicas.json").read_text())["data"]
    assert [one["workers"] for one in data["check"]] == [1, 1, 2, 2]


@pytest.mark.slow
def test_metrics_cost_in_short(tmp_path: Path) -> None:
    """Nothing of the figures but that there are some: what a request counts is found by asking for one."""
    run("benchmarks.metrics_cost", "--smoke", "--json", str(tmp_path / "cost.json"))
    result = json.loads((tmp_path / "cost.json").read_text())
    found = {name: times[0] for name, times in result["data"]["microseconds"].items()}
    assert all(microseconds > 0 for microseconds in found.values())
    (request,) = [name for name in found if name.startswith("a request")]
    assert int(request.split()[2]) >= 10
    (target,) = result["targets"]
    assert target["limit"] == 30


@pytest.mark.slow
def test_scaling_in_short(tmp_path: Path) -> None:
    run("benchmarks.scaling", "--smoke", "--parts", "batches,models", "--json", str(tmp_path / "scaling.json"))
    data = json.loads((tmp_path / "scaling.json").read_text())["data"]
    assert set(data) == {"batches", "models"}
    assert all(rates[0] > 0 for rates in [*data["batches"].values(), *data["models"]["rates"].values()])
