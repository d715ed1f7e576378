"""Shadow traffic: copies of requests to a canary, compared with what the stable version answered.

A copy starts when the original has its answer and a slot is idle, and is dropped otherwise; so no original is delayed
by its copy or fails with it. What the canary answers is compared and thrown away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from service.errors import ImageError, ServiceError
from service.images.decode import Ready
from service.images.decoding import AnyImage
from service.inference.compute import Reader
from service.inference.outputs import OutputName
from service.inference.pipeline import LOGITS, Pipeline
from service.inference.postprocess import Floats
from service.metrics import Metrics
from service.models.served import Served

logger = logging.getLogger(__name__)

T = TypeVar("T")

WINDOW = 1024
"""Images whose latencies are kept."""


@dataclass
class Comparison:
    """What was seen of one canary beside one stable version, on this worker.

    difference -- sum over the compared images of |p - q|, of the class that the stable version found most probable: p
                  is its probability, q the canary's for the class of that label.
    seconds    -- of the last ``WINDOW`` images: from submission to answer, of the stable version and of the canary.
    """

    stable: Served
    canary: Served
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    compared: int = 0
    agreed: int = 0
    dropped: int = 0
    failed: int = 0
    difference: float = 0.0
    seconds: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def __post_init__(self) -> None:
        stable, canary = (one.pipeline.stored.manifest.preprocessing for one in (self.stable, self.canary))
        self.same_input = stable == canary
        there = {label: index for index, label in enumerate(self.canary.pipeline.labels)}
        self._index = [there.get(label) for label in self.stable.pipeline.labels]

    def compare(self, stable: Floats, canary: Floats) -> tuple[bool, float]:
        """Whether both logits have the same best class, by label, and |p - q|; changes nothing."""
        p, q = self.stable.pipeline.probabilities(stable), self.canary.pipeline.probabilities(canary)
        best = int(p.argmax())
        index = self._index[best]
        return index == int(q.argmax()), abs(float(p[best]) - (0.0 if index is None else float(q[index])))


class Shadows:
    """The comparisons of this worker, by model. Event loop only.

    busy -- whether no slot is idle.
    """

    def __init__(self, most: int, deadline_s: float, metrics: Metrics, busy: Callable[[], bool]) -> None:
        self._most = most
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._busy = busy
        self._comparisons: dict[str, Comparison] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def watched(self, stable: Served, canary: Served) -> Pipeline:
        """The pipeline of ``stable``, whose images are offered to ``canary``, too."""
        comparison = self._comparisons.get(stable.name)
        if comparison is None or comparison.stable is not stable or comparison.canary is not canary:
            comparison = self._comparisons[stable.name] = Comparison(stable, canary)
        return _Watched(comparison, self._offer)

    def report(self, name: str) -> Comparison | None:
        """What was seen of the canary of ``name`` so far; None where there is none yet."""
        return self._comparisons.get(name)

    def forget(self, name: str, kept: Collection[Served]) -> None:
        """Drop the comparison of ``name`` unless both of its versions are among those ``kept``."""
        comparison = self._comparisons.get(name)
        if comparison is not None and not {comparison.stable, comparison.canary} <= set(kept):
            del self._comparisons[name]

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _offer(self, comparison: Comparison, image: AnyImage, logits: Floats, stable_s: float) -> None:
        """An image that was answered: copied to the canary where there is room, else dropped."""
        if self._comparisons.get(comparison.stable.name) is not comparison:
            return  # one of the two was replaced since the request began
        if isinstance(image, Ready) and not comparison.same_input:
            return  # made for the stable version's input; the canary would see another image, or refuse it
        if len(self._tasks) >= self._most or self._busy():
            comparison.dropped += 1
            self._metrics.shadowed(comparison.stable.name, "dropped")
            return
        copying = self._copy(comparison, image, logits, stable_s)
        task = asyncio.create_task(copying, context=Context())  # it is no part of the request, so not of its trace
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _copy(self, comparison: Comparison, image: AnyImage, logits: Floats, stable_s: float) -> None:
        name, pipeline = comparison.stable.name, comparison.canary.pipeline
        deadline = asyncio.get_running_loop().time() + self._deadline_s
        began_s = time.perf_counter()
        try:
            with comparison.canary.lease(), comparison.stable.lease():
                agreed, difference = await pipeline.run(
                    image, lambda outputs: comparison.compare(logits, outputs.logits), deadline
                )
        except Exception as error:
            comparison.failed += 1
            self._metrics.shadowed(name, "failed")
            if not isinstance(error, ServiceError):
                logger.exception("model %s: a copy failed in a way that no check foresaw", name)
            return
        canary_s = time.perf_counter() - began_s
        comparison.compared += 1
        comparison.agreed += agreed
        comparison.difference += difference
        comparison.seconds.append((stable_s, canary_s))
        self._metrics.compared(name, agreed, difference, stable_s, canary_s)


_Offer = Callable[[Comparison, AnyImage, Floats, float], None]


class _Watched(Pipeline):
    """The stable version's pipeline, with its state, whose answers are seen."""

    def __init__(self, comparison: Comparison, offer: _Offer) -> None:
        vars(self).update(vars(comparison.stable.pipeline))
        self._comparison = comparison
        self._offer = offer

    async def run(
        self, image: AnyImage, read: Reader[T], deadline: float, outputs: tuple[OutputName, ...] = LOGITS
    ) -> T:
        began_s = time.perf_counter()
        result, logits = await super().run(image, _with_logits(read), deadline, outputs)
        self._offer(self._comparison, image, logits, time.perf_counter() - began_s)
        return result

    async def run_many(
        self,
        images: Sequence[AnyImage],
        read: Reader[T],
        deadline: float,
        outputs: tuple[OutputName, ...] = LOGITS,
    ) -> list[T | ImageError]:
        began_s = time.perf_counter()
        found = await super().run_many(images, _with_logits(read), deadline, outputs)
        stable_s = time.perf_counter() - began_s
        results: list[T | ImageError] = []
        for image, one in zip(images, found, strict=True):
            if isinstance(one, ImageError):
                results.append(one)
            else:
                results.append(one[0])
                self._offer(self._comparison, image, one[1], stable_s)
        return results


def _with_logits(read: Reader[T]) -> Reader[tuple[T, Floats]]:
    return lambda outputs: (read(outputs), outputs.logits)
