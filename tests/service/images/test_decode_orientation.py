"""Images are turned upright, as their EXIF or XMP says."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from model_store.transforms import to_tensor
from service.images.decode import Decoder
from tests.model_store.pictures import png_chunk
from tests.service.conftest import a_picture, encode
from tests.service.images.conftest import PILLOW_MAY_WARN, a_decoder, a_scaling_spec, a_spec, decoded, flat

pytestmark = PILLOW_MAY_WARN

ORIENTATION = 0x0112

# Large enough to be decoded smaller, with sides that no scale divides.
_CORNERED = Image.new("RGB", (241, 163), "white")
_CORNERED.paste("black", (0, 0, 120, 80))


def _reoriented(upright: Image.Image, orientation: int) -> Image.Image:
    """``upright`` as a camera would store it with ``orientation``: the inverse of what a viewer does."""
    flips = Image.Transpose
    inverse = {
        1: [],
        2: [flips.FLIP_LEFT_RIGHT],
        3: [flips.ROTATE_180],
        4: [flips.FLIP_TOP_BOTTOM],
        5: [flips.TRANSPOSE],
        6: [flips.ROTATE_90],
        7: [flips.TRANSVERSE],
        8: [flips.ROTATE_270],
    }
    for step in inverse[orientation]:
        upright = upright.transpose(step)
    return upright


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(kind: str, orientation: int) -> None:
    upright = a_picture(size=(6, 4))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encode(_reoriented(upright, orientation), kind, exif=exif, **options)
    assert np.array_equal(decoded(data), np.asarray(upright))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_upright(orientation: int) -> None:
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste("black", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    result = decoded(encode(_reoriented(upright, orientation), "JPEG", quality=95, exif=exif))
    assert result.shape == (32, 48, 3)
    assert np.abs(result.astype(int) - np.asarray(upright)).max() < 40


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_that_are_decoded_smaller_are_upright(orientation: int, decoder: Decoder) -> None:
    upright = Image.new("RGB", (481, 323), "white")
    upright.paste("black", (0, 0, 240, 160))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(_reoriented(upright, orientation), "JPEG", quality=95, exif=exif)
    difference = decoder.tensor(data, a_scaling_spec()).pixels.astype(int) - to_tensor(upright, a_spec())
    assert np.abs(difference).max() < 40


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_the_upright_image(orientation: int, kind: str, decoder: Decoder) -> None:
    """As it would be decoded whole, whichever way it lies and however much smaller it is decoded."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(_reoriented(a_picture(size=(481, 323)), orientation), kind, exif=exif)
    assert decoder.decode(data).size == (481, 323)
    for spec in (a_spec(), a_scaling_spec()):
        assert decoder.tensor(data, spec).whole == (481, 323)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "I;16", "1"])
def test_every_mode_is_turned_upright(mode: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert decoded(encode(Image.new(mode, (6, 4)), exif=exif)).shape == (6, 4, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert decoded(encode(a_picture(size=(6, 4)), exif=exif)).shape == (4, 6, 3)


_SEGMENTS = st.lists(
    st.sampled_from(
        [
            b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x01\x00\x48\x00\x48\x00\x00",
            b"\xff\xe1\x00\x08Exif\x00\x00",
            b"\xff\xe1\x00\x06XMP ",
            b"\xff\xed\x00\x04ab",
            b"\xff\xfe\x00\x09comment",
            b"\xff\xff",
        ]
    ),
    max_size=4,
)


def _exif_of(orientation: int, order: str, tags_before: int) -> bytes:
    """EXIF as cameras write it, the orientation behind other tags."""
    tags = [(0x0100 + i, 3, 1) for i in range(tags_before)] + [(ORIENTATION, 3, orientation)]
    entries = b"".join(struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0) for tag, kind, value in tags)
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(f"{order}I", 8)
    return b"Exif\x00\x00" + head + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


@given(
    orientation=st.integers(0, 9),
    order=st.sampled_from("<>"),
    tags_before=st.integers(0, 5),
    segments=_SEGMENTS,
    where=st.integers(0, 4),
    tell=st.sampled_from(["exif", "xmp", "both"]),
)
def test_an_orientation_is_found_wherever_it_stands(
    orientation: int, order: str, tags_before: int, segments: list[bytes], where: int, tell: str
) -> None:
    """Pillow's own turning is the oracle, on the same file."""
    parts = {
        "exif": _exif_of(orientation, order, tags_before),
        "xmp": f'http://ns.adobe.com/xap/1.0/\x00<rdf tiff:Orientation="{orientation}"/>'.encode(),
    }
    told = [parts[name] for name in (("exif", "xmp") if tell == "both" else (tell,))]
    marked = [b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in told]
    plain = encode(_CORNERED, "JPEG", quality=95)
    data = plain[:2] + b"".join([*segments[:where], *marked, *segments[where:]]) + plain[2:]
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decoded(data), wanted)
    whole, scaled = (a_decoder().tensor(data, spec).pixels for spec in (a_spec(), a_scaling_spec()))
    assert np.abs(whole.astype(int) - scaled).max() < 40


@given(orientation=st.integers(0, 9), order=st.sampled_from("<>"), behind=st.booleans())
def test_an_orientation_is_found_before_and_behind_the_pixels_of_a_png(
    orientation: int, order: str, behind: bool
) -> None:
    exif = _exif_of(orientation, order, 1)[6:]
    plain = encode(_CORNERED)
    at = plain.index(b"IEND") - 4 if behind else plain.index(b"IDAT") - 4
    data = plain[:at] + png_chunk(b"eXIf", exif) + plain[at:]
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        wanted = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decoded(data), wanted)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\x00\x00",
        b"Exif\x00\x00garbage",
        b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff",
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x02\x00\x00\x00\x03abc\x00\x00\x00\x00\x00",
        # Upside down, behind a tag of a type that does not exist.
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x02\x01\x0f\x00\x63\x00\x00\x00\x01\x00\x00\x00\x00"
        b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x03\x00\x00\x00\x00\x00\x00",
    ],
)
def test_broken_exif_does_not_spoil_good_pixels(exif: bytes) -> None:
    """Any viewer shows such an image; so it is an image."""
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    plain = encode(flat("RGB", (50, 60, 70), (16, 16)), "JPEG")
    data = plain[:2] + segment + plain[2:]
    assert np.abs(decoded(data).astype(int) - (50, 60, 70)).max() <= 3


def test_orientation_samples_are_all_alike(shared: Path) -> None:
    decoder = a_decoder()
    with zipfile.ZipFile(shared / "data" / "odd-images.zip") as files:
        for group in ("Landscape", "Portrait"):
            names = [n for n in files.namelist() if n.startswith(f"exif-orientation/{group}_") and n.endswith(".jpg")]
            assert len(names) >= 8
            pictures = [
                np.asarray(decoder.decode(files.read(name)).resize((64, 64))).astype(float) for name in sorted(names)
            ]
            for picture in pictures[1:]:
                assert np.abs(picture - pictures[0]).mean() < 12
