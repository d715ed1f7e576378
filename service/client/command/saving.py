"""Pictures saved under the names of their images."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from service.client.command.files import Source


def targets(sources: Sequence[Source], folder: Path) -> dict[Source, Path]:
    """A PNG in ``folder`` for each of ``sources``, below the folders that it was found in; no two are the same."""
    taken: set[Path] = set()
    found: dict[Source, Path] = {}
    for source in dict.fromkeys(sources):
        plain = folder / Path(source.place).with_suffix(".png")
        target, number = plain, 1
        while target in taken:
            number += 1
            target = plain.with_name(f"{plain.stem}-{number}.png")
        taken.add(target)
        found[source] = target
    return found


def save(target: Path, data: bytes) -> None:
    """``data`` as the file ``target``, whole or not at all; ``OSError`` where that cannot be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{uuid.uuid4()}.part")
    try:
        part.write_bytes(data)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
