"""``python -m export study``: the experiments of docs/residual-learning.md."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from export.checkpoints.checkpoint import read_checkpoint
from export.checkpoints.fitting import load_network
from export.networks.build import build
from export.networks.specs import get_spec
from export.study import gradient_flow, identity, plots, records, report, shattered
from export.study.training_runs import EXPERIMENTS, Results, Run, StudyError, gather, perform, runs_of
from export.train import Dataset, load_dataset, normalise

_CHOICES = ("degradation", "shortcuts", "gradients", "shattered", "report", "all")
_CHECKED = ("cifar_preresnet20", "cifar_resnet20")
_CHECKED_BLOCK = "layer1.1"
_SIZE = 32  # height and width of CIFAR images, pixels
_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("what", type=click.Choice(_CHOICES))
@click.option("--images", type=_PATH, metavar="DIR_OR_ZIP", help="CIFAR-10's training images, a folder a class.")
@click.option("--validate", type=_PATH, metavar="DIR_OR_ZIP", help="CIFAR-10's test images.")
@click.option(
    "--output", "-o", type=_PATH, default=Path("build/study"), show_default=True, metavar="DIR", help="Results."
)
@click.option("--epochs", type=click.IntRange(min=1), help="10; 1 for the 110-layer nets.")
@click.option("--training-images", type=click.IntRange(min=10), help="20,000; 5,000 for the 110-layer nets.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(1,), help="May be repeated.  [default: 1]")
@click.option("--only", multiple=True, metavar="ARCH", help="Train this one and measure nothing; may be repeated.")
@click.option("--docs", type=_PATH, default=Path("docs"), show_default=True, metavar="DIR", help="For `report`.")
def study(
    what: str,
    images: Path | None,
    validate: Path | None,
    output: Path,
    epochs: int | None,
    training_images: int | None,
    seeds: tuple[int, ...],
    only: tuple[str, ...],
    docs: Path,
) -> None:
    """Measure why residual networks train.

    \b
    degradation  plain-20 and -56 against ResNet-20 and -56, trained alike
    shortcuts    options A, B, C and pre-activation, trained alike
    gradients    gradient norms by block at 20, 56 and 110 layers; the identity
    shattered    noise in the gradients of scalar networks (needs no images)
    all          the four, one after the other
    report       write what was measured into docs/residual-learning.md

    Trainings that were interrupted go on with the same command; those that are
    done are not repeated. Several processes, each with its own --only, may share
    --output.

    \b
    Examples:
      python -m export study all --images cifar10-train.zip --validate cifar10-test.zip
      python -m export study report
    """
    console = Console(stderr=True)
    if what == "report":
        click.echo(f"{docs / report.DOCUMENT}: {', '.join(report.render(output, docs))}")
        return
    chosen = [name for name in _CHOICES[:4] if what in (name, "all")]
    if chosen != ["shattered"] and (images is None or validate is None):
        raise StudyError(f"{what} needs images: name --images and --validate")
    runs = [run for name in chosen if name in EXPERIMENTS for run in runs_of(name, epochs, training_images, seeds)]
    _check_names(only, runs)
    for run in dict.fromkeys(runs):
        if images and validate and (not only or run.arch in only):
            perform(run, images, validate, output, console)
    if only:
        return
    for name in chosen:
        batch = load_dataset(images, _SIZE, console, gradient_flow.BATCH) if name == "gradients" and images else None
        click.echo(f"{name}\n\n{_measure(name, batch, output)}\n")


def _check_names(only: tuple[str, ...], runs: list[Run]) -> None:
    known = list(dict.fromkeys(run.arch for run in runs))
    for arch in only:
        if arch not in known:
            raise StudyError(f"--only {arch}: not one of its runs: {', '.join(known) or 'none'}")


def _measure(name: str, batch: Dataset | None, out: Path) -> str:
    """What ``name`` found, as a table; its results and plots go into ``out``."""
    figures = out / "plots"
    results = gather(out)
    first = {arch: of_arch[0] for arch, of_arch in results.items()}
    if name == "degradation":
        plots.degradation(first, figures / "degradation.svg")
        return report.degradation(results)
    if name == "shortcuts":
        plots.shortcuts(first, report.SHORTCUTS, figures / "shortcuts.svg")
        return report.shortcuts(results)
    return _shattered(out, figures) if batch is None else _gradients(batch, results, out, figures)


def _shattered(out: Path, figures: Path) -> str:
    found = shattered.measure_all()
    records.save(found, out / "shattered.json")
    plots.covariances(shattered.showcase(), figures / "shattered.png")
    plots.autocorrelations(found, figures / "autocorrelation.svg")
    return report.shattering(found)


def _gradients(batch: Dataset, results: Results, out: Path, figures: Path) -> str:
    curves = gradient_flow.measure(batch, out, results)
    records.save(curves, out / "gradients.json")
    plots.gradient_flow(curves, figures / "gradients.svg")
    checks = [_checked(arch, batch, results, out) for arch in _CHECKED]
    records.save(checks, out / "identity.json")
    return f"{report.gradients(curves)}\n\n{report.identities(checks)}"


def _checked(arch: str, batch: Dataset, results: Results, out: Path) -> identity.IdentityCheck:
    """On the trained network where there is one, else on a new one."""
    trained = arch in results
    if trained:
        net = load_network(read_checkpoint(results[arch][0].run.checkpoint(out)), arch)
    else:
        net = build(get_spec(arch), len(batch.labels), seed=1)
    return identity.check(arch, net, _CHECKED_BLOCK, normalise(batch.images), trained)
