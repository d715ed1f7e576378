"""Encoded images to measure with: the operator's, else made ones of a photo's size."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from PIL import Image

from model_store.errors import Explained
from service.config import Settings
from service.errors import ImageError
from service.images.decode import Decoder
from service.tuning.profile import one_line

MOST: Final = 256
"""Images that are measured with; of more, so many are taken, evenly spread."""

_MADE: Final = 32
_WIDTH, _HEIGHT = 500, 375


class TuneError(Explained):
    """What keeps a measurement from being made or kept; one line for the operator."""


@dataclass(frozen=True)
class Images:
    """Encoded images that the service takes, and in words where they are from."""

    bodies: tuple[bytes, ...]
    origin: str


def load_images(source: Path | None, settings: Settings) -> Images:
    """The images of ``source``, a folder or a zip file, without those the service would refuse; or made ones."""
    if source is None:
        bodies = _taken(_made(), settings)
        if not bodies:
            raise TuneError("the service would refuse the made images, as it is set; name others with --images")
        return Images(bodies, f"{len(bodies)} made images ({_WIDTH}x{_HEIGHT} JPEG)")
    files = _files(source)
    bodies = _taken((read() for read in files[:: -(-len(files) // MOST) or 1]), settings)
    if not bodies:
        raise TuneError(f"{source}: no image that the service takes is in it")
    return Images(bodies, one_line(f"{len(bodies)} images of {source.name}"))


def _taken(bodies: Iterable[bytes], settings: Settings) -> tuple[bytes, ...]:
    """Those of ``bodies`` that the service takes."""
    decoder = Decoder(settings.decode)

    def takes(body: bytes) -> bool:
        try:
            decoder.decode(body)
        except ImageError:
            return False
        return True

    return tuple(body for body in bodies if len(body) <= settings.limits.max_body_bytes and takes(body))


def _files(source: Path) -> list[Callable[[], bytes]]:
    """How to read each file of ``source``, in the order of their names."""
    if source.is_dir():
        return [path.read_bytes for path in sorted(source.rglob("*")) if path.is_file() and not _hidden(path.name)]
    if not source.exists():
        raise TuneError(f"{source}: no such folder or zip file")
    try:
        archive = zipfile.ZipFile(source)
    except zipfile.BadZipFile as error:
        raise TuneError(f"{source}: neither a folder nor a zip file") from error
    names = sorted(name for name in archive.namelist() if not name.endswith("/") and not _hidden(name))
    return [lambda name=name: _member(archive, name) for name in names]  # type: ignore[misc]


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise TuneError(f"{archive.filename}: {name} cannot be read: {error}") from error


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__")) for part in PurePosixPath(name).parts)


def _made() -> Iterator[bytes]:
    """Smooth random JPEGs: about as many bytes a pixel as a photo's."""
    random = np.random.default_rng(0)
    for _ in range(_MADE):
        small = Image.fromarray(random.integers(0, 256, (_HEIGHT // 16, _WIDTH // 16, 3), dtype=np.uint8))
        encoded = io.BytesIO()
        small.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=90)
        yield encoded.getvalue()
