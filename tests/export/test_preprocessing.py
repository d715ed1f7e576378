"""Who decides about the preprocessing, and that every way of saying it means the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from export.errors import ExportError
from export.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    InputOptions,
    decide,
    in_words,
    normalised,
    usual_input,
)
from model_store.manifest import Preprocessing
from model_store.transforms import to_tensor

IMAGENET = usual_input(224, whole=False)
CIFAR = usual_input(32, whole=True)
SILENT = InputOptions()
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


@pytest.mark.parametrize(("size", "resize"), [(None, 256), (224, 256), (448, 512), (96, 109)])
def test_imagenet_networks_are_cropped_as_in_torchvision(size: int | None, resize: int) -> None:
    spec = decide(InputOptions(size=size), SILENT, IMAGENET)
    assert (spec.height, spec.width, spec.resize) == (size or 224, size or 224, resize)
    assert (spec.mean, spec.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (spec.interpolation, spec.resize_mode, spec.channel_order) == ("bilinear", "shorter", "rgb")


@pytest.mark.parametrize("size", [None, 32, 48])
def test_cifar_networks_take_the_whole_image(size: int | None) -> None:
    spec = decide(InputOptions(size=size), SILENT, CIFAR)
    assert spec.height == spec.resize == (size or 32)


def test_command_goes_before_origin_before_habit() -> None:
    origin = InputOptions(size=288, resize=320, interpolation="bicubic", mean=MEAN)
    spec = decide(InputOptions(std=STD), origin, IMAGENET)
    assert (spec.height, spec.resize, spec.interpolation, spec.mean, spec.std) == (288, 320, "bicubic", MEAN, STD)
    spec = decide(InputOptions(size=144, interpolation="nearest", mean=STD), origin, IMAGENET)
    assert (spec.height, spec.resize, spec.interpolation, spec.mean) == (144, 160, "nearest", STD)


@pytest.mark.parametrize(("size", "crop"), [(224, 0.875), (288, 0.95), (224, 1.0), (299, 0.9), (96, 0.7), (176, 0.96)])
def test_crop_is_timms(size: int, crop: float) -> None:
    transform = timm.data.create_transform(input_size=(3, size, size), crop_pct=crop, interpolation="bicubic")
    resize, centre = transform.transforms[:2]
    spec = decide(SILENT, InputOptions(size=size, crop=crop), IMAGENET)
    assert (spec.resize, spec.height) == (resize.size, centre.size[0])


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("crop", [1.0, 0.8])
def test_pixels_are_timms(mode: str, crop: float) -> None:
    transform = timm.data.create_transform(
        input_size=(3, 32, 32), crop_pct=crop, crop_mode=mode, interpolation="bilinear", mean=MEAN, std=STD
    )
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((90, 60), Image.Resampling.BICUBIC)
    options = InputOptions(
        size=32, crop=crop, resize_mode="squash" if mode == "squash" else "shorter", mean=MEAN, std=STD
    )
    spec = decide(SILENT, options, IMAGENET)
    found = normalised(to_tensor(image, spec)[None], spec)[0]
    expected = transform(image)
    levels = torch.tensor(STD).view(3, 1, 1) * 255  # what one grey level is there
    assert float(((torch.from_numpy(found) - expected).abs() * levels).max()) <= 2.01


def test_squash_alone_is_the_whole_image() -> None:
    assert decide(InputOptions(resize_mode="squash"), SILENT, IMAGENET).resize == 224
    assert decide(InputOptions(resize_mode="squash", resize=256), SILENT, IMAGENET).resize == 256
    assert decide(SILENT, InputOptions(size=160, resize_mode="squash"), IMAGENET).resize == 160


NUMBERS = st.floats(-300, 300)
RANGES = st.tuples(NUMBERS, NUMBERS).filter(lambda pair: pair[1] - pair[0] > 1e-3)


@given(
    bounds=RANGES,
    mean=st.tuples(NUMBERS, NUMBERS, NUMBERS),
    std=st.tuples(*[st.floats(1e-2, 300)] * 3),
    value=st.floats(0, 1),
)
def test_value_range_is_folded_into_mean_and_std(
    bounds: tuple[float, float], mean: tuple[float, float, float], std: tuple[float, float, float], value: float
) -> None:
    low, high = bounds
    spec = decide(InputOptions(mean=mean, std=std, value_range=bounds), SILENT, IMAGENET)
    for m, s, folded_m, folded_s in zip(mean, std, spec.mean, spec.std, strict=True):
        expected = (low + (high - low) * value - m) / s
        # The cancellation in (value - mean) is relative to what is subtracted.
        scale = (abs(m) + abs(low) + abs(high)) / s + 1
        assert math.isclose((value - folded_m) / folded_s, expected, abs_tol=1e-9 * scale * (1 + 1 / (high - low)))


def test_value_range_alone_changes_nothing_else() -> None:
    spec = decide(InputOptions(value_range=(-1.0, 1.0)), SILENT, IMAGENET)
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    spec = decide(InputOptions(value_range=(0.0, 255.0)), SILENT, IMAGENET)
    assert spec.mean == (0.0, 0.0, 0.0)
    assert spec.std == pytest.approx((1 / 255,) * 3)


def test_caffes_means_of_blue_green_and_red() -> None:
    means = (103.939, 116.779, 123.68)
    options = InputOptions(mean=means, std=(1.0, 1.0, 1.0), value_range=(0.0, 255.0), channel_order="bgr")
    spec = decide(options, SILENT, IMAGENET)
    pixels = np.array([[[[10, 20, 30]]]], np.uint8)
    expected = [30 - means[0], 20 - means[1], 10 - means[2]]
    assert normalised(pixels, spec).reshape(-1).tolist() == pytest.approx(expected, rel=1e-5)


def test_other_sides_numbers_follow_the_order() -> None:
    """ImageNet's mean of red stays that of red."""
    spec = decide(InputOptions(channel_order="bgr"), SILENT, IMAGENET)
    assert (spec.mean, spec.std) == (IMAGENET_MEAN[::-1], IMAGENET_STD[::-1])
    spec = decide(InputOptions(mean=MEAN), InputOptions(channel_order="bgr", std=STD), IMAGENET)
    assert (spec.mean, spec.std) == (MEAN, STD)
    spec = decide(InputOptions(channel_order="rgb"), InputOptions(channel_order="bgr", std=STD), IMAGENET)
    assert (spec.mean, spec.std) == (IMAGENET_MEAN, STD[::-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (InputOptions(size=32, resize=16), "--resize 16 is less than --size 32"),
        (InputOptions(std=(0.0, 1.0, 1.0)), "--std"),
        (InputOptions(mean=(float("nan"), 1.0, 1.0)), "--mean"),
        (InputOptions(crop=0.0), "no share"),
        (InputOptions(crop=1.5), "no share"),
        (InputOptions(size=4000, crop=0.01), "--resize"),
        (InputOptions(value_range=(1.0, 1.0)), "value range 1 1"),
        (InputOptions(value_range=(1.0, -1.0)), "value range"),
        (InputOptions(value_range=(0.0, float("inf"))), "value range"),
        (InputOptions(value_range=(float("nan"), 1.0)), "value range"),
    ],
)
def test_what_makes_no_sense(options: InputOptions, message: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        decide(options, SILENT, IMAGENET)
    assert "\n" not in str(caught.value)


def test_what_was_decided_can_be_said_again() -> None:
    spec = decide(InputOptions(size=96, resize_mode="squash", channel_order="bgr", mean=MEAN), SILENT, IMAGENET)
    assert decide(SILENT, InputOptions.of(spec), IMAGENET) == spec


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SILENT, "224x224, the centre, shorter side 256, bilinear, mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225"),
        (InputOptions(resize_mode="squash"), "224x224, the whole image, proportions not kept, bilinear, mean"),
        (InputOptions(resize_mode="squash", resize=256), "the centre of 256, proportions not kept"),
        (InputOptions(channel_order="bgr"), "bilinear, BGR, mean 0.406"),
    ],
)
def test_in_words(options: InputOptions, words: str) -> None:
    assert words in in_words(decide(options, SILENT, IMAGENET))


def test_normalised_is_what_pytorch_makes_of_it() -> None:
    spec = Preprocessing(height=4, width=4, resize=4, mean=MEAN, std=STD)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    expected = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    np.testing.assert_allclose(normalised(pixels, spec), expected.numpy(), rtol=1e-6, atol=1e-6)
