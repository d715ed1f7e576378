from __future__ import annotations

from typing import get_args

import matplotlib
import numpy as np
import pytest

from service.inference.colormaps import ColorMap, table


@pytest.mark.parametrize("name", [name for name in get_args(ColorMap) if name != "grey"])
def test_the_colours_are_those_of_the_table_they_were_taken_from(name: ColorMap) -> None:
    original = matplotlib.colormaps[name](np.arange(256))[:, :3] * 255
    assert np.abs(table(name, 256) - original).max() <= 3


def test_grey_is_the_level() -> None:
    assert np.array_equal(table("grey", 256), np.repeat(np.arange(256)[:, np.newaxis], 3, axis=1))


@pytest.mark.parametrize("name", ["inferno", "viridis", "grey"])
def test_higher_is_lighter(name: ColorMap) -> None:
    luminance = table(name, 32) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).all()


@pytest.mark.parametrize("name", get_args(ColorMap))
def test_a_colour_for_each_level(name: ColorMap) -> None:
    colours = table(name, 255)
    assert (colours.shape, colours.dtype) == ((255, 3), np.uint8)
    assert len(np.unique(colours, axis=0)) > 250
