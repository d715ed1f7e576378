"""Images that Exif asks to be turned are turned after the resize, which comes to the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model_store.transforms import load_view, to_rgb, to_tensor, view_tensor

from .pictures import a_spec, noise, saved, scaling, smooth


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """``image`` as a file that asks to be turned, opened again."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, "PNG", exif=exif)


@given(
    orientation=st.integers(1, 8),
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    crop=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    extra=st.integers(0, 10),
    squash=st.booleans(),
    seed=st.integers(0, 99),
)
def test_turning_the_small_image_is_as_good_as_turning_the_whole(
    orientation: int,
    width: int,
    height: int,
    crop: tuple[int, int],
    extra: int,
    squash: bool,
    seed: int,
) -> None:
    spec = a_spec(max(crop) + extra, *crop)
    if squash:
        spec = spec.model_copy(update={"resize_mode": "squash"})
    image = turned(smooth(width, height, seed), orientation)
    found = view_tensor(load_view(image, spec), spec)
    assert found.shape == (*crop, 3)
    assert np.abs(found.astype(int) - to_tensor(to_rgb(image), spec)).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("interpolation", ["nearest", "bicubic", "lanczos"])
def test_other_kernels_see_the_same_part_of_a_turned_image(interpolation: str, orientation: int) -> None:
    """They need not give the same pixels: they clip between rows and columns, or take one of two as near."""
    spec, image = a_spec(60, 50, 40, interpolation), turned(smooth(150, 110), orientation)
    difference = np.abs(view_tensor(load_view(image, spec), spec).astype(int) - to_tensor(to_rgb(image), spec))
    assert difference.mean() < 0.2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_of_the_right_size_is_only_turned(orientation: int) -> None:
    spec, image = a_spec(16, 16, 16), turned(noise(16, 16), orientation)
    assert np.array_equal(view_tensor(load_view(image, spec), spec), np.asarray(to_rgb(image)))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_of_every_format_are_turned(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture, spec = smooth(61, 43), a_spec(20, 12, 18)
    views = [saved(picture, kind, exif=exif) for _ in range(2)]
    difference = view_tensor(load_view(views[0], spec), spec).astype(int) - to_tensor(to_rgb(views[1]), spec)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_scaled_jpegs_are_turned_about_the_whole_images_centre(orientation: int) -> None:
    """No scale divides 401 and 303, so the smaller image has a last row and column that are not whole pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    spec = a_spec(34, 28, 30)
    small, whole = (saved(smooth(401, 303), exif=exif, quality=95) for _ in range(2))
    view = load_view(small, scaling(spec, 2))
    assert view.image.size == (101, 76)
    difference = np.abs(view_tensor(view, spec).astype(int) - to_tensor(to_rgb(whole), spec))
    assert difference.mean() < 1.5
