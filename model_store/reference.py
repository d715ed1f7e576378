"""What a model makes of the images it is meant for: histograms to compare others with, and nothing of any image.

Export and service sort images into the same bins by the same functions, so that equal images give equal counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from model_store.files import File, Part

Feature = Literal["classes", "confidence", "entropy", "energy"]
FEATURES: Final[tuple[Feature, ...]] = get_args(Feature)

MOST_CLASSES: Final = 100
BINS: Final = 10

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]
Count = Annotated[int, Field(ge=0)]


class Reference(Part):
    """Images as they were expected, counted by what the fp32 model says of them.

    temperature  -- of the logits, for ``confidence`` and ``entropy``: the model's when this was made.
    top_classes  -- the classes predicted most often, by index, at most ``MOST_CLASSES``.
    classes      -- images predicted as each of them, then as any other.
    confidence   -- images by the top class's probability, in bins of equal width over 0..1.
    entropy      -- the same of the probabilities' entropy, divided by log(number of classes).
    energy       -- images by logsumexp(logits), in the bins between -inf, ``energy_edges`` and inf.
    embedding    -- a .npy file, float32 ``[2, D]``: mean and standard deviation of each dimension; None where the
                    graph has no embedding.
    """

    images: int = Field(gt=0)
    image_source: str
    created: datetime
    temperature: float = Field(gt=0, le=1000)
    top_classes: tuple[Count, ...] = Field(min_length=1, max_length=MOST_CLASSES)
    classes: tuple[Count, ...]
    confidence: tuple[Count, ...] = Field(min_length=1, max_length=1000)
    entropy: tuple[Count, ...] = Field(min_length=1, max_length=1000)
    energy_edges: tuple[float, ...] = Field(max_length=1000)
    energy: tuple[Count, ...]
    embedding: File | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.top_classes)) != len(self.top_classes):
            raise ValueError("top_classes names a class twice")
        if len(self.classes) != len(self.top_classes) + 1:
            raise ValueError("classes has a count for each of top_classes and one for all others")
        if len(self.energy) != len(self.energy_edges) + 1:
            raise ValueError("energy has one bin more than there are edges")
        if list(self.energy_edges) != sorted(self.energy_edges):
            raise ValueError("energy_edges must rise")
        for feature in FEATURES:
            if sum(self.counts(feature)) != self.images:
                raise ValueError(f"{feature} counts {sum(self.counts(feature))} images of {self.images}")
        return self

    def counts(self, feature: Feature) -> tuple[int, ...]:
        """Images in each bin of ``feature``."""
        found: tuple[int, ...] = getattr(self, feature)
        return found


@dataclass(frozen=True)
class Signals:
    """What is looked at of each of ``n`` images, ``[n]`` each: the top class's index and probability, the entropy of
    the probabilities as a share of the most there can be, logsumexp of the logits."""

    classes: Counts
    confidence: Floats
    entropy: Floats
    energy: Floats


def signals(logits: Floats, temperature: float) -> Signals:
    """Of finite ``logits`` ``[n, classes]``; probabilities are softmax(logits / ``temperature``)."""
    most = logits.max(axis=1, keepdims=True)
    shifted = logits - most
    total = np.exp(shifted).sum(axis=1)
    energy = most[:, 0] + np.log(total)
    if temperature != 1:
        shifted /= np.float32(temperature)
        total = np.exp(shifted).sum(axis=1)
    probabilities = np.exp(shifted) / total[:, None]
    # With p = exp(s) / Z, -sum p log p is log Z - sum p s.
    entropy = np.log(total) - (probabilities * shifted).sum(axis=1)
    ceiling = np.float32(np.log(max(2, logits.shape[1])))
    return Signals(logits.argmax(axis=1), 1 / total, np.clip(entropy / ceiling, 0, 1), energy)


@dataclass(frozen=True)
class Bins:
    """Where the bins are; counts images in them.

    bin_of_class -- the bin of each class ``[classes]``; there are ``class_bins``.
    equal        -- how many bins of equal width over 0..1 confidence and entropy have.
    """

    bin_of_class: Counts
    class_bins: int
    equal: Mapping[Literal["confidence", "entropy"], int]
    energy_edges: Floats

    @classmethod
    def of(cls, reference: Reference, classes: int) -> Bins:
        """The reference's, of a model with so many ``classes``."""
        equal: dict[Literal["confidence", "entropy"], int] = {
            "confidence": len(reference.confidence),
            "entropy": len(reference.entropy),
        }
        return cls.at(reference.top_classes, classes, reference.energy_edges, equal)

    @classmethod
    def at(
        cls,
        top_classes: Sequence[int],
        classes: int,
        energy_edges: Sequence[float],
        equal: Mapping[Literal["confidence", "entropy"], int],
    ) -> Bins:
        """``ValueError`` where ``top_classes`` has one that there is not."""
        if max(top_classes) >= classes:
            raise ValueError(f"class {max(top_classes)} of {classes}")
        bin_of_class = np.full(classes, len(top_classes), np.int64)
        bin_of_class[list(top_classes)] = np.arange(len(top_classes))
        return cls(bin_of_class, len(top_classes) + 1, equal, np.asarray(energy_edges, np.float32))

    def count(self, seen: Signals) -> dict[Feature, Counts]:
        """Images of ``seen`` in each bin."""
        energy = np.searchsorted(self.energy_edges, seen.energy, side="right")
        return {
            "classes": np.bincount(self.bin_of_class[seen.classes], minlength=self.class_bins),
            "confidence": _equal(seen.confidence, self.equal["confidence"]),
            "entropy": _equal(seen.entropy, self.equal["entropy"]),
            "energy": np.bincount(energy, minlength=len(self.energy_edges) + 1),
        }


def _equal(values: Floats, bins: int) -> Counts:
    """``values`` of 0..1 in bins of equal width; 1 is in the last one."""
    return np.bincount(np.clip((values * bins).astype(np.int64), 0, bins - 1), minlength=bins)
