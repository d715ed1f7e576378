"""``{"images": ["<base64>", ...]}`` that is too large for memory: taken apart in the file it lies in."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.errors import BadRequest, TooManyImages
from service.http.bodies import from_base64
from service.jobs.record import Contents, Image

_HEAD: Final = re.compile(rb'\s*\{\s*"images"\s*:\s*\[\s*')
# Possessive, so that a long string costs neither memory nor a second look.
_ITEM: Final = re.compile(rb'("(?:[^"\\]++|\\.)*+")\s*(,|\]\s*\}\s*)\s*', re.DOTALL)


def unpack(path: Path, max_images: int) -> Contents:
    """Turn the document at ``path`` into the bytes of its images, in place: an image is shorter than its text.

    One image is held in memory at a time. Raises ``BadRequest`` and ``TooManyImages``; the file is of no use then.
    """
    images: list[Image] = []
    end = 0
    with path.open("r+b", buffering=0) as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            for string in _strings(text):
                if len(images) == max_images:
                    raise TooManyImages(f"too many images; at most {max_images} are taken in a job")
                image = from_base64(string, len(images))
                file.write(image)
                images.append(Image(None, end, len(image)))
                end += len(image)
        file.truncate(end)
    return Contents(kind="packed", images=images)


def _strings(text: mmap.mmap) -> Iterator[str]:
    """The strings of the one list there is; those before the current one are not needed any more."""
    malformed = BadRequest('the JSON body cannot be read; send {"images": ["<base64>", ...]}')
    found = _HEAD.match(text)
    while found is not None:
        found = _ITEM.match(text, found.end())
        if found is None:
            break
        string = found[1]
        try:
            # Base64 needs no unescaping, and orjson takes 14 times a string's length while it reads it.
            yield json.loads(string) if b"\\" in string else string[1:-1].decode()
        except ValueError as error:
            raise malformed from error
        if found[2] != b",":
            if found.end() == len(text):
                return
            break
    raise malformed
