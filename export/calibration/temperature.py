"""How sure may a model say that it is? Temperature scaling, and the error that it takes away: pure functions of logits.

Probabilities are softmax(logits / temperature), with the one temperature that
makes labelled images most likely (Guo et al., "On Calibration of Modern Neural
Networks", 2017, https://arxiv.org/abs/1706.04599). The order of the logits, and
with it every answer, stays what it was. Logits are ``[n, classes]``, targets
class numbers ``[n]``; all sums are in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from export.errors import ExportError

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

BINS: Final = 15  # the paper's
LOWEST, HIGHEST = 0.01, 100.0
_STEPS: Final = 100
_PRECISION: Final = 1e-10


class CalibrationError(ExportError):
    """A model that cannot be calibrated on these images; the message says why."""


@dataclass(frozen=True)
class Reliability:
    """Images sorted by confidence, the top class's probability, into bins of equal width over 0..1.

    counts     -- images in each bin; bin i of m holds confidences in (i/m, (i+1)/m].
    confidence -- their mean confidence; NaN where there are none.
    accuracy   -- the share of them that is answered rightly; NaN where there are none.
    """

    counts: Numbers
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error: how far confidence and accuracy are apart in the mean over all images."""
        there = self.counts > 0
        gaps = np.abs(self.accuracy[there] - self.confidence[there])
        return float((self.counts[there] * gaps).sum() / self.counts.sum())


def fit_temperature(logits: npt.NDArray[np.floating], targets: Numbers) -> float:
    """The temperature with the least negative log-likelihood; ``CalibrationError`` where it is out of bounds.

    The likelihood is convex in 1/temperature: Newton's method, with a bracket
    that it may not leave.
    """
    shifted = _shifted(logits)
    true = np.take_along_axis(shifted, targets[:, None], axis=1)[:, 0]
    low, high = 1 / HIGHEST, 1 / LOWEST
    if _slope(shifted, true, high)[0] <= 0:
        raise CalibrationError(
            f"the temperature would be at its lowest bound, {LOWEST:g}: (nearly) every image is answered rightly, "
            "which does not tell how sure the model may be; take images that it was not trained on, and more of them"
        )
    if _slope(shifted, true, low)[0] >= 0:
        raise CalibrationError(
            f"the temperature would be at its highest bound, {HIGHEST:g}: the logits say nothing of the labels; "
            "are these the classes that the model was trained for?"
        )
    inverse = 1.0
    for _ in range(_STEPS):
        slope, curvature = _slope(shifted, true, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        newton = inverse - slope / curvature if curvature > 0 else math.inf
        following = newton if low <= newton <= high else math.sqrt(low * high)
        if abs(following - inverse) <= _PRECISION * inverse:
            break
        inverse = following
    return float(1 / inverse)


def _slope(shifted: Floats, true: Floats, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log-likelihood by 1/temperature.

    They are the mean over images of E[z] - z_true and Var[z], z being the logits
    and both taken under the probabilities.
    """
    probabilities = _softmax(shifted * inverse)
    mean = (probabilities * shifted).sum(axis=1)
    variance = (probabilities * (shifted - mean[:, None]) ** 2).sum(axis=1)
    return float((mean - true).mean()), float(variance.mean())


def negative_log_likelihood(logits: npt.NDArray[np.floating], targets: Numbers, temperature: float) -> float:
    """Of the labels, the mean over images, in nats."""
    scaled = _shifted(logits) / temperature
    true = np.take_along_axis(scaled, targets[:, None], axis=1)[:, 0]
    return float((np.log(np.exp(scaled).sum(axis=1)) - true).mean())


def reliability(
    logits: npt.NDArray[np.floating], targets: Numbers, temperature: float, bins: int = BINS
) -> Reliability:
    """Confidence beside accuracy at ``temperature``."""
    confidence = _softmax(_shifted(logits) / temperature).max(axis=1)
    right = (logits.argmax(axis=1) == targets).astype(np.float64)
    number = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is meant
        means = [np.bincount(number, values, bins) / counts for values in (confidence, right)]
    return Reliability(counts, means[0], means[1])


def _shifted(logits: npt.NDArray[np.floating]) -> Floats:
    """The logits below each image's largest: no exponential of them overflows."""
    wide = logits.astype(np.float64)
    return np.asarray(wide - wide.max(axis=1, keepdims=True))


def _softmax(logits: Floats) -> Floats:
    """Of logits whose largest is 0."""
    exponentials = np.exp(logits)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
