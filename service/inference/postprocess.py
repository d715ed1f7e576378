"""Logits to what a person reads: pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class, with its probability of 0..1."""

    label: str
    index: int
    probability: float


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis, stable for large logits."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def energy(logits: Floats) -> float:
    """logsumexp(logits) of one image, the negative of its free energy (Liu et al., 2020, arXiv:2010.03759).

    Images like those a network was trained on have more of it than others, which softmax does not show.
    """
    most = float(logits.max())
    return most + math.log(float(np.exp(logits - np.float32(most)).sum(dtype=np.float64)))


def top_k(probabilities: Floats, labels: Sequence[str], k: int) -> list[Prediction]:
    """The ``k`` most probable classes of one image, the first the most; equal ones by index."""
    if k < len(probabilities):
        threshold = np.partition(probabilities, -k)[-k]
        candidates = np.flatnonzero(probabilities >= threshold)
        order = candidates[np.argsort(-probabilities[candidates], kind="stable")][:k]
    else:
        order = np.argsort(-probabilities, kind="stable")
    return [Prediction(labels[i], i, float(probabilities[i])) for i in order.tolist()]
