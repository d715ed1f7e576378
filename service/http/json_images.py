"""``{"images": ["<base64>", ...]}`` that is too large for memory: taken apart in the file it lies in."""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.errors import BadRequest, TooManyImages
from service.http.bodies import from_base64
from service.jobs.record import Contents, Image

_HEAD: Final = re.compile(rb'\s*\{\s*"images"\s*:\s*\[\s*')
# Possessive, so that a long string costs neither memory nor a second look.
_ITEM: Final = re.compile(rb'"((?:[^"\\]++|\\.)*+)"\s*(,|\]\s*\}\s*)\s*', re.DOTALL)


# Encoders may escape what base64 has of "/" and "+"; no image's text is twice as long for that.
_ESCAPED: Final = 2


def unpack(path: Path, max_images: int, max_image_bytes: int) -> Contents:
    """Turn the document at ``path`` into the bytes of its images, in place: an image is shorter than its text.

    One image is held in memory at a time. What is far longer than ``max_image_bytes`` is not even looked at: it keeps
    its place and a length that says so. Raises ``BadRequest`` and ``TooManyImages``; the file is of no use then.
    """
    images: list[Image] = []
    end = 0
    with path.open("r+b", buffering=0) as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            for start, stop in _strings(text):
                if len(images) == max_images:
                    raise TooManyImages(f"too many images; at most {max_images} are taken in a job")
                if stop - start > _ESCAPED * 4 * math.ceil(max_image_bytes / 3):
                    length = (stop - start) // 4 * 3
                    file.seek(length, os.SEEK_CUR)
                else:
                    image = from_base64(_string(text[start:stop]), len(images))
                    length = len(image)
                    file.write(image)
                images.append(Image(None, end, length))
                end += length
        file.truncate(end)
    return Contents(kind="packed", images=images)


def _strings(text: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Where the strings of the one list lie, without quotes; those before the current one are not needed any more."""
    found = _HEAD.match(text)
    while found is not None:
        found = _ITEM.match(text, found.end())
        if found is None:
            break
        yield found.span(1)
        if found[2] != b",":
            if found.end() == len(text):
                return
            break
    raise _malformed()


def _string(text: bytes) -> str:
    try:
        # Base64 needs no unescaping, and orjson takes 14 times a string's length while it reads it.
        return str(json.loads(b'"%b"' % text)) if b"\\" in text else text.decode()
    except ValueError as error:
        raise _malformed() from error


def _malformed() -> BadRequest:
    return BadRequest('the JSON body cannot be read; send {"images": ["<base64>", ...]}')
