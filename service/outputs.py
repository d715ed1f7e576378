"""What the network gives for one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.postprocess import Floats

OutputName = Literal["logits", "embedding", "cam"]


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
