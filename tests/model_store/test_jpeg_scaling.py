"""Large JPEGs are decoded smaller, where the model says so, and come out nearly as the whole ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model_store.transforms import crop_box, load_view, scale_jpeg, to_rgb, to_tensor, view_tensor

from .pictures import a_spec, saved, scaling, smooth, squashed


@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    crop=st.integers(1, 40),
    extra=st.integers(0, 10),
    margin=st.floats(1, 8),
    squash=st.booleans(),
)
def test_a_scaled_jpeg_keeps_its_margin_and_no_more_is_decoded_than_needed(
    width: int, height: int, crop: int, extra: int, margin: float, squash: bool
) -> None:
    spec = scaling(squashed(crop, crop, crop + extra) if squash else a_spec(crop + extra, crop, crop), margin)
    image = saved(Image.new("RGB", (width, height)))
    needed = margin * (crop + extra)
    scale = next(s for s in (8, 4, 2, 1) if s == 1 or min(width, height) >= s * math.ceil(needed))
    view = load_view(image, spec)
    assert view.image.size == (math.ceil(width / scale), math.ceil(height / scale))
    assert scale == 1 or min(view.image.size) >= needed
    assert tuple(side * scale for side in view.box) == pytest.approx(crop_box(width, height, spec))
    assert view_tensor(view, spec).shape == (spec.height, spec.width, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_only_jpegs_are_scaled(kind: str) -> None:
    image = saved(smooth(400, 400), kind)
    assert scale_jpeg(image, scaling(a_spec(16, 16, 16), 1)) == 1
    assert image.size == (400, 400)


def test_nothing_is_scaled_unless_the_model_says_so() -> None:
    image = saved(smooth(400, 400))
    assert scale_jpeg(image, a_spec(16, 16, 16)) == 1
    assert image.size == (400, 400)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_scaled_jpeg_is_nearly_the_whole_one(mode: str, options: dict[str, object]) -> None:
    spec = a_spec(32, 28, 28)
    picture = smooth(401, 300).convert(mode)
    whole, small = (saved(picture, quality=95, **options) for _ in range(2))
    view = load_view(small, scaling(spec, 2))
    assert view.image.size == (101, 75)
    difference = np.abs(view_tensor(view, spec).astype(int) - to_tensor(to_rgb(whole), spec))
    assert difference.mean() < 1.5


def test_a_jpeg_of_several_pictures_is_scaled_too() -> None:
    image = saved(smooth(400, 300), "MPO", save_all=True, append_images=[smooth(400, 300, 1)])
    assert image.format == "MPO"
    assert scale_jpeg(image, scaling(a_spec(32, 28, 28), 2)) == 4
    assert to_rgb(image).size == (100, 75)
