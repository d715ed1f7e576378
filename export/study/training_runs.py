"""The trainings behind the degradation, shortcut and gradient experiments.

All share one recipe, that of He et al. 2015 (https://arxiv.org/abs/1512.03385,
section 4.2: batches of 128, weight decay 1e-4, flips and 4-pixel shifts), with a
schedule short enough for two cores. A run is one checkpoint and one JSON file
beside it; a run that was interrupted goes on, one that is done is left alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

from rich.console import Console

from export.checkpoints.checkpoint import read_checkpoint
from export.checkpoints.fitting import load_network
from export.errors import ExportError
from export.networks.build import build, parameter_count
from export.networks.specs import get_spec
from export.train import Dataset, EpochRecord, History, Recipe, accuracy, load_dataset, train

EPOCHS = 10
IMAGES = 20_000
# Enough for a curve (a standard error of about one point); the last figure is taken on the whole test set.
CURVE_IMAGES = 2_000
VERY_DEEP_EPOCHS = 1
VERY_DEEP_IMAGES = 5_000

EXPERIMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "degradation": ("cifar_plain20", "cifar_plain56", "cifar_resnet20", "cifar_resnet56"),
        "shortcuts": ("cifar_resnet20", "cifar_resnet20_b", "cifar_resnet20_c", "cifar_preresnet20"),
        "gradients": ("cifar_plain110", "cifar_resnet110"),
    }
)
VERY_DEEP = EXPERIMENTS["gradients"]


class StudyError(ExportError):
    """An experiment cannot run; the message says why."""


@dataclass(frozen=True)
class Run:
    """One training: which network, how long, on how many images.

    images       -- of the training set, evenly spread over its classes.
    curve_images -- of the test set, measured after every epoch.
    """

    arch: str
    epochs: int = EPOCHS
    images: int = IMAGES
    curve_images: int = CURVE_IMAGES
    seed: int = 1

    @property
    def name(self) -> str:
        return f"{self.arch}-seed{self.seed}"

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            arch=self.arch,
            epochs=self.epochs,
            peak_learning_rate=0.1,
            label_smoothing=0.0,
            cutout_pixels=0,
            weight_decay=1e-4,
            seed=self.seed,
        )

    def checkpoint(self, out: Path) -> Path:
        return out / "runs" / f"{self.name}.pth"

    def result(self, out: Path) -> Path:
        return out / "runs" / f"{self.name}.json"


@dataclass(frozen=True)
class RunResult:
    """What a run has given so far; errors are shares of images.

    test_error -- of the whole test set after the last epoch; None until then.
    """

    run: Run
    parameters: int
    training_images: int
    history: tuple[EpochRecord, ...] = field(default=())
    test_images: int | None = None
    test_error: float | None = None

    @property
    def done(self) -> bool:
        return self.test_error is not None

    def save(self, path: Path) -> None:
        """Write whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".json.tmp")
        temporary.write_text(json.dumps(asdict(self), indent=1) + "\n")
        temporary.replace(path)


def read_result(path: Path) -> RunResult:
    """The result in ``path``; ``StudyError`` where it is none."""
    try:
        content = json.loads(path.read_text())
        history = tuple(EpochRecord(**record) for record in content.pop("history"))
        return RunResult(run=Run(**content.pop("run")), history=history, **content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StudyError(f"{path}: not a result of this command: {error}") from error


Results = Mapping[str, Sequence[RunResult]]


def gather(out: Path) -> Results:
    """The runs in ``out`` that are done, by architecture, in the order of their files."""
    found: dict[str, list[RunResult]] = defaultdict(list)
    for path in sorted((out / "runs").glob("*.json")):
        result = read_result(path)
        if result.done:
            found[result.run.arch].append(result)
    return found


def runs_of(experiment: str, epochs: int | None, images: int | None, seeds: tuple[int, ...]) -> list[Run]:
    """The runs of ``experiment``; the 110-layer nets, which only give gradients, are trained more briefly."""
    runs = []
    for arch in EXPERIMENTS[experiment]:
        brief = arch in VERY_DEEP
        for seed in seeds:
            length = epochs or (VERY_DEEP_EPOCHS if brief else EPOCHS)
            count = images or (VERY_DEEP_IMAGES if brief else IMAGES)
            runs.append(Run(arch, length, count, seed=seed))
    return runs


def perform(run: Run, data: Path, test: Path, out: Path, console: Console) -> RunResult:
    """Train ``run``, or go on with it, and measure it on the whole of ``test``; at once where that was done before."""
    path = run.result(out)
    if path.exists():
        before = read_result(path)
        if before.run != run:
            raise StudyError(f"{path} is of another length or other images; remove it or name another --output")
        if before.done:
            console.print(f"{run.name}: done before")
            return before
    spec = get_spec(run.arch)
    images = load_dataset(data, spec.image_size, console, run.images)
    curve = load_dataset(test, spec.image_size, console, run.curve_images)
    if curve.labels != images.labels:
        raise StudyError(f"{test}: its classes are not those of {data}")
    result = RunResult(run, parameter_count(build(spec, len(images.labels))), len(images.targets))

    def record(history: History) -> None:
        nonlocal result
        result = RunResult(run, result.parameters, result.training_images, history)
        result.save(path)

    console.print(f"{run.name}: {run.epochs} epochs of {result.training_images} images")
    train(run.recipe, images, run.checkpoint(out), console, curve, validate_every=1, on_epoch=record)
    result = _finish(result, load_dataset(test, spec.image_size, console), run.checkpoint(out))
    result.save(path)
    console.print(f"{run.name}: test error {100 * (result.test_error or 0):.2f} % of {result.test_images} images")
    return result


def _finish(result: RunResult, test: Dataset, checkpoint: Path) -> RunResult:
    net = load_network(read_checkpoint(checkpoint), result.run.arch)
    error = 1 - accuracy(net, test)
    return RunResult(result.run, result.parameters, result.training_images, result.history, len(test.targets), error)
