"""The tables and sentences of docs/residual-learning.md, made from what the experiments wrote.

The document holds a pair of comments for each, ``<!-- study:NAME -->`` and
``<!-- /study:NAME -->``; what stands between them is replaced.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from types import MappingProxyType

from export.reports.markdown import table
from export.study import plots, records
from export.study.gradient_flow import GradientCurve
from export.study.identity import IdentityCheck
from export.study.shattered import Shattering
from export.study.training_runs import Results, RunResult, StudyError, gather

DOCUMENT = "residual-learning.md"
IMAGES = Path("images/study")
SHORTCUTS: Mapping[str, str] = MappingProxyType(
    {
        "cifar_resnet20": "A: padding",
        "cifar_resnet20_b": "B: projection where shapes change",
        "cifar_resnet20_c": "C: projection everywhere",
        "cifar_preresnet20": "A, pre-activation",
    }
)
# Test errors after 64,000 iterations (He et al. 2015, table 6); the plain nets are in a figure only.
_PAPER: Mapping[str, str] = MappingProxyType(
    {"cifar_plain20": "figure 6", "cifar_plain56": "figure 6", "cifar_resnet20": "8.75 %", "cifar_resnet56": "6.97 %"}
)
# Top-1 errors of ResNet-34 on ImageNet (2015, table 3), of ResNet-110 on CIFAR-10 (2016, table 3).
_PAPER_SHORTCUTS: Mapping[str, str] = MappingProxyType(
    {
        "cifar_resnet20": "25.03 %",
        "cifar_resnet20_b": "24.52 %",
        "cifar_resnet20_c": "24.19 %",
        "cifar_preresnet20": "6.37 % against 6.61 % (ResNet-110, CIFAR-10)",
    }
)

# Shallow networks of the figure that would only lengthen its table.
_LEFT_OUT = ("2-layer", "4-layer")


def _figures(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with names in the first column and figures in the others."""
    return table(head, rows, right=range(1, len(head)))


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _over_seeds(shares: Sequence[float]) -> str:
    mean = _percent(fmean(shares))
    if len(shares) == 1:
        return mean
    return f"{mean} ({100 * min(shares):.2f} to {100 * max(shares):.2f})"


def _test(results: Sequence[RunResult]) -> list[float]:
    return [result.test_error for result in results if result.test_error is not None]


def _training(results: Sequence[RunResult]) -> list[float]:
    return [result.history[-1].training_error for result in results]


def _needed(results: Results, archs: Iterable[str]) -> Results:
    """``results`` of ``archs``; ``StudyError`` where one is missing or the budgets differ."""
    missing = [arch for arch in archs if arch not in results]
    if missing:
        raise StudyError(f"not trained yet: {', '.join(missing)}")
    chosen = {arch: results[arch] for arch in archs}
    budgets = {(one.run.epochs, one.run.images) for of_arch in chosen.values() for one in of_arch}
    if len(budgets) > 1:
        raise StudyError(f"runs of different lengths cannot be compared: {sorted(budgets)} epochs and images")
    return chosen


def _budget(results: Results) -> str:
    first = next(iter(results.values()))[0]
    seeds = {one.run.seed for of_arch in results.values() for one in of_arch}
    return (
        f"{first.run.epochs} epochs of {first.training_images:,} images, tested on {first.test_images:,}; "
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}."
    )


def _rows(results: Results, names: Mapping[str, str], paper: Mapping[str, str]) -> list[list[str]]:
    return [
        [
            names[arch],
            f"{of_arch[0].parameters:,}",
            _over_seeds(_training(of_arch)),
            _over_seeds(_test(of_arch)),
            paper[arch],
        ]
        for arch, of_arch in results.items()
    ]


def _step(results: Results, kind: str, name: str) -> str:
    """How the deeper net of ``kind`` does against the shallower, in words."""
    deep, shallow = results[f"cifar_{kind}56"], results[f"cifar_{kind}20"]
    words = []
    for measured, of in ((_training, "training"), (_test, "test")):
        points = 100 * (fmean(measured(deep)) - fmean(measured(shallow)))
        words.append(f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'} {of} error")
    return f"{name[0].upper()}{name[1:]}-56 has {words[0]} and {words[1]} than {name}-20."


def degradation(results: Results) -> str:
    """Plain against residual nets of 20 and 56 layers."""
    chosen = _needed(results, _PAPER)
    names = {
        arch: arch.removeprefix("cifar_").replace("resnet", "ResNet-").replace("plain", "plain-") for arch in chosen
    }
    head = ("net", "parameters", "training error, last epoch", "test error", "paper's test error")
    sentences = f"{_step(chosen, 'plain', 'plain')} {_step(chosen, 'resnet', 'ResNet')}"
    return f"{_budget(chosen)}\n\n{_figures(head, _rows(chosen, names, _PAPER))}\n\n{sentences}"


def shortcuts(results: Results) -> str:
    """The kinds of shortcut in the 20-layer net."""
    chosen = _needed(results, SHORTCUTS)
    head = ("shortcut", "parameters", "training error, last epoch", "test error", "papers' (ResNet-34, ImageNet)")
    return f"{_budget(chosen)}\n\n{_figures(head, _rows(chosen, SHORTCUTS, _PAPER_SHORTCUTS))}"


def gradients(curves: Sequence[GradientCurve]) -> str:
    """First block's gradient over the last block's, for every net and state."""
    states = ("initialisation", "initialisation without BN", "trained")
    found = {(curve.arch, curve.state): curve for curve in curves}
    rows = []
    for arch in dict.fromkeys(curve.arch for curve in curves):
        row = [arch.removeprefix("cifar_")]
        for state in states:
            curve = found.get((arch, state))  # type: ignore[arg-type]
            row.append(f"{curve.first_over_last:.3g}" if curve else "not measured")
        trained = found.get((arch, "trained"))
        rows.append([*row, trained.trained or "" if trained else ""])
    return _figures(("net", "initialised", "initialised, no BatchNorm", "trained", "trained for"), rows)


def identities(checks: Sequence[IdentityCheck]) -> str:
    """Jacobians of a block, of one plus its branch, and by central differences."""
    rows = [
        [
            f"{found.arch} {found.block}, {'trained' if found.trained else 'initialised'}",
            f"{found.entries} x {found.entries}",
            f"{found.identity_error:.1e}",
            f"{found.difference_error:.1e}",
            f"{found.diagonal:.3f}",
            f"{found.branch_diagonal:.3f}",
            f"{found.branch_norm:.2f}",
        ]
        for found in checks
    ]
    head = (
        "block",
        "Jacobian",
        "block - (1 + branch)",
        "autograd - differences",
        "mean diagonal",
        "branch's",
        "branch's norm",
    )
    return _figures(head, rows)


def shattering(found: Sequence[Shattering]) -> str:
    """Autocorrelations and spectra of the networks' gradients and of the noises."""
    rows = [
        [
            one.name,
            *(f"{one.autocorrelation[lag]:.2f}" for lag in (1, 5, 15)),
            f"{one.spectral_slope:.2f}",
            f"{one.rms:.2g}",
        ]
        for one in found
        if not one.name.startswith(_LEFT_OUT)
    ]
    return _figures(("df/dx of", "lag 1", "lag 5", "lag 15", "spectral slope", "size (rms)"), rows)


def figure(name: str, title: str) -> str:
    """The line that shows the figure ``name`` in the document."""
    return f"![{title}]({(IMAGES / name).as_posix()})"


def fill(document: str, name: str, content: str) -> str:
    """``document`` with ``content`` between the comments of ``name``; ``StudyError`` where they are not there once."""
    begin, end = f"<!-- study:{name} -->", f"<!-- /study:{name} -->"
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise StudyError(f"the document has no place for {name!r}: {begin} ... {end}")
    before, _, rest = document.partition(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def render(out: Path, docs: Path) -> list[str]:
    """Fill the document in ``docs`` from the results in ``out`` and draw its figures; the names of what was filled."""
    path = docs / DOCUMENT
    document = path.read_text()
    figures = out / "plots"
    sections = {**_trained(gather(out), figures), **_measured(out, figures)}
    if not sections:
        raise StudyError(f"{out}: no results there; run the experiments first")
    for name, content in sections.items():
        document = fill(document, name, content)
    path.write_text(document)
    (docs / IMAGES).mkdir(parents=True, exist_ok=True)
    for drawn in sorted(figures.glob("*.*g")):
        shutil.copyfile(drawn, docs / IMAGES / drawn.name)
    return list(sections)


def _trained(results: Results, figures: Path) -> dict[str, str]:
    """The sections of the trainings that are all done."""
    sections = {}
    first = {arch: of_arch[0] for arch, of_arch in results.items()}
    if all(arch in results for arch in _PAPER):
        plots.degradation(first, figures / "degradation.svg")
        shown = figure("degradation.svg", "Training and test error over epochs, plain nets beside residual nets")
        sections["degradation"] = f"{degradation(results)}\n\n{shown}"
    if all(arch in results for arch in SHORTCUTS):
        plots.shortcuts(first, SHORTCUTS, figures / "shortcuts.svg")
        shown = figure("shortcuts.svg", "Training and test error over epochs of four kinds of shortcut")
        sections["shortcuts"] = f"{shortcuts(results)}\n\n{shown}"
    return sections


def _measured(out: Path, figures: Path) -> dict[str, str]:
    """The sections of the other experiments whose results are in ``out``."""
    sections = {}
    if (out / "gradients.json").exists():
        curves = records.read(GradientCurve, out / "gradients.json")
        plots.gradient_flow(curves, figures / "gradients.svg")
        shown = figure("gradients.svg", "Gradient norm by block, relative to the last block")
        sections["gradients"] = f"{gradients(curves)}\n\n{shown}"
    if (out / "identity.json").exists():
        sections["identity"] = identities(records.read(IdentityCheck, out / "identity.json"))
    if (out / "shattered.json").exists():
        found = records.read(Shattering, out / "shattered.json")
        plots.autocorrelations(found, figures / "autocorrelation.svg")
        lines = figure(
            "autocorrelation.svg", "Autocorrelation of the gradients by depth, between white and brown noise"
        )
        maps = figure("shattered.png", "Gradients over the input, and their covariance")
        sections["shattered"] = f"{maps}\n\n{shattering(found)}\n\n{lines}"
    return sections
