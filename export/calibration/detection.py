"""What looks like none of the classes? Scores of logits, their thresholds, and how well they tell images apart.

Both scores are the higher, the more an image looks like those that the model
knows: the energy score logsumexp(logits) (Liu et al., "Energy-based
Out-of-distribution Detection", 2020, https://arxiv.org/abs/2010.03759; theirs is
this with the sign turned, at their temperature 1) and the largest logit
(Hendrycks et al., 2019, https://arxiv.org/abs/1911.11132).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.calibration.temperature import Floats


@dataclass(frozen=True)
class Scores:
    """Both scores of each image, ``[n]``."""

    energy: Floats
    max_logit: Floats

    @classmethod
    def of(cls, logits: npt.NDArray[np.floating]) -> Scores:
        """Of logits ``[n, classes]``, as they are: no temperature."""
        wide = logits.astype(np.float64)
        largest = wide.max(axis=1)
        return cls(largest + np.log(np.exp(wide - largest[:, None]).sum(axis=1)), largest)


@dataclass(frozen=True)
class Detection:
    """How well a score tells known images from outliers.

    auroc    -- the chance that a known image has the higher score (ties count half): 1 tells them apart, 0.5 guesses.
    accepted -- the share of outliers that reach the threshold: the false positive rate.
    """

    auroc: float
    accepted: float


def threshold(scores: Floats, coverage: float) -> float:
    """The highest score that a share of at least ``coverage`` of the images reaches."""
    below = math.floor((1 - coverage) * len(scores) + 1e-9)
    return float(np.sort(scores)[min(below, len(scores) - 1)])


def reached(scores: Floats, limit: float) -> float:
    """The share of images whose score is at least ``limit``."""
    return float((scores >= limit).mean())


def detect(known: Floats, outliers: Floats, limit: float) -> Detection:
    """How well a score, of ``known`` images and ``outliers``, tells them apart; ``limit`` is its threshold."""
    ordered = np.sort(outliers)
    below = np.searchsorted(ordered, known, "left") + np.searchsorted(ordered, known, "right")
    return Detection(float(below.mean() / (2 * len(outliers))), reached(outliers, limit))
