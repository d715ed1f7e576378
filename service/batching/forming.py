"""How large the next batch is, or how long it may still gather: a pure function."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Forming:
    """What batches are made of.

    max_batch   -- most images in one.
    max_delay_s -- how long an image may wait for others while a slot is free; 0 never waits, as is best where
                   the slots are cores. An accelerator's first image of a burst may be worth holding.
    preferred   -- sizes that run best (of a CUDA graph, of a TensorRT profile), ascending; empty for any. A batch
                   of the largest leaves without delay, and a larger queue is cut to one of them.
    """

    max_batch: int
    max_delay_s: float = 0.0
    preferred: tuple[int, ...] = ()


@dataclass(frozen=True)
class Wait:
    """No batch yet: ask again in ``seconds``, or when more has come."""

    seconds: float


@dataclass(frozen=True)
class Load:
    """What one model has to do, and with what.

    waiting, computing -- its images in the queue (at least 1) and in slots, those of a batch that just ended included.
    oldest_s           -- how long the first in the queue waits, seconds.
    free, slots        -- slots that are free (at least 1), and all.
    """

    waiting: int
    computing: int
    oldest_s: float
    free: int
    slots: int


def next_batch(forming: Forming, load: Load) -> int | Wait:
    """Images to take now.

    Free slots share the queue evenly. Under load a batch is no more than what leaves as much again for the next
    slot that comes free: were all taken at once, that slot would begin with the first image that comes, alone.
    Where a delay is allowed, batches are filled instead, one after the other.
    """
    most = min(forming.max_batch, load.waiting)
    if forming.max_delay_s > 0:
        full = max(forming.preferred, default=forming.max_batch)
        if most < full and load.oldest_s < forming.max_delay_s:
            return Wait(forming.max_delay_s - load.oldest_s)
    else:
        share = math.ceil(load.waiting / load.free)
        lasting = math.ceil((load.waiting + load.computing) / (load.slots + 1))
        most = min(most, share, lasting) if load.computing else min(most, share)
    return max((size for size in forming.preferred if size <= most), default=most)
