"""A training of seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.study.training_runs import Run

Pictures = Callable[..., Path]


def tiny_run(epochs: int = 2, images: int = 8, seed: int = 1) -> Run:
    """Of the network that the fixture ``tiny_is_known`` makes known."""
    return Run("tiny", epochs, images, curve_images=4, seed=seed)
