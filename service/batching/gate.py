"""How much is let in: images between acceptance and answer, in number and in time, and bytes of bodies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

from service.access.holder import Holder
from service.errors import Overloaded

BUSY: Final = "the service is busy; try again"

_FEW: Final = 8
"""Images that are always let in: of so few, one's time says little of the next one's."""

_NEWEST: Final = 0.05
"""What the last answer counts in the mean, against all before it."""


class Gate:
    """Counts images and bytes in the service and refuses those beyond ``limit`` and ``max_bytes``. Event loop only.

    And images that would stay for longer than ``patience_s``, as their deadline would pass, and what was computed of
    them would be lost. How long that is, the answers tell: who came as one of n images and was answered t later saw
    an image leave every t / n.
    """

    def __init__(
        self,
        limit: int,
        max_bytes: float = math.inf,
        *,
        patience_s: float = math.inf,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.limit = limit
        self.max_bytes = max_bytes
        self.images = 0
        self.bytes = 0
        self.clock = clock
        self._patience_s = patience_s
        self._image_s = 0.0

    @property
    def full(self) -> bool:
        """Whether there is no room for an image."""
        return self.images >= self.limit or (self.images >= _FEW and self.images * self._image_s > self._patience_s)

    def _answered(self, images: int, seconds: float) -> None:
        """Who came as the last of ``images`` was answered after ``seconds``."""
        if images >= _FEW:
            image_s = seconds / images
            self._image_s += (_NEWEST if self._image_s else 1.0) * (image_s - self._image_s)

    @contextmanager
    def admit(self, holder: Holder | None = None) -> Iterator[Ticket]:
        """A ticket, before the request's body is read; ``Overloaded`` where there is no room for an image.

        It takes no room yet: a client that sends its body slowly keeps nobody out. ``holder`` has the key that the
        request came with; of its limits an image is taken at once, which raises as ``Holder.take`` does.
        """
        if self.full:
            raise Overloaded(BUSY)
        ticket = Ticket(self, holder)
        try:
            yield ticket
            self._answered(ticket.among, self.clock() - ticket.began_s)
        finally:
            ticket.close()


class Ticket:
    """One request's share of the gate.

    among, began_s -- images in the service when its own were known, and when that was, on its clock.
    """

    def __init__(self, gate: Gate, holder: Holder | None) -> None:
        self._gate = gate
        self._holder = holder
        self._of_key = 0
        self.images = 0
        self.bytes = 0
        self.among = 0
        self.began_s = 0.0
        self._use_key(1)

    def extend(self, images: int) -> None:
        """Take room for ``images`` in all."""
        more = max(0, images - self.images)
        if self._gate.images + more > self._gate.limit:
            raise Overloaded(BUSY)
        self._use_key(images)
        self._gate.images += more
        self.images += more
        self.among, self.began_s = self._gate.images, self._gate.clock()

    def expect(self, body_bytes: int) -> None:
        """``Overloaded`` where so many bytes would not fit now. They take no room before they are here."""
        if self._gate.bytes + body_bytes > self._gate.max_bytes:
            raise Overloaded("the service holds as many bytes of images as it may; try again")

    def hold(self, more_bytes: int) -> None:
        """Take room for bytes that came; ``Overloaded`` where there is none."""
        self.expect(more_bytes)
        self._gate.bytes += more_bytes
        self.bytes += more_bytes

    def close(self) -> None:
        """Give all of it back."""
        self._gate.images -= self.images
        self._gate.bytes -= self.bytes
        if self._holder is not None:
            self._holder.give_back(self._of_key)

    def _use_key(self, images: int) -> None:
        """Of the key's limits, ``images`` in all."""
        if self._holder is not None and images > self._of_key:
            self._holder.take(images - self._of_key, self._of_key)
            self._of_key = images
