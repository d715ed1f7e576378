"""Which layers suffer most from another arithmetic.

One layer at a time is converted, all others stay fp32, and the noise this puts
into the logits is measured: so each layer's harm is seen by itself. A few dozen
images tell the worst from the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from rich.console import Console

from export.graphs.feature_nodes import Layer
from export.images.image_sets import Pixels
from export.reports.progress import shown
from export.variants.gate import Floats, Logits, cpu_logits, logits_of
from export.variants.quantize import Calibrated

# Makes the variant's graph, with the named nodes kept in fp32.
Maker = Callable[[frozenset[str]], onnx.ModelProto]


@dataclass(frozen=True)
class LayerHarm:
    """What converting ``layer`` alone does.

    noise   -- mean squared error of the logits over their variance; infinite where they are not finite.
    changed -- share of the images that get another top class.
    """

    layer: Layer
    noise: float
    changed: float


def layer_harms(
    calibrated: Calibrated, make: Maker, baseline: Logits, images: Sequence[Pixels], console: Console
) -> list[LayerHarm]:
    """The harm of each layer of ``calibrated`` on ``images``, the worst first; ``make`` converts it."""
    expected = logits_of(images, baseline)
    everything = frozenset(calibrated.nodes)
    harms = []
    for layer in shown(calibrated.layers, "looking for the worst layers", len(calibrated.layers), console):
        alone = make(everything - frozenset(layer.nodes))
        found = logits_of(images, cpu_logits(alone.SerializeToString()))
        harms.append(LayerHarm(layer, noise(expected, found), _changed(expected, found)))
    return sorted(harms, key=lambda harm: harm.noise, reverse=True)


def noise(expected: Floats, found: Floats) -> float:
    """Mean squared error of the logits ``found``, as a share of the variance of ``expected``."""
    if not np.isfinite(found).all():
        return float("inf")
    variance = float(np.var(expected, dtype=np.float64))
    return float(np.mean(np.square(found.astype(np.float64) - expected)) / max(variance, np.finfo(np.float64).tiny))


def _changed(expected: Floats, found: Floats) -> float:
    return float((expected.argmax(axis=1) != found.argmax(axis=1)).mean())
