"""What the network gives for one image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from service.errors import InferenceFailed
from service.inference.postprocess import Floats

OutputName = Literal["logits", "embedding", "cam"]

_ALL: Final[tuple[OutputName, ...]] = get_args(OutputName)


def union(wanted: Iterable[tuple[OutputName, ...]]) -> tuple[OutputName, ...]:
    """All that a batch's images want, each once."""
    names = {name for one in wanted for name in one}
    return tuple(name for name in _ALL if name in names)


def finite(logits: Floats) -> NDArray[np.bool_]:
    """Which rows of a batch's ``logits``, ``[n, classes]``, are numbers alone."""
    return np.atleast_1d(np.isfinite(logits).all(axis=-1))


def not_finite() -> InferenceFailed:
    """What an image gets whose row is none of them."""
    return InferenceFailed("the model gave values that are no numbers for this image")


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds: from submission to the slot, and in the slot. An image decoded ahead was so before it was queued."""

    decode_s: float
    queue_s: float
    infer_s: float


@dataclass(frozen=True, slots=True)
class Outputs:
    """The graph's outputs for one image: those that were asked for, ``logits`` always.

    logits    -- float32 ``[classes]``.
    embedding -- float32 ``[D]``.
    cam       -- float32 ``[k, h, w]``, of the k best classes by descending logit.
    size      -- width and height of the upright image, in its own pixels.
    """

    logits: Floats
    embedding: Floats | None
    cam: Floats | None
    timings: Timings
    size: tuple[int, int]

    @classmethod
    def of_row(cls, found: Mapping[OutputName, Floats], row: int, timings: Timings, size: tuple[int, int]) -> Self:
        """One image's part of what the graph gave for a batch."""
        embedding, cam = found.get("embedding"), found.get("cam")
        return cls(
            found["logits"][row],
            None if embedding is None else embedding[row],
            None if cam is None else cam[row],
            timings,
            size,
        )
