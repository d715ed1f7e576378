"""Runs: their files, their resuming, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from export.study import training_runs
from export.study.training_runs import Run, StudyError, gather, perform, read_result, runs_of
from export.train import Recipe
from tests.export.study.conftest import Pictures, tiny_run


@pytest.fixture
def folder(pictures: Pictures) -> Path:
    return pictures(count=8, size=16)


def test_recipe_is_the_papers() -> None:
    recipe = Run("cifar_plain20").recipe
    assert (recipe.batch_size, recipe.weight_decay, recipe.momentum, recipe.shift_pixels) == (128, 1e-4, 0.9, 4)
    assert (recipe.label_smoothing, recipe.cutout_pixels, recipe.peak_learning_rate) == (0.0, 0, 0.1)
    assert Recipe().label_smoothing == 0.1  # the default recipe is another


def test_very_deep_nets_are_trained_briefly() -> None:
    assert [(run.epochs, run.images) for run in runs_of("degradation", None, None, (1,))] == [(10, 20_000)] * 4
    assert [(run.epochs, run.images) for run in runs_of("gradients", None, None, (1,))] == [(1, 5_000)] * 2
    assert runs_of("shortcuts", 3, 100, (1, 2))[:2] == [
        Run("cifar_resnet20", 3, 100, seed=1),
        Run("cifar_resnet20", 3, 100, seed=2),
    ]


@pytest.mark.usefixtures("tiny_is_known")
def test_run_writes_its_history(folder: Path, tmp_path: Path, console: Console) -> None:
    result = perform(tiny_run(), folder, folder, tmp_path, console)
    assert result.done
    assert (result.training_images, result.test_images) == (8, 16)
    assert [record.epoch for record in result.history] == [1, 2]
    assert all(record.validation_error is not None for record in result.history)
    assert read_result(tmp_path / "runs" / "tiny-seed1.json") == result
    assert gather(tmp_path) == {"tiny": [result]}


@pytest.mark.usefixtures("tiny_is_known")
def test_run_that_is_done_is_left_alone(
    folder: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = perform(tiny_run(), folder, folder, tmp_path, console)
    monkeypatch.setattr(training_runs, "train", None)
    assert perform(tiny_run(), folder, folder, tmp_path, console) == first


@pytest.mark.usefixtures("tiny_is_known")
def test_interrupted_run_goes_on(
    folder: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = perform(tiny_run(), folder, folder, tmp_path / "whole", console)
    save = training_runs.RunResult.save

    def interrupted(self: training_runs.RunResult, path: Path) -> None:
        save(self, path)
        if self.history:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_runs.RunResult, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            perform(tiny_run(), folder, folder, tmp_path / "parts", console)
    assert not gather(tmp_path / "parts")
    resumed = perform(tiny_run(), folder, folder, tmp_path / "parts", console)
    assert [record.epoch for record in resumed.history] == [1, 2]
    assert [record.loss for record in resumed.history] == pytest.approx([r.loss for r in whole.history], rel=1e-4)
    assert resumed.test_error == whole.test_error


@pytest.mark.usefixtures("tiny_is_known")
def test_other_length_is_not_mixed_in(folder: Path, tmp_path: Path, console: Console) -> None:
    perform(tiny_run(epochs=1), folder, folder, tmp_path, console)
    for other in (tiny_run(epochs=2), tiny_run(epochs=1, images=6)):
        with pytest.raises(StudyError, match="another length or other images"):
            perform(other, folder, folder, tmp_path, console)


@pytest.mark.usefixtures("tiny_is_known")
def test_test_images_of_other_classes(folder: Path, tmp_path: Path, console: Console) -> None:
    other = tmp_path / "other"
    (folder / "cat").rename(tmp_path / "cat")
    other.mkdir()
    (tmp_path / "cat").rename(other / "cat")
    with pytest.raises(StudyError, match="classes are not those"):
        perform(tiny_run(), folder, other, tmp_path / "out", console)


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"run": {}, "history": []})])
def test_foreign_results_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(StudyError, match=r"a\.json"):
        read_result(path)
