"""The figures of docs/residual-learning.md: vector files, the covariances as pixels. No screen is needed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from export.study.gradient_flow import GradientCurve, State
from export.study.shattered import DEPTHS, FAMILIES, RANGE, ScalarNet, Shattering, covariance
from export.study.training_runs import RunResult

_INK, _MUTED, _GRID = "#26282b", "#6b7075", "#e3e5e8"
# Light to dark with depth; told apart without colour by their order and the labels.
_DEPTH_COLOURS: Final[Mapping[int, str]] = {20: "#7fb3e0", 56: "#2f76b5", 110: "#0b3460"}
_SHADES: Final = ("#a9cdea", "#6ea8d8", "#3c82bf", "#1d5990", "#0b3460")
_COLOURS: Final = ("#2f76b5", "#d1660f", "#2c8a57", "#8a4fa3")
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "text.color": _INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    # The same figures give the same bytes.
    "svg.hashsalt": "study",
}


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".svg":
        figure.savefig(path, metadata={"Date": None})
        return
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    with Image.open(drawn) as image:
        # A palette: a third of the bytes, and no difference to the eye.
        image.convert("RGB").quantize(128).save(path, optimize=True)


def _figure(
    columns: int, rows: int = 1, height: float = 3.0, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(3.4 * columns if columns > 1 else 5.2, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False)
    return figure, list(grid.flat)


def _errors(axes: Axes, result: RunResult, colour: str, label: str) -> None:
    """The paper's figure 6: training error dashed, test error bold, in per cent."""
    epochs = [record.epoch for record in result.history]
    training = [100 * record.training_error for record in result.history]
    test = [100 * (record.validation_error or 0) for record in result.history]
    axes.plot(epochs, training, "--", color=colour, linewidth=1.2)
    axes.plot(epochs, test, "-", color=colour, linewidth=2.2, label=label)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def degradation(results: Mapping[str, RunResult], path: Path) -> None:
    """Errors over epochs, plain nets beside residual ones; ``results`` by architecture."""
    with rc_context(_STYLE):
        figure, panels = _figure(2, sharey=True)
        for axes, kind in zip(panels, ("plain", "resnet"), strict=True):
            for depth in (20, 56):
                result = results.get(f"cifar_{kind}{depth}")
                if result and result.history:
                    _errors(axes, result, _DEPTH_COLOURS[depth], f"{'ResNet' if kind == 'resnet' else kind}-{depth}")
            axes.set_title("plain nets" if kind == "plain" else "residual nets")
            axes.legend()
        panels[0].set_ylabel("error, %  (dashed: training, bold: test)")
        _save(figure, path)


def shortcuts(results: Mapping[str, RunResult], labels: Mapping[str, str], path: Path) -> None:
    """Errors over epochs of the kinds of shortcut; ``labels`` by architecture."""
    with rc_context(_STYLE):
        figure, (axes,) = _figure(1)
        for (arch, label), colour in zip(labels.items(), _COLOURS, strict=True):
            if arch in results and results[arch].history:
                _errors(axes, results[arch], colour, label)
        axes.set_ylabel("error, %  (dashed: training, bold: test)")
        axes.legend()
        _save(figure, path)


_STATE_TITLES: Final[Mapping[State, str]] = {
    "initialisation": "initialised",
    "initialisation without BN": "initialised, no BatchNorm",
    "trained": "after training",
}


def gradient_flow(curves: Sequence[GradientCurve], path: Path) -> None:
    """Norms of d loss / d x by block, divided by that of the last block: a row a state, plain beside residual."""
    states = [state for state in _STATE_TITLES if any(curve.state == state for curve in curves)]
    with rc_context(_STYLE):
        figure, panels = _figure(2, len(states), 2.5, sharex=True)
        for row, state in enumerate(states):
            left, right = panels[2 * row : 2 * row + 2]
            left.sharey(right)
            for axes, kind in ((left, "plain"), (right, "resnet")):
                for curve in (c for c in curves if c.state == state and c.arch.startswith(f"cifar_{kind}")):
                    _along(axes, curve)
                axes.set_yscale("log")
                axes.minorticks_off()
                axes.set_title(f"{'plain' if kind == 'plain' else 'residual'}, {_STATE_TITLES[state]}")
            left.set_ylabel("gradient norm / last block's")
        for axes in panels[-2:]:
            axes.set_xlabel("block, input (0) to output (1)")
        panels[0].legend(title="layers")
        _save(figure, path)


def _along(axes: Axes, curve: GradientCurve) -> None:
    depth = int(curve.arch.removeprefix("cifar_plain").removeprefix("cifar_resnet"))
    last = len(curve.maps) - 1
    places = [i / last for i in range(len(curve.maps))]
    relative = [norm / curve.maps[-1] for norm in curve.maps]
    axes.plot(places, relative, color=_DEPTH_COLOURS[depth], linewidth=1.8, label=str(depth))


def autocorrelations(found: Sequence[Shattering], path: Path) -> None:
    """A panel a family, a line a depth, between white and brown noise."""
    by_name = {one.name: one for one in found}
    with rc_context(_STYLE):
        figure, panels = _figure(2, 2, 2.7, sharex=True, sharey=True)
        for axes, (kind, beta) in zip(panels, FAMILIES, strict=True):
            for depth, colour in zip(DEPTHS, _SHADES, strict=True):
                line = by_name.get(str(ScalarNet(kind, depth, beta)))
                if line:
                    axes.plot(line.autocorrelation, color=colour, linewidth=1.8, label=f"{depth} layers")
            for noise in ("white noise", "brown noise"):
                axes.plot(by_name[noise].autocorrelation, ":", color=_INK, linewidth=1.2)
            axes.set_title(f"residual, beta {beta:g}" if kind == "residual" else kind)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for noise in ("white noise", "brown noise"):
            heights = by_name[noise].autocorrelation
            panels[3].annotate(noise, (len(heights) / 2, heights[len(heights) // 2] + 0.03), fontsize=8)
        panels[1].legend(fontsize=8, loc="center right")
        for axes in panels[2:]:
            axes.set_xlabel("lag, of 256 inputs")
        for axes in panels[::2]:
            axes.set_ylabel("autocorrelation of df/dx")
        _save(figure, path)


def covariances(gradients: Mapping[str, Tensor], path: Path) -> None:
    """The paper's first figure: df/dx of one network of each kind, and the covariance over many below it."""
    with rc_context({**_STYLE, "axes.grid": False, "font.size": 8, "axes.titlesize": 8}):
        figure = Figure(figsize=(2.1 * len(gradients), 3.6), layout="constrained")
        panels = figure.subplots(2, len(gradients), squeeze=False, gridspec_kw={"height_ratios": (1, 1.5)})
        for (name, rows), above, below in zip(gradients.items(), panels[0], panels[1], strict=True):
            points = rows.shape[1]
            inputs = [RANGE * (2 * i / (points - 1) - 1) for i in range(points)]
            above.plot(inputs, rows[0].tolist(), color=_COLOURS[0], linewidth=0.8)
            above.set_title(name)
            above.set_yticks([])
            edges = (-RANGE, RANGE, RANGE, -RANGE)
            image = below.imshow(covariance(rows).numpy(), cmap="RdBu_r", vmin=-1.5, vmax=1.5, extent=edges)
            below.set_xlabel("input")
        panels[0][0].set_ylabel("df/dx")
        figure.colorbar(image, ax=list(panels[1]), shrink=0.9, label="covariance")
        _save(figure, path)
