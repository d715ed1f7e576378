"""Which layers are blamed, and by what measure."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from rich.console import Console

from export.variants.gate import Logits, cpu_logits
from export.variants.half import halved
from export.variants.quantize import Calibrated, quantized
from export.variants.sensitivity import LayerHarm, layer_harms, noise
from tests.export import colours

IMAGES = list(colours.CALIBRATION.read())


@pytest.fixture(scope="module")
def fp32() -> Logits:
    return cpu_logits(colours.graph().model.SerializeToString())


def harms(calibrated: Calibrated, fp32: Logits, console: Console) -> list[LayerHarm]:
    return layer_harms(calibrated, partial(quantized, calibrated), fp32, IMAGES, console)


def test_every_layer_is_measured_and_the_worst_is_first(fp32: Logits, console: Console) -> None:
    found = harms(colours.calibrated(), fp32, console)
    assert {harm.layer for harm in found} == set(colours.calibrated().layers)
    assert [harm.noise for harm in found] == sorted((harm.noise for harm in found), reverse=True)
    assert 0 < found[0].noise < 0.05


@pytest.mark.parametrize("layer", ["layer1.0.conv1", "layer2.0.conv1"])
def test_a_spoilt_layer_is_found(fp32: Logits, console: Console, layer: str) -> None:
    """Its output is spoilt, and that is the input of the next one."""
    found = harms(colours.shrunken(colours.calibrated(), layer), fp32, console)
    assert {harm.layer.name for harm in found[:2]} == {layer, layer.replace("conv1", "conv2")}
    assert found[1].noise > 10 * found[2].noise
    assert found[0].changed > 0.3
    assert found[2].changed < 0.3


def test_fp16_does_less_harm_than_int8(fp32: Logits, console: Console) -> None:
    calibrated = colours.calibrated()
    half = layer_harms(calibrated, partial(halved, calibrated), fp32, IMAGES, console)
    assert len(half) == len(calibrated.layers)
    assert half[0].noise < harms(calibrated, fp32, console)[0].noise / 100


def test_noise_is_relative_to_the_logits_variance() -> None:
    expected = np.array([[0, 2], [4, 6]], np.float32)
    assert noise(expected, expected) == 0
    assert noise(expected, expected + 1) == pytest.approx(1 / 5)
    assert noise(10 * expected, 10 * expected + 10) == pytest.approx(1 / 5)
    assert noise(np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)) > 1e9


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_the_worst(bad: float) -> None:
    assert noise(np.ones((1, 2), np.float32), np.array([[1, bad]], np.float32)) == float("inf")
