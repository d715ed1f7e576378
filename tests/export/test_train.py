"""The training loop on a handful of images: its augmentation, its schedule, its resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from export.checkpoints.checkpoint import read_checkpoint
from export.checkpoints.fitting import load_network
from export.commands.train import train as train_command
from export.networks.architecture import spec_fields
from export.train import (
    History,
    Recipe,
    TrainingError,
    accuracy,
    augment,
    learning_rate,
    load_dataset,
    run_training,
    train,
)
from tests.export.conftest import TINY

RECIPE = Recipe(epochs=2, batch_size=8)
Pictures = Callable[..., Path]


def test_learning_rate_is_a_triangle() -> None:
    recipe = Recipe(peak_learning_rate=0.2, warm_up_share=0.2)
    rates = [learning_rate(recipe, step, 100) for step in range(101)]
    assert rates[0] == 0.0
    assert max(rates) == rates[20] == pytest.approx(0.2)
    assert rates[10] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.1)
    assert rates[100] == 0.0


def test_augment_without_shift_or_cutout_only_flips() -> None:
    images = torch.randn(16, 3, 8, 8)
    out = augment(images, 0, 0, torch.Generator().manual_seed(0))
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(out, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(out, images, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert any(flipped)
    assert any(kept)


def test_augment_shifts_within_the_padding() -> None:
    image = torch.arange(64.0).view(1, 1, 8, 8).repeat(1, 3, 1, 1)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2), mode="reflect")[0]
    windows = [padded[:, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    for seed in range(8):
        out = augment(image, 2, 0, torch.Generator().manual_seed(seed))[0]
        assert any(torch.equal(out, w) or torch.equal(out, w.flip(2)) for w in windows)


def test_augment_erases_one_square() -> None:
    out = augment(torch.ones(32, 3, 16, 16), 0, 4, torch.Generator().manual_seed(0))
    erased = (out == 0).sum(dim=(1, 2, 3)) / 3
    assert erased.max() == 16
    assert erased.min() >= 4  # a quarter of the square stays inside even in the corner
    assert torch.equal(out[:, 0], out[:, 1])


def test_same_generator_same_images() -> None:
    images = torch.randn(4, 3, 8, 8)
    first, second = (augment(images, 2, 4, torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(first, second)


def test_dataset_classes_are_sorted_folders(pictures: Pictures, console: Console) -> None:
    data = load_dataset(pictures(("dog", "cat"), size=32), 32, console)
    assert data.labels == ("cat", "dog")
    assert data.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.images.shape == (6, 3, 32, 32)


@pytest.mark.parametrize(("classes", "size", "message"), [(("cat",), 16, "16x16"), (("",), 32, "no class folder")])
def test_dataset_that_does_not_fit(
    pictures: Pictures, console: Console, classes: tuple[str, ...], size: int, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        load_dataset(pictures(classes, size=size), 32, console)


@pytest.fixture
def folder(pictures: Pictures) -> Path:
    return pictures(("cat", "dog"), count=6, size=32)


def test_interrupted_training_goes_on_as_if_it_was_not(
    folder: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset(folder, 32, console)
    whole = train(RECIPE, data, tmp_path / "whole.pth", console)

    saved = []

    def stop_after_the_first(*arguments: object) -> None:
        if saved:
            raise KeyboardInterrupt
        saved.append(original(*arguments))  # type: ignore[arg-type]

    from export import train as module

    original = module._save
    with monkeypatch.context() as patch:
        patch.setattr(module, "_save", stop_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            train(RECIPE, data, tmp_path / "parts.pth", console)
    assert read_checkpoint(tmp_path / "parts.pth").training.epoch == 1  # type: ignore[union-attr]
    resumed = train(RECIPE, data, tmp_path / "parts.pth", console)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_history_is_kept_over_an_interruption(folder: Path, tmp_path: Path, console: Console) -> None:
    data = load_dataset(folder, 32, console)
    seen: list[list[int]] = []

    def stop_after_the_first(history: History) -> None:
        seen.append([record.epoch for record in history])
        if history and len(seen) == 2:
            raise KeyboardInterrupt

    out = tmp_path / "a.pth"
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, data, out, console, data, on_epoch=stop_after_the_first)
    train(RECIPE, data, out, console, data, on_epoch=stop_after_the_first)
    assert seen == [[], [1], [1], [1, 2]]


def test_history_says_what_the_epochs_gave(folder: Path, tmp_path: Path, console: Console) -> None:
    data = load_dataset(folder, 32, console)
    found: list[History] = []
    net = train(replace(RECIPE, epochs=3), data, tmp_path / "a.pth", console, data, 2, found.append)
    first, second, last = found[-1]
    assert first.validation_error is None
    assert second.validation_error is not None
    assert last.validation_error == pytest.approx(1 - accuracy(net, data))
    assert all(0 <= record.training_error <= 1 and record.loss > 0 for record in found[-1])


def test_checkpoint_without_a_history_is_resumed(folder: Path, tmp_path: Path, console: Console) -> None:
    """As written before there was one."""
    data = load_dataset(folder, 32, console)
    out = tmp_path / "a.pth"

    def stop(history: History) -> None:
        if history:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, data, out, console, on_epoch=stop)
    state = torch.load(out, weights_only=True)
    del state["history"]
    torch.save(state, out)
    found: list[History] = []
    train(RECIPE, data, out, console, on_epoch=found.append)
    assert [record.epoch for record in found[-1]] == [2]


def test_part_of_a_dataset_has_every_class(folder: Path, console: Console) -> None:
    data = load_dataset(folder, 32, console, count=4)
    assert data.targets.tolist() == [0, 0, 1, 1]


def test_checkpoint_is_read_back_by_the_exporter(folder: Path, tmp_path: Path, console: Console) -> None:
    out = tmp_path / "new" / "a.pth"
    run_training(replace(RECIPE, epochs=1), folder, out, console, validate=folder)
    checkpoint = read_checkpoint(out)
    assert checkpoint.training
    assert checkpoint.training.labels == ("cat", "dog")
    assert checkpoint.training.recipe["epochs"] == checkpoint.training.epoch == 1
    net = load_network(checkpoint, checkpoint.training.arch)
    assert 0.0 <= accuracy(net, load_dataset(folder, 32, console)) <= 1.0
    with pytest.raises(TrainingError, match="another recipe"):
        run_training(RECIPE, folder, out, console, validate=None)


def test_foreign_checkpoint_is_not_overwritten(folder: Path, tmp_path: Path, console: Console) -> None:
    out = tmp_path / "a.pth"
    torch.save({"fc.weight": torch.zeros(2, 3)}, out)
    before = out.read_bytes()
    with pytest.raises(TrainingError, match="not written by this command"):
        run_training(RECIPE, folder, out, console, validate=None)
    assert out.read_bytes() == before


def test_next_command_names_the_file_of_the_architecture(folder: Path, tmp_path: Path) -> None:
    """The checkpoint's word is not enough to open it."""
    spec, out = tmp_path / "mine.json", tmp_path / "a.pth"
    spec.write_text(json.dumps(spec_fields(replace(TINY, image_size=32))))
    words = ["--images", str(folder), "--arch", str(spec), "--epochs", "1", "--output", str(out)]
    result = CliRunner().invoke(train_command, words, catch_exceptions=False)
    assert result.stdout == f"{out} is trained; next: python -m export {out} --arch {spec} --name MODEL\n"


def test_one_class_is_nothing_to_learn(pictures: Pictures, tmp_path: Path, console: Console) -> None:
    with pytest.raises(TrainingError, match="one class only"):
        run_training(RECIPE, pictures(("cat",), size=32), tmp_path / "a.pth", console, validate=None)
