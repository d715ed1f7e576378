"""What one request's images cost, stage by stage, for the log and for ``/debug``."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from service.inference.outputs import Timings


@dataclass(slots=True)
class Stages:
    """Seconds, images and bytes of one request; 0 for what was not reached. Event loop only.

    Images of one request go side by side, so of several each stage is the longest that any of them took.
    """

    images: int = 0
    received_bytes: int = 0
    read_s: float = 0.0
    decode_s: float = 0.0
    queue_s: float = 0.0
    infer_s: float = 0.0

    def computed(self, timings: Timings) -> None:
        """One image more has been through its slot."""
        self.decode_s = max(self.decode_s, timings.decode_s)
        self.queue_s = max(self.queue_s, timings.queue_s)
        self.infer_s = max(self.infer_s, timings.infer_s)

    def as_milliseconds(self) -> dict[str, float]:
        """The stages that were reached, by name."""
        stages = {
            "read_ms": self.read_s,
            "decode_ms": self.decode_s,
            "queue_ms": self.queue_s,
            "infer_ms": self.infer_s,
        }
        return {name: round(seconds * 1e3, 3) for name, seconds in stages.items() if seconds}


CURRENT: ContextVar[Stages | None] = ContextVar("stages", default=None)
"""Of the request that this task answers; None in what belongs to no request, as jobs and copies for canaries."""
