"""Images become the network's input as torchvision would make it, but for rounding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_store.manifest import Preprocessing
from model_store.transforms import crop_box, to_rgb, to_tensor

from .pictures import a_spec, noise, smooth, squashed

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resized_size(width: int, height: int, resize: int) -> tuple[int, int]:
    """torchvision's ``Resize(resize)``: the shorter side becomes ``resize``, the longer is rounded down."""
    short, long = sorted((width, height))
    new_long = int(resize * long / short)
    return (resize, new_long) if width <= height else (new_long, resize)


def reference(image: Image.Image, spec: Preprocessing) -> npt.NDArray[np.uint8]:
    """torchvision's ``Resize`` and ``CenterCrop`` in the plainest way."""
    width, height = resized_size(*image.size, spec.resize)
    resized = image.resize((width, height), FILTERS[spec.interpolation])
    left, upper = round((width - spec.width) / 2.0), round((height - spec.height) / 2.0)
    return np.asarray(resized.crop((left, upper, left + spec.width, upper + spec.height)))


SIDES = st.integers(1, 120)


@given(width=SIDES, height=SIDES, crop=st.integers(1, 48), extra=st.integers(0, 24), seed=st.integers(0, 99))
def test_tensor_is_torchvisions_but_for_rounding(width: int, height: int, crop: int, extra: int, seed: int) -> None:
    """Pillow resamples in two passes and rounds after each: a level apart, rarely two."""
    spec = a_spec(crop + extra, crop, crop)
    image = noise(width, height, seed)
    tensor = to_tensor(image, spec)
    assert tensor.shape == (crop, crop, 3)
    assert tensor.dtype == np.uint8
    difference = np.abs(tensor.astype(int) - reference(image, spec))
    assert difference.max() <= 2
    assert difference.mean() <= 0.5


@given(width=SIDES, height=SIDES, crop=st.integers(1, 48), extra=st.integers(0, 24), seed=st.integers(0, 99))
@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos"])
def test_kernels_that_overshoot_are_close_too(
    interpolation: str, width: int, height: int, crop: int, extra: int, seed: int
) -> None:
    """Between the passes Pillow also clips to 0..255, so only smooth images come out the same."""
    spec = a_spec(crop + extra, crop, crop, interpolation)
    image = smooth(width, height, seed)
    assert np.abs(to_tensor(image, spec).astype(int) - reference(image, spec)).max() <= 4


@given(width=st.integers(8, 60), height=st.integers(8, 60), crop=st.integers(1, 30), extra=st.integers(0, 10))
def test_nearest_takes_pixels_of_the_image(width: int, height: int, crop: int, extra: int) -> None:
    """Roundings at pixel borders may pick the neighbour, so the reference is compared on a smooth image."""
    image = smooth(width, height)
    spec = a_spec(crop + extra, crop, crop, "nearest")
    tensor = to_tensor(image, spec)
    colours = {tuple(colour) for colour in np.asarray(image).reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in tensor.reshape(-1, 3).tolist()} <= colours


@given(
    short=st.integers(1, 2000),
    long=st.integers(1, 6000),
    upright=st.booleans(),
    resize=st.integers(1, 600),
    data=st.data(),
)
@settings(max_examples=300)
def test_crop_box_is_torchvisions(short: int, long: int, upright: bool, resize: int, data: st.DataObject) -> None:
    short, long = sorted((short, long))
    width, height = (short, long) if upright else (long, short)
    crop_height, crop_width = data.draw(st.integers(1, resize)), data.draw(st.integers(1, resize))
    box = crop_box(width, height, a_spec(resize, crop_height, crop_width))
    new_width, new_height = resized_size(width, height, resize)
    left, upper = round((new_width - crop_width) / 2.0), round((new_height - crop_height) / 2.0)
    wanted = (
        left * width / new_width,
        upper * height / new_height,
        (left + crop_width) * width / new_width,
        (upper + crop_height) * height / new_height,
    )
    assert box == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert 0 <= box[0] < box[2] <= width
    assert 0 <= box[1] < box[3] <= height


def test_crop_box_rounds_the_longer_side_as_torchvision_does() -> None:
    """int(29 * 98 / 49) is 58, but int(98 * (29 / 49)) would be 57."""
    wrong = []
    for resize in (29, 32, 224, 232, 256):
        for short in range(1, 400):
            for times in (2, 3):
                new_long = resize * times  # exact
                left, _, right, _ = crop_box(short * times, short, a_spec(resize, 1, 1))
                if right - left != pytest.approx(short * times / new_long):
                    wrong.append((resize, short * times, short))
    assert not wrong, f"{len(wrong)} sizes, the first: resize {wrong[0][0]} of {wrong[0][1]}x{wrong[0][2]}"


@given(width=SIDES, height=SIDES, resize=st.integers(1, 40), crop=st.integers(1, 80))
def test_a_crop_larger_than_the_image_is_clamped(width: int, height: int, resize: int, crop: int) -> None:
    spec = a_spec(resize, crop, crop)
    left, upper, right, lower = crop_box(width, height, spec)
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height
    assert to_tensor(noise(width, height), spec).shape == (crop, crop, 3)


def test_a_rectangular_crop() -> None:
    spec = a_spec(40, 20, 32)
    image = noise(100, 60)
    assert to_tensor(image, spec).shape == (20, 32, 3)
    assert np.abs(to_tensor(image, spec).astype(int) - reference(image, spec)).max() <= 1


@given(width=SIDES, height=SIDES, crop_width=st.integers(1, 48), crop_height=st.integers(1, 48), seed=st.integers(0, 9))
def test_squash_takes_the_whole_image(width: int, height: int, crop_width: int, crop_height: int, seed: int) -> None:
    spec = squashed(min(crop_width, crop_height), crop_height, crop_width)
    image = noise(width, height, seed)
    assert crop_box(width, height, spec) == (0, 0, width, height)
    assert np.array_equal(
        to_tensor(image, spec), np.asarray(image.resize((crop_width, crop_height), FILTERS["bilinear"]))
    )


@given(width=SIDES, height=SIDES, crop=st.integers(1, 48), extra=st.integers(0, 24), seed=st.integers(0, 9))
def test_squash_and_cut(width: int, height: int, crop: int, extra: int, seed: int) -> None:
    """timm's squash with a crop below 1: both sides to ``resize``, then the centre."""
    image = noise(width, height, seed)
    tensor = to_tensor(image, squashed(crop + extra, crop, crop))
    start = round(extra / 2)
    whole = image.resize((crop + extra, crop + extra), FILTERS["bilinear"])
    expected = np.asarray(whole.crop((start, start, start + crop, start + crop)))
    assert np.abs(tensor.astype(int) - expected).max() <= 2


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    image = noise(32, 32)
    assert np.array_equal(to_tensor(image, a_spec(32, 32, 32, "lanczos")), np.asarray(image))


def test_extreme_shapes() -> None:
    for size in ((1, 20_000), (20_000, 1), (1, 1), (2, 50_000)):
        assert to_tensor(noise(*size), a_spec(32, 32, 32)).shape == (32, 32, 3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_only_rgb_is_taken(mode: str) -> None:
    with pytest.raises(ValueError, match=mode):
        to_tensor(Image.new(mode, (4, 4)), a_spec(4, 4, 4))


@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]),
    width=st.integers(1, 6),
    height=st.integers(1, 6),
)
def test_to_rgb_takes_every_mode(mode: str, width: int, height: int) -> None:
    result = to_rgb(Image.new(mode, (width, height)))
    assert (result.mode, result.size) == ("RGB", (width, height))


@given(value=st.integers(0, 65535))
@pytest.mark.parametrize("mode", ["I", "I;16", "I;16L", "I;16B"])
def test_sixteen_bit_greys_keep_their_upper_bits(mode: str, value: int) -> None:
    if mode == "I":
        image = Image.new("I", (1, 1), value)
    else:
        image = Image.frombytes(mode, (1, 1), value.to_bytes(2, "big" if mode.endswith("B") else "little"))
    result = np.asarray(to_rgb(image))
    assert int(result[0, 0, 0]) == value >> 8
    assert len(set(result[0, 0].tolist())) == 1


@given(value=st.floats(width=32))
def test_float_greys_are_of_0_to_1(value: float) -> None:
    image = Image.fromarray(np.full((1, 1), value, np.float32))
    (red, green, blue) = np.asarray(to_rgb(image))[0, 0].tolist()
    assert red == green == blue
    wanted = 0 if np.isnan(value) else min(max(value, 0.0), 1.0) * 255
    assert abs(red - wanted) <= 0.5001


def test_to_rgb_leaves_the_given_image_alone() -> None:
    image = Image.new("RGBA", (2, 2), (1, 2, 3, 0))
    to_rgb(image)
    assert image.mode == "RGBA"
    assert image.getpixel((0, 0)) == (1, 2, 3, 0)


@pytest.mark.parametrize("size", [(60, 45), (16, 16)], ids=["resized", "as it is"])
def test_a_tensor_can_go_into_a_given_array(size: tuple[int, int]) -> None:
    spec, image = a_spec(16, 16, 16), noise(*size)
    batch = np.zeros((2, 16, 16, 3), np.uint8)
    found = to_tensor(image, spec, batch[1])
    assert np.shares_memory(found, batch[1])
    assert np.array_equal(batch[1], to_tensor(image, spec))
    assert not batch[0].any()
    strided = np.zeros((16, 32, 3), np.uint8)[:, ::2]
    assert np.array_equal(to_tensor(image, spec, strided), batch[1])
    assert np.array_equal(strided, batch[1])


@pytest.mark.parametrize(
    "out", [np.zeros((1, 16, 16, 3), np.uint8), np.zeros((16, 16, 1), np.uint8), np.zeros((16, 16, 3), np.float32)]
)
def test_an_array_of_another_shape_or_type_is_refused(out: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="not uint8"):
        to_tensor(noise(60, 45), a_spec(16, 16, 16), out)
    assert not out.any()
