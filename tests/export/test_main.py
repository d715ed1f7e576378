"""The command line as one types it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from export import __main__ as program
from export.images.image_sets import SEEDED_IMAGES
from export.networks import specs
from export.networks.build import build
from model_store.store import ModelStore
from tests.export.mistakes import the_mistake

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("tiny_is_known")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program.cli, [str(argument) for argument in arguments])


def test_export_tells_what_was_done_and_what_is_next(weights: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    result = run(weights, "--arch", "tiny", "--name", "tiny", "--store", store, "--trained-on", "Toys")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["model", "tiny", "version", "1", "(tiny)"]
    assert any(line.startswith("parity") and "passed" in line for line in lines)
    assert f"RESNET_MODEL_STORE={store} make serve" in result.stdout
    assert "/v1/classify?model=tiny'" in result.stdout
    assert "note: labels: numbers" in result.stderr
    assert "Data: Toys." in (store / "tiny" / "1" / "README.md").read_text()


@pytest.mark.usefixtures("exported_once")
def test_options_may_come_first(weights: Path, tmp_path: Path) -> None:
    result = run("--name", "tiny", "--arch", "tiny", "--store", tmp_path / "store", weights, "--version", "3", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["version"] == "3"
    assert ModelStore(tmp_path / "store").versions("tiny") == ["3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arch", "resnet51", "--name", "a"), "unknown architecture"),
        (("--arch", "resnet50", "--name", "a"), "does not fit resnet50"),
        (("--arch", "tiny", "--name", "A"), "is no model name"),
        (("--arch", "tiny", "--name", "a", "--version", "0"), "is no version"),
        (("--arch", "tiny"), "--name"),
        (("--arch", "tiny", "--name", "a", "--colour", "red"), "--colour"),
        (("--arch", "tiny", "--name", "a", "--size", "4"), "--size"),
        (("--arch", "tiny", "--name", "a", "--mean", "1"), "--mean"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    weights: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run(weights, "--store", tmp_path / "store", *arguments)
    line = the_mistake(result)
    assert message in line
    assert not (tmp_path / "store").exists()


def test_store_that_is_a_file(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    result = run(weights, "--arch", "tiny", "--name", "a", "--store", tmp_path / "store")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_interruption(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("export.commands.model.convert", interrupted)
    result = run(weights, "--arch", "tiny", "--name", "a", "--store", tmp_path / "store")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


@pytest.mark.parametrize("word", ["quantise", "promte"])
def test_a_command_with_a_mistake_is_no_checkpoint(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"there is no command and no file {word!r}; did you mean" in the_mistake(run(word, "mine"))
    (tmp_path / word).write_text("no weights")
    assert "did you mean" not in the_mistake(run(word, "--name", "mine"))


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_shows_both_commands_and_examples(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    assert "Usage: python -m export CHECKPOINT --arch NAME --name MODEL" in result.stdout
    assert "python -m export train --images" in result.stdout
    assert "--images" in result.stdout


def test_train_then_export(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    folder = pictures(("cat", "dog"), count=4, size=16)
    out = tmp_path / "out.pth"
    result = run("train", "--images", folder, "--arch", "tiny", "--epochs", 1, "--output", out, "--validate", folder)
    assert result.exit_code == 0, result.output
    assert f"python -m export {out} --name MODEL" in result.stdout
    again = run("train", "--images", folder, "--arch", "tiny", "--epochs", 1, "-o", tmp_path / "more.pth", "--json")
    assert json.loads(again.stdout) == {"checkpoint": str(tmp_path / "more.pth"), "architecture": "tiny"}
    result = run(out, "--name", "pets", "--store", tmp_path / "store", "--images", folder)
    assert result.exit_code == 0, result.output
    assert ModelStore(tmp_path / "store").resolve("pets").labels() == ("cat", "dog")
    assert "accuracy" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", "absent.zip"), "neither a folder nor a zip"),
        (("--images", "absent.zip", "--arch", "resnet51"), "unknown architecture"),
        (("--images", "absent.zip", "--epochs", "0"), "--epochs"),
        ((), "--images"),
    ],
)
def test_train_mistakes(arguments: tuple[str, ...], message: str) -> None:
    result = run("train", *arguments)
    line = the_mistake(result)
    assert message in line


def test_as_a_program(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(build(specs.get_spec("cifar_resnet20"), 10, seed=0).state_dict(), weights)

    def export(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "export", str(weights), "--store", str(tmp_path / "store")]
        return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    done = export("--arch", "cifar_resnet20", "--name", "net")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "note: origin: pytorch",
        "note: input: 32x32, the centre, shorter side 32, bilinear, mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225; "
        "from what is usual for the network",
        "note: labels: the names of CIFAR-10",
        "exporting cifar_resnet20 with 10 classes",
        f"comparing with PyTorch: {SEEDED_IMAGES} images, seeded (seed 0)",
    ]
    assert ModelStore(tmp_path / "store").resolve("net").labels()[0] == "airplane"
    again = export("--arch", "cifar_resnet20", "--name", "net", "--version", "1")
    assert again.returncode == 2
    assert again.stderr.startswith("error: net version 1 is in ")
