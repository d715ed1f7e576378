"""How much is let in: images between acceptance and answer, and bytes of bodies, both bounded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Overloaded


class Gate:
    """Counts images and bytes in the service and refuses those beyond ``limit`` and ``max_bytes``. Event loop only."""

    def __init__(self, limit: int, max_bytes: float = math.inf) -> None:
        self.limit = limit
        self.max_bytes = max_bytes
        self.images = 0
        self.bytes = 0

    @contextmanager
    def admit(self) -> Iterator[Ticket]:
        """A ticket, before the request's body is read; ``Overloaded`` where there is no room for an image.

        It takes no room yet: a client that sends its body slowly keeps nobody out.
        """
        ticket = Ticket(self)
        ticket.check(1)
        try:
            yield ticket
        finally:
            self.images -= ticket.images
            self.bytes -= ticket.bytes


class Ticket:
    """One request's share of the gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.images = 0
        self.bytes = 0

    def check(self, images: int) -> None:
        """``Overloaded`` where there is no room for ``images`` more."""
        if self._gate.images + images > self._gate.limit:
            raise Overloaded("the service is busy; try again")

    def extend(self, images: int) -> None:
        """Take room for ``images`` in all."""
        more = max(0, images - self.images)
        self.check(more)
        self._gate.images += more
        self.images += more

    def expect(self, body_bytes: int) -> None:
        """``Overloaded`` where so many bytes would not fit now. They take no room before they are here."""
        if self._gate.bytes + body_bytes > self._gate.max_bytes:
            raise Overloaded("the service holds as many bytes of images as it may; try again")

    def hold(self, more_bytes: int) -> None:
        """Take room for bytes that came; ``Overloaded`` where there is none."""
        self.expect(more_bytes)
        self._gate.bytes += more_bytes
        self.bytes += more_bytes
