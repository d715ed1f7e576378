"""The plots of the gate's report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes

from export.reports.pages import Plot, svg
from export.variants.gate import Comparison, Flags, Numbers

_CLASSES_SHOWN: Final = 20
_LABEL_LENGTH: Final = 24
_BUCKETS: Final = 10
_FP32, _VARIANT, _INK = "#9aa5b1", "#2f6f9f", "#333333"


def plots(comparison: Comparison, labels: Sequence[str]) -> list[Plot]:
    """All plots that ``comparison`` has figures for."""
    names = [_plain(label) for label in labels]
    found = [
        Plot(
            "Agreement by fp32's margin",
            "Share of images with fp32's top class, by how far fp32's best logit is above its second. "
            "Near-ties, at the left, flip both ways.",
            svg("agreement", lambda axes: _agreement(axes, comparison)),
        ),
        Plot(
            "Logit error",
            "Images by their largest absolute error of a logit.",
            svg("errors", lambda axes: _errors(axes, comparison)),
        ),
        _by_class(comparison, names),
    ]
    if comparison.changed.any():
        found.append(
            Plot(
                "Changed answers",
                "fp32's answer, at the left, and what it became, below; agreeing answers are left out.",
                svg("confusion", lambda axes: _confusion(axes, comparison, names), square=True),
            )
        )
    return found


def _plain(label: str) -> str:
    """``label`` on one line, short enough for an axis."""
    line = " ".join("".join(c if c.isprintable() else " " for c in label).split())
    return line if len(line) <= _LABEL_LENGTH else line[: _LABEL_LENGTH - 1] + "…"


def _agreement(axes: Axes, comparison: Comparison) -> None:
    """Tenths of the images, by margin."""
    order = np.argsort(comparison.margins, kind="stable")
    parts = [part for part in np.array_split(order, _BUCKETS) if len(part)]
    shares = [100 * float((~comparison.changed[part]).mean()) for part in parts]
    axes.bar(range(len(parts)), shares, color=_VARIANT)
    axes.set_xticks(range(len(parts)), [f"≤ {comparison.margins[part].max():.2g}" for part in parts])
    axes.set_ylim(math.floor(max(0, min(shares) - 5)), 100)
    axes.set_xlabel("margin of fp32's top class (logits), a tenth of the images each")
    axes.set_ylabel("same answer, %")


def _errors(axes: Axes, comparison: Comparison) -> None:
    finite = comparison.errors[np.isfinite(comparison.errors)]
    axes.hist(finite, bins=40, color=_VARIANT)
    axes.set_xlabel("largest absolute error of a logit")
    axes.set_ylabel("images")


def _by_class(comparison: Comparison, names: Sequence[str]) -> Plot:
    if comparison.targets is None:
        text = "Share of images with fp32's answer, by that answer."
        shares = _shares(~comparison.changed, comparison.expected, len(names))
        drawn = svg("classes", lambda axes: _bars(axes, names, {"same answer": shares}))
        return Plot("Agreement by class", text, drawn)
    right = {
        "fp32": _shares(np.asarray(comparison.expected == comparison.targets), comparison.targets, len(names)),
        "variant": _shares(np.asarray(comparison.found == comparison.targets), comparison.targets, len(names)),
    }
    drawn = svg("classes", lambda axes: _bars(axes, names, right))
    return Plot("Accuracy by class", "Share of right answers, by label.", drawn)


def _shares(flags: Flags, classes: Numbers, count: int) -> list[float]:
    """Percentage of ``flags`` in each class; NaN for one without images."""
    return [100 * float(flags[classes == i].mean()) if (classes == i).any() else math.nan for i in range(count)]


def _bars(axes: Axes, names: Sequence[str], series: dict[str, list[float]]) -> None:
    """Bars a class; of many classes, those where the series differ most, or the lowest."""
    rows = [i for i in range(len(names)) if not math.isnan(next(iter(series.values()))[i])]
    first, last = next(iter(series.values())), list(series.values())[-1]
    worst = sorted(rows, key=lambda i: last[i] - first[i] if len(series) > 1 else last[i])
    shown = sorted(worst[:_CLASSES_SHOWN])
    width = 0.8 / len(series)
    for k, (label, values) in enumerate(series.items()):
        places = [place + (k - (len(series) - 1) / 2) * width for place in range(len(shown))]
        colour = _VARIANT if k == len(series) - 1 else _FP32
        axes.bar(places, [values[i] for i in shown], width, label=label, color=colour)
    axes.set_xticks(range(len(shown)), [names[i] for i in shown], rotation=45, ha="right")
    axes.set_ylim(max(0, min((min(v[i] for v in series.values()) for i in shown), default=0) - 5), 100)
    axes.set_ylabel("%")
    if len(rows) > len(shown):
        axes.set_xlabel(f"the worst {len(shown)} of {len(rows)} classes")
    axes.legend(frameon=False, ncols=len(series), loc="lower left", bbox_to_anchor=(0, 1))


def _confusion(axes: Axes, comparison: Comparison, names: Sequence[str]) -> None:
    """Counts of changed answers; of many classes, those that change most."""
    pairs = list(zip(comparison.expected[comparison.changed], comparison.found[comparison.changed], strict=True))
    often = Counter(int(end) for pair in pairs for end in pair)
    shown = sorted(i for i, _ in often.most_common(_CLASSES_SHOWN))
    place = {label: i for i, label in enumerate(shown)}
    counts = np.zeros((len(shown), len(shown)), np.int64)
    for before, after in pairs:
        if int(before) in place and int(after) in place:
            counts[place[int(before)], place[int(after)]] += 1
    # Vectors, not imshow's bitmap: the page's policy lets no image in.
    axes.pcolormesh(counts, cmap="Blues", vmin=0, vmax=max(1, counts.max()))
    axes.invert_yaxis()
    axes.set_aspect("equal")
    for row, column in np.argwhere(counts):
        colour = "white" if counts[row, column] > counts.max() / 2 else _INK
        axes.text(column + 0.5, row + 0.5, str(counts[row, column]), ha="center", va="center", color=colour)
    middles = [i + 0.5 for i in range(len(shown))]
    axes.set_xticks(middles, [names[i] for i in shown], rotation=45, ha="right")
    axes.set_yticks(middles, [names[i] for i in shown])
    axes.set_xlabel("the variant's answer")
    axes.set_ylabel("fp32's answer")
