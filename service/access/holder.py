"""Who holds a key, and what it uses of what it may: images a second, images in work. Event loop only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from service.access.keys import Limits
from service.errors import KeyBusy, KeyRate, TooManyImages

_ROUNDING: Final = 1e-6  # images; who waited as long as was said is let in


class Holder:
    """``name`` may have several keys, as while one replaces another; what they use is counted together.

    The limits are the service's; each of its ``workers`` has its share of them, a share of images in work rounded up.
    """

    def __init__(
        self, name: str, limits: Limits, workers: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.images = 0
        self._workers = workers
        self._clock = clock
        self._filled_s = clock()
        self._set(limits)
        self._tokens = self._burst

    def allow(self, limits: Limits) -> None:
        """Other limits from now on; what is used stays counted."""
        if limits != self._limits:
            self._fill()
            had = self._tokens if self._per_s < math.inf else math.inf
            self._set(limits)
            self._tokens = min(had, self._burst)

    def _set(self, limits: Limits) -> None:
        self._limits = limits
        rate = limits.images_per_s
        self._per_s = math.inf if rate is None else rate / self._workers
        burst = rate if limits.burst is None else limits.burst
        self._burst = math.inf if rate is None or burst is None else max(1.0, burst / self._workers)
        concurrency = limits.concurrency
        self._most = math.inf if concurrency is None else math.ceil(concurrency / self._workers)

    def take(self, more: int, held: int) -> None:
        """Count ``more`` images of a request that holds ``held`` of them already; ``give_back`` follows for all.

        Whether a request keeps to the rate is asked of its first image, before its body is read: all the others are let
        in with that, and the next requests wait the longer. So nothing is read in vain, and Retry-After is true however
        many images come. Raises ``KeyRate``, ``KeyBusy``, and ``TooManyImages`` where waiting would not help.
        """
        if held + more > self._most:
            raise TooManyImages(f"this key may have {self._most:.0f} images in work; send fewer at once")
        if self.images + more > self._most:
            raise KeyBusy(f"{self.images} images of this key are in work, of at most {self._most:.0f}; try again")
        if self._per_s < math.inf:
            self._fill()
            if not held and self._tokens < 1 - _ROUNDING:
                wait_s = (1 - self._tokens) / self._per_s
                may = f"{self._limits.images_per_s:g} images a second"
                raise KeyRate(f"this key may send {may}; try again later", max(1, math.ceil(wait_s)))
            self._tokens -= more
        self.images += more

    def give_back(self, images: int) -> None:
        """They are in work no more."""
        self.images -= images

    def _fill(self) -> None:
        now_s = self._clock()
        if self._per_s < math.inf:
            self._tokens = min(self._burst, self._tokens + (now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
