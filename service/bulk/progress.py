"""How far a run is: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY_S: Final = 10.0


class Told:
    """Told of images as they are done; ``before`` are those of an earlier run, which count for no rate."""

    def __init__(self, total: int, before: int, console: Console) -> None:
        self.done = 0
        self.failed = 0
        self._before = before
        self._total = total
        self._console = console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("images", total=total, completed=before, rate="")
        self._began_s = self._line_s = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def __call__(self, images: int, failed: int) -> None:
        self.done += images
        self.failed += failed
        now_s = time.monotonic()
        if self._console.is_terminal:
            name = f"images, [red]{self.failed} failed" if self.failed else "images"
            self._bar.update(
                self._task, completed=self._before + self.done, rate=f"{self.rate:.0f}/s", description=name
            )
        elif now_s - self._line_s >= _LINE_EVERY_S:
            self._line_s = now_s
            left_s = (self._total - self._before - self.done) / max(self.rate, 1e-9)
            self._console.print(
                f"{self._before + self.done} of {self._total} images, {self.rate:.0f}/s, {left_s:.0f} s left",
                soft_wrap=True,
            )

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began_s

    @property
    def rate(self) -> float:
        """Images a second of this run."""
        return self.done / max(self.seconds, 1e-9)
