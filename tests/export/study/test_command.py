"""``python -m export study``: what it asks for, and one experiment from start to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.commands import study as command
from export.networks import specs
from export.networks.architecture import Spec
from export.study import gradient_flow, records, shattered
from export.study.identity import IdentityCheck
from export.study.training_runs import EXPERIMENTS, StudyError, gather
from tests.export.study.conftest import Pictures

NET = Spec("basic", (2, 1), "cifar", "A", stem_width=4, width=4, image_size=32)


def run(*arguments: str) -> str:
    found = CliRunner().invoke(command.study, arguments, catch_exceptions=False)
    assert found.exit_code == 0
    return found.stdout


@pytest.fixture
def images(pictures: Pictures) -> Path:
    return pictures(count=8, size=32)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network of the study is a small one."""
    nets = {arch: NET for archs in EXPERIMENTS.values() for arch in archs}
    nets |= {arch: replace(NET, shortcut="none") for arch in nets if "plain" in arch}
    nets["cifar_preresnet20"] = replace(NET, order="pre")
    monkeypatch.setattr(specs, "SPECS", {**specs.SPECS, **nets})
    monkeypatch.setattr(gradient_flow, "SEEDS", (1,))


@pytest.mark.usefixtures("small")
def test_one_run_of_an_experiment(images: Path, tmp_path: Path) -> None:
    arguments = (
        "--images",
        str(images),
        "--validate",
        str(images),
        "--output",
        str(tmp_path / "out"),
        "--training-images",
        "12",
    )
    assert run("degradation", *arguments, "--epochs", "1", "--only", "cifar_plain20") == ""
    assert list(gather(tmp_path / "out")) == ["cifar_plain20"]


@pytest.mark.usefixtures("small")
def test_everything_from_start_to_end(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shattered, "DEPTHS", (2,))
    quick = shattered.measure_all(seeds=2, depths=(2,))
    monkeypatch.setattr(shattered, "measure_all", lambda: quick)
    monkeypatch.setattr(shattered, "showcase", lambda: {"white noise": shattered.white_noise(4)})
    out = tmp_path / "out"
    arguments = (
        "--images",
        str(images),
        "--validate",
        str(images),
        "--output",
        str(out),
        "--training-images",
        "12",
        "--epochs",
        "1",
    )
    text = run("all", *arguments)
    assert [name for name in ("degradation", "shortcuts", "gradients", "shattered") if f"{name}\n" in text]
    assert "12 images" in text
    checks = json.loads((out / "identity.json").read_text())
    assert [check["trained"] for check in checks] == [True, True]
    assert all(check["identity_error"] < 1e-4 for check in checks)
    states = [one.state for one in records.read(gradient_flow.GradientCurve, out / "gradients.json")]
    assert states.count("trained") == len(gradient_flow.ARCHS)
    drawn = {path.stem for path in (out / "plots").iterdir()}
    assert drawn == {"degradation", "shortcuts", "gradients", "shattered", "autocorrelation"}


def test_report_fills_the_document(tmp_path: Path) -> None:
    records.save([IdentityCheck("net", "layer1.1", True, 4, 0.0, 0.0, 1.0, 0.0, 1.0)], tmp_path / "identity.json")
    document = tmp_path / "residual-learning.md"
    document.write_text("<!-- study:identity -->\n<!-- /study:identity -->\n")
    assert run("report", "--output", str(tmp_path), "--docs", str(tmp_path)) == f"{document}: identity\n"
    assert "net layer1.1, trained" in document.read_text()


def test_networks_that_are_not_trained_are_checked_as_initialised(images: Path, tmp_path: Path) -> None:
    from rich.console import Console

    from export.train import load_dataset

    batch = load_dataset(images, 32, Console(quiet=True), 2)
    found = command._checked("cifar_preresnet20", batch, {}, tmp_path)
    assert not found.trained
    assert found.identity_error < 1e-4


def test_images_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="name --images and --validate"):
        run("degradation", "--output", str(tmp_path))


def test_unknown_run(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="--only cifar_plain21: not one of its runs: cifar_plain20"):
        run(
            "degradation",
            "--images",
            "a.zip",
            "--validate",
            "b.zip",
            "--output",
            str(tmp_path),
            "--only",
            "cifar_plain21",
        )
