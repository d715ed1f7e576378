"""The page's plots, from the results' figures: vector files, the same bytes for the same figures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report import median

_INK, _MUTED, _GRID = "#26282b", "#6b7075", "#e3e5e8"
_BLUE, _ORANGE, _GREY = "#2f76b5", "#d1660f", "#9aa5b1"
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "text.color": _INK,
    "legend.frameon": False,
    "svg.hashsalt": "resnet-serving",
}

Result = Mapping[str, Any]


def plot(result: Result) -> bytes | None:
    """An SVG of ``result``, as its program wrote it; None where there is nothing to draw."""
    draw = _DRAWN.get(result["program"])
    if draw is None or not result["data"]:
        return None
    with rc_context(_STYLE):
        figure = draw(result["data"])
        if figure is None:
            return None
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    return out.getvalue()


def _panels(count: int, height: float = 2.8) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.4 * count, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _end_to_end(data: Mapping[str, Any]) -> Figure | None:
    rounds = data.get("rounds")
    if rounds is None:
        return None
    figure, (rates, latencies) = _panels(2)
    clients = [int(count) for count in rounds["closed"]]
    runs = list(rounds["closed"].values())
    bound = max(median([run["per_second"] for run in found]) for found in rounds["bound"].values())
    rates.axhline(bound, color=_GREY, linestyle="--", label="bound: no HTTP")
    _line(rates, clients, [[run["per_second"] for run in found] for found in runs], _BLUE, "service")
    rates.set(title="Images a second", xlabel="clients", ylim=(0, None))
    for name, colour in (("p50", _BLUE), ("p99", _ORANGE)):
        _line(latencies, clients, [[run["latency_ms"][name] for run in found] for found in runs], colour, name)
    latencies.set(title="Latency, ms", xlabel="clients", ylim=(0, None))
    for axes in (rates, latencies):
        axes.set_xscale("log", base=2)
        axes.set_xticks(clients, [str(count) for count in clients])
        axes.legend()
    return figure


def _line(axes: Axes, x: Sequence[float], rounds: Sequence[Sequence[float]], colour: str, label: str) -> None:
    """Medians as a line, least to most as a band."""
    axes.plot(x, [median(values) for values in rounds], color=colour, marker="o", markersize=3, label=label)
    axes.fill_between(x, [min(v) for v in rounds], [max(v) for v in rounds], color=colour, alpha=0.15, linewidth=0)


def _bars(names: Sequence[str], values: Sequence[float], title: str, highlighted: int = 0) -> Figure:
    """Horizontal bars, the first ``highlighted`` of them ours."""
    figure, (axes,) = _panels(1, 0.8 + 0.28 * len(names))
    figure.set_figwidth(7)
    colours = [_BLUE if number < highlighted else _GREY for number in range(len(names))]
    bars = axes.barh(range(len(names)), values, color=colours)
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(title=title)
    axes.grid(visible=False, axis="y")
    return figure


def _stages(data: Mapping[str, Any]) -> Figure:
    stages = data["stages_ms"]
    return _bars(list(stages), [median(v) for v in stages.values()], "CPU time an image, ms", len(stages))


def _peers(data: Mapping[str, Any]) -> Figure | None:
    ran = {name: found for name, found in data["runs"].items() if found["busy"] and not found["reason"]}
    if not ran:
        return None
    names = [found["name"] for found in ran.values()]
    values = [median([run["per_second"] for run in found["busy"]]) for found in ran.values()]
    return _bars(names, values, "Images a second, 16 clients", sum(found["ours"] for found in ran.values()))


def _scaling(data: Mapping[str, Any]) -> Figure | None:
    parts = [name for name in ("cores", "batches", "sizes", "models") if name in data]
    if not parts:
        return None
    figure, panels = _panels(len(parts))
    for name, axes in zip(parts, panels, strict=True):
        if name == "sizes":
            rows = data["sizes"]
            _line(axes, [row[0] / 1e6 for row in rows], [row[1:] for row in rows], _BLUE, "")
            axes.set_xscale("log")
            axes.set_xlabel("megapixels of the JPEG")
        else:
            rates = data[name]["rates"] if name == "models" else data[name]
            _line(axes, [int(key) for key in rates], list(rates.values()), _BLUE, "")
            axes.set_xlabel({"cores": "cores", "batches": "batch size", "models": "models loaded"}[name])
        axes.set(title="Images a second", ylim=(0, None))
    return figure


_DRAWN: Final[dict[str, Callable[[Mapping[str, Any]], Figure | None]]] = {
    "end_to_end": _end_to_end,
    "stages": _stages,
    "peers": _peers,
    "scaling": _scaling,
}
