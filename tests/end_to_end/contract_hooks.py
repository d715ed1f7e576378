"""Loaded by schemathesis in its own process: bodies of the media types that JSON Schema cannot describe."""

from __future__ import annotations

import io
import os
import zipfile

import schemathesis
from hypothesis import strategies as st
from PIL import Image

SIZES = [(1, 1), (7, 300), (33, 32)]


def encoded(form: str, size: tuple[int, int], name: str = "") -> bytes:
    image = Image.radial_gradient("L").resize(size).convert("RGB")
    file = io.BytesIO()
    image.save(file, form)
    if not name:
        return file.getvalue()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, file.getvalue())
    return packed.getvalue()


# Whether bodies are such as the service takes, or anything at all.
ANYTHING = os.environ.get("CONTRACT_BODIES") == "anything"

for media_type, form in (("image/png", "PNG"), ("image/jpeg", "JPEG"), ("image/webp", "WEBP")):
    sound = st.sampled_from([encoded(form, size) for size in SIZES])
    broken = st.binary(max_size=100) | sound.map(lambda data: data[: len(data) // 2])
    schemathesis.openapi.media_type(media_type, sound | broken if ANYTHING else sound)
schemathesis.openapi.media_type(
    "application/octet-stream", st.binary(max_size=100) if ANYTHING else st.just(encoded("PNG", SIZES[2]))
)
schemathesis.openapi.media_type(
    "application/zip", st.binary(max_size=100) if ANYTHING else st.just(encoded("PNG", SIZES[2], "a.png"))
)
