"""Whether images come one at a time, so that each may have all cores to itself."""

from __future__ import annotations

from typing import Final

_NEWEST: Final = 0.1
"""What the last image counts in the mean, against all before it."""

_RARE: Final = 0.25
"""Up to a tenth to a fifth of the machine's load, an image on all cores is answered sooner. Beyond, the next one
comes while they compute, and both take longer than a core each would: docs/performance.md."""


class Company:
    """How often an image that comes finds others, of late."""

    def __init__(self) -> None:
        self._share = 0.0

    def came(self, others: bool) -> None:
        """An image came, and found others waiting or computed, or none."""
        self._share += _NEWEST * (others - self._share)

    @property
    def rare(self) -> bool:
        return self._share < _RARE
