"""How much is let in: the images between acceptance and answer, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.access.holder import Holder
from service.errors import Overloaded


class Gate:
    """Counts images in the service and refuses those beyond ``limit``. Event loop only."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.images = 0

    @contextmanager
    def admit(self, holder: Holder | None = None) -> Iterator[Ticket]:
        """Room for one image, taken before the request's body is read; ``Overloaded`` where there is none.

        ``holder`` has the key that the request came with; its limits raise as ``Holder.take`` does.
        """
        ticket = Ticket(self, holder)
        ticket.extend(1)
        try:
            yield ticket
        finally:
            ticket.close()


class Ticket:
    """One request's share of the gate."""

    def __init__(self, gate: Gate, holder: Holder | None) -> None:
        self._gate = gate
        self._holder = holder
        self.images = 0

    def extend(self, images: int) -> None:
        """Take room for ``images`` in all."""
        more = max(0, images - self.images)
        if self._gate.images + more > self._gate.limit:
            raise Overloaded("the service is busy; try again")
        if self._holder is not None:
            self._holder.take(more, self.images)
        self._gate.images += more
        self.images += more

    def close(self) -> None:
        """Give all of it back."""
        self._gate.images -= self.images
        if self._holder is not None:
            self._holder.give_back(self.images)
