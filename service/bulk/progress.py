"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Final

from rich.console import Console

from model_store.command_line.progress import ImagesBar

_LINE_EVERY_S: Final = 10.0


class Told(ImagesBar):
    """Told of images as they are done; ``before`` are those of an earlier run, which count for no rate."""

    def __init__(self, total: int, before: int, console: Console) -> None:
        super().__init__(total, console, before=before)
        self._console = console
        self._line_s = time.monotonic()

    def __call__(self, images: int, failed: int) -> None:
        self.add(images, failed)
        now_s = time.monotonic()
        if not self._console.is_terminal and now_s - self._line_s >= _LINE_EVERY_S:
            self._line_s = now_s
            left_s = (self.total - self.before - self.done) / max(self.rate, 1e-9)
            self._console.print(
                f"{self.before + self.done} of {self.total} images, {self.rate:.0f}/s, {left_s:.0f} s left",
                soft_wrap=True,
            )
