"""Straight to the network's input."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from model_store.transforms import to_rgb, to_tensor
from service.errors import ImageError, ImageTooLarge
from service.images.decode import Decoder
from service.settings import ImageFormat
from tests.service.conftest import a_picture, encode
from tests.service.images.conftest import ALL_FORMATS, PILLOW_MAY_WARN, a_decoder, a_scaling_spec, a_spec

pytestmark = PILLOW_MAY_WARN


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_a_tensor_is_the_decoded_image_transformed(kind: ImageFormat, decoder: Decoder) -> None:
    data, spec = encode(a_picture(size=(50, 37)), kind), a_spec()
    assert np.array_equal(decoder.tensor(data, spec).pixels, to_tensor(decoder.decode(data), spec))


def test_a_tensor_goes_into_its_row_of_a_batch_and_no_other(decoder: Decoder) -> None:
    data, spec = encode(a_picture(size=(50, 37))), a_spec()
    batch = np.full((3, 16, 16, 3), 7, np.uint8)
    row = decoder.tensor(data, spec, batch[1]).pixels
    assert np.shares_memory(row, batch[1])
    assert np.array_equal(batch[1], decoder.tensor(data, spec).pixels)
    assert (batch[[0, 2]] == 7).all()


@pytest.mark.parametrize("fault", ["no image", "broken", "truncated", "too large"])
def test_a_bad_image_leaves_its_row_as_it_was(fault: str) -> None:
    good = encode(a_picture(size=(64, 64)), "JPEG")
    cuts = {"no image": b"hello", "broken": good[:40], "truncated": good[: len(good) * 2 // 3], "too large": good}
    row = np.full((16, 16, 3), 7, np.uint8)
    with pytest.raises(ImageError):
        a_decoder(max_pixels=2000 if fault == "too large" else 5000).tensor(cuts[fault], a_spec(), row)
    assert (row == 7).all()


def test_large_jpegs_are_decoded_smaller_where_the_model_says_so(decoder: Decoder) -> None:
    data, spec = encode(a_picture(size=(320, 240)), "JPEG"), a_scaling_spec()
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (40, 40))
        assert image.size == (80, 60)
        wanted = to_tensor(to_rgb(image), spec)
    assert not np.array_equal(wanted, decoder.tensor(data, a_spec()).pixels)
    assert np.array_equal(decoder.tensor(data, spec).pixels, wanted)
    assert decoder.decode(data).size == (320, 240)


def test_the_size_of_pixels(decoder: Decoder) -> None:
    assert decoder.tensor(np.zeros((30, 50, 3), np.uint8), a_spec()).whole == (50, 30)


def test_the_pixel_limit_is_of_the_whole_jpeg() -> None:
    data = encode(a_picture(size=(320, 240)), "JPEG")
    with pytest.raises(ImageTooLarge):
        a_decoder(max_pixels=320 * 240 - 1).tensor(data, a_scaling_spec())


def test_tensors_are_made_in_many_threads_at_once(decoder: Decoder) -> None:
    spec = a_spec()
    pictures = [encode(a_picture(size=(40 + i, 37)), kind) for i in range(8) for kind in ("JPEG", "PNG", "WEBP")]
    batch = np.zeros((len(pictures) * 4, 16, 16, 3), np.uint8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data, row: decoder.tensor(data, spec, row), pictures * 4, batch))
    for data, row in zip(pictures * 4, batch, strict=True):
        assert np.array_equal(row, decoder.tensor(data, spec).pixels)
