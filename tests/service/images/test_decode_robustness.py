"""Whatever comes in, an image or an image error comes out: made up, mutated, truncated, odd."""

from __future__ import annotations

import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import ImageError
from service.images.decode import Decoder
from tests.service.conftest import encode
from tests.service.images.conftest import PILLOW_MAY_WARN, a_decoder, a_scaling_spec, decoded

pytestmark = PILLOW_MAY_WARN


def _check(decoder: Decoder, data: bytes) -> bool:
    """Decode, letting nothing but an ``ImageError`` out; whether it gave an image."""
    row = np.full((16, 16, 3), 7, np.uint8)
    try:
        decoder.tensor(data, a_scaling_spec(), row)
    except ImageError:
        assert (row == 7).all()
    try:
        image = decoder.decode(data)
    except ImageError as error:
        message = error.message
    else:
        assert image.mode == "RGB"
        assert min(image.size) >= 1
        assert np.asarray(image).shape == (image.height, image.width, 3)
        return True
    assert message
    assert "/" not in message
    assert "0x" not in message
    return False


_MAGIC = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP", b"GIF89a", b"II*\x00", b"MM\x00*", b"BM"]


@given(magic=st.sampled_from(_MAGIC), data=st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_image_errors(magic: bytes, data: bytes) -> None:
    _check(a_decoder(max_pixels=100_000), magic + data)


_SAVED = {
    "jpeg": ("L", "RGB", "CMYK"),
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "webp": ("RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB"),
    "gif": ("1", "L", "P", "RGB", "RGBA"),
    "tiff": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB"),
}
_KIND_AND_MODE = st.sampled_from([(kind, mode) for kind, modes in _SAVED.items() for mode in modes])
_OPTIONS = {
    "jpeg": st.sampled_from([{}, {"progressive": True}, {"subsampling": 0}, {"quality": 1}]),
    "png": st.sampled_from([{}, {"compress_level": 0}, {"optimize": True}]),
    "webp": st.sampled_from([{}, {"lossless": True}]),
    "bmp": st.just({}),
    "gif": st.sampled_from([{}, {"interlace": False}]),
    "tiff": st.sampled_from(
        [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"big_tiff": True}]
    ),
}


@st.composite
def images(draw: st.DrawFn) -> tuple[Image.Image, bytes]:
    kind, mode = draw(_KIND_AND_MODE)
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    noise = random.Random(draw(st.integers(0, 2**32))).randbytes(width * height * 4)
    image = Image.new(mode, (width, height))
    size = len(image.tobytes())
    image.frombytes(noise[:size] if mode != "F" else np.linspace(0, 1, width * height, dtype=np.float32).tobytes())
    if mode == "P":
        image.putpalette(random.Random(0).randbytes(768))
    return image, encode(image, kind, **draw(_OPTIONS[kind]))


@given(images())
def test_every_valid_image_decodes(sample: tuple[Image.Image, bytes]) -> None:
    image, data = sample
    # BigTIFF has a number of its own; it need not be taken, but must not crash.
    if data.startswith((b"II+\x00", b"MM\x00+")):
        _check(a_decoder(), data)
        return
    assert decoded(data).shape == (image.height, image.width, 3)


@given(images(), st.data())
def test_mutated_images_raise_nothing_but_image_errors(sample: tuple[Image.Image, bytes], data: st.DataObject) -> None:
    broken = bytearray(sample[1])
    for _ in range(data.draw(st.integers(1, 6))):
        where = data.draw(st.integers(0, len(broken) - 1))
        match data.draw(st.sampled_from(["set", "delete", "repeat", "cut"])):
            case "set":
                broken[where] = data.draw(st.sampled_from([0, 1, 127, 128, 254, 255]))
            case "delete":
                del broken[where : where + data.draw(st.integers(1, 8))]
            case "repeat":
                broken[where:where] = broken[where : where + 16]
            case "cut":
                del broken[max(where, 12) :]
        assume(broken)
    _check(a_decoder(max_pixels=100_000), bytes(broken))


@given(images(), st.integers(0, 3000))
def test_truncated_images_raise_nothing_but_image_errors(sample: tuple[Image.Image, bytes], length: int) -> None:
    _check(a_decoder(), sample[1][:length])


@settings(max_examples=20)
@given(images(), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=30))
def test_broken_headers_raise_nothing_but_image_errors(
    sample: tuple[Image.Image, bytes], changes: list[tuple[int, int]]
) -> None:
    broken = bytearray(sample[1])
    for where, value in changes:
        broken[where % len(broken)] = value
    _check(a_decoder(max_pixels=100_000), bytes(broken))


def test_odd_images_give_an_image_or_an_image_error(shared: Path) -> None:
    decoder = a_decoder()
    escaped, taken = [], 0
    with zipfile.ZipFile(shared / "data" / "odd-images.zip") as files:
        names = [name for name in files.namelist() if not name.endswith("/")]
        for name in names:
            try:
                taken += _check(decoder, files.read(name))
            except Exception as error:  # noqa: BLE001
                escaped.append(f"{name}: {type(error).__name__}: {error}")
    assert not escaped, "\n".join(escaped)
    assert taken > 0.85 * len(names)


_DECODE_ALL = """
import sys, zipfile
from typing import get_args
from model_store.manifest import JpegScaling, Preprocessing
from model_store.reports import Gate
from model_store.transforms import to_rgb, to_tensor
from service.settings import DecodeSettings, ImageFormat
from service.images.decode import Decoder
from service.errors import ImageError
decoder = Decoder(DecodeSettings(image_formats=get_args(ImageFormat)))
with zipfile.ZipFile(sys.argv[1]) as files:
    for name in files.namelist():
        if not name.endswith("/"):
            try:
                decoder.decode(files.read(name))
            except ImageError:
                pass
            except Warning as warning:
                print(f"{name}: {type(warning).__name__}: {warning}")
"""


def test_no_warning_of_pillow_escapes(shared: Path) -> None:
    """As the service runs: what a client sends writes no warnings into the log."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _DECODE_ALL, str(shared / "data" / "odd-images.zip")],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_basic_set_of_png_decodes(shared: Path) -> None:
    """PNGSuite: all but the files that begin with x are valid."""
    decoder = a_decoder()
    with zipfile.ZipFile(shared / "data" / "odd-images.zip") as files:
        for name in files.namelist():
            if name.startswith("pngsuite/") and name.endswith(".png"):
                assert _check(decoder, files.read(name)) or Path(name).name.startswith("x"), name
