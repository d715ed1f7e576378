"""What a training run says of itself; without PyTorch, as model cards need no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """What ``export.train`` wrote beside the weights: its recipe, the epochs behind it, the classes' names."""

    recipe: Mapping[str, str | int | float]
    epoch: int
    labels: tuple[str, ...]

    @property
    def arch(self) -> str:
        return str(self.recipe["arch"])
