"""How far a run over images is."""

from __future__ import annotations

import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ImagesBar:
    """A bar with rate and time left on a terminal, nothing elsewhere.

    ``before`` images are of an earlier run and count for no rate; ``stays``: the bar does, when all is done.
    """

    def __init__(self, total: int, console: Console, *, before: int = 0, stays: bool = False) -> None:
        self.done = 0
        self.failed = 0
        self.total = total
        self.before = before
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=not stays, disable=not console.is_terminal)
        self._task = self._bar.add_task("images", total=total, completed=before, rate="")
        self._began_s = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def add(self, images: int, failed: int) -> None:
        """So many more are done, ``failed`` of them without a result."""
        self.done += images
        self.failed += failed
        name = f"images, [red]{self.failed} failed" if self.failed else "images"
        self._bar.update(self._task, completed=self.before + self.done, rate=f"{self.rate:.0f}/s", description=name)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began_s

    @property
    def rate(self) -> float:
        """Images a second of this run."""
        return self.done / max(self.seconds, 1e-9)
