"""The classes' names: from a file, from the weights' origin, or the best there is without either."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from export.errors import ExportError

# https://www.cs.toronto.edu/~kriz/cifar.html, in the data set's own order, which is alphabetical.
CIFAR10: Final = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class LabelsError(ExportError):
    """The labels cannot be read or do not fit the network."""


@dataclass(frozen=True)
class Labels:
    """Names by class number, and in words where they come from."""

    names: tuple[str, ...]
    source: str

    @property
    def repeated(self) -> tuple[str, ...]:
        """Names that two classes share, as ``crane`` and ``maillot`` in ImageNet."""
        return tuple(name for name, count in Counter(self.names).items() if count > 1)

    def text(self) -> str:
        """One name a line, as the model store keeps them."""
        return "".join(f"{name}\n" for name in self.names)


def read_labels(path: Path, classes: int) -> Labels:
    """The names in ``path``, one a line; ``LabelsError`` unless there is one for each of ``classes``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelsError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LabelsError(f"{path}: not UTF-8 text") from error
    names = tuple(line.strip() for line in text.removesuffix("\n").split("\n"))
    _check(names, classes, str(path))
    return Labels(names, path.name)


def default_labels(classes: int, cifar: bool) -> Labels:
    """CIFAR-10's names for a CIFAR network of ten classes, else ``class 0``, ``class 1`` and so on."""
    if cifar and classes == len(CIFAR10):
        return Labels(CIFAR10, "the names of CIFAR-10")
    return Labels(tuple(f"class {i}" for i in range(classes)), "numbers, as no labels were given")


def origin_labels(names: tuple[str, ...], classes: int, where: str, source: str) -> Labels:
    """The names that an origin keeps beside its weights: ``where`` for errors, ``source`` in words."""
    _check(tuple(name.strip() for name in names), classes, where)
    return Labels(tuple(name.strip() for name in names), source)


def _check(names: tuple[str, ...], classes: int, source: str) -> None:
    for number, name in enumerate(names, start=1):
        if not name:
            raise LabelsError(f"{source}: line {number} is empty; every class has a name")
        if not name.isprintable():
            raise LabelsError(f"{source}: line {number} holds a control character")
    if len(names) != classes:
        raise LabelsError(f"{source}: {len(names)} labels, but the network has {classes} classes")
