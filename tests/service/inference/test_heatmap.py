from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from model_store.transforms import Box, crop_box
from service.inference.colormaps import table
from service.inference.heatmap import Heatmap, draw, overlay, png
from tests.service.conftest import a_picture, a_spec

_GRIDS = npst.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-9, 9, width=32))


def a_heatmap(grid: object, size: tuple[int, int] = (60, 40), box: Box = (10.0, 0.0, 50.0, 40.0)) -> Heatmap:
    return Heatmap("ship", 8, 4.5, np.array(grid, np.float32), box, size)


def pixels(image: Image.Image, mode: str = "RGBA") -> npt.NDArray[np.uint8]:
    return np.asarray(image.convert(mode))


# As numbers


@given(_GRIDS)
def test_the_mean_and_the_bias_are_the_logit(grid: npt.NDArray[np.float32]) -> None:
    heatmap = a_heatmap(grid)
    assert grid.mean(dtype=np.float64) + heatmap.bias == pytest.approx(4.5)


def test_as_json() -> None:
    heatmap = a_heatmap([[1, 2, 3], [4, 5, 6]])
    content = heatmap.as_json()
    assert np.array_equal(content.pop("grid"), heatmap.grid)
    assert content == {
        "label": "ship",
        "index": 8,
        "logit": 4.5,
        "bias": 1.0,
        "height": 2,
        "width": 3,
        "box": (10.0, 0.0, 50.0, 40.0),
        "image": {"width": 60, "height": 40},
    }


# As a picture


def test_lowest_and_highest_have_the_ends_of_the_colour_map() -> None:
    picture = pixels(draw(a_heatmap([[-3, 5]]), "viridis"))
    first, last = (table("viridis", 256)[level].tolist() for level in (0, 255))
    assert picture[20, 10].tolist() == [*first, 255]
    assert picture[20, 49].tolist() == [*last, 255]


def test_only_what_the_network_saw_is_coloured() -> None:
    picture = draw(a_heatmap([[1, 2], [3, 4]]), "inferno")
    assert picture.size == (60, 40)
    seen = pixels(picture)[..., 3] == 255
    assert seen[:, 10:50].all()
    assert seen.sum() == 40 * 40


def test_between_the_cells_centres_it_is_linear() -> None:
    """Bilinear interpolation, the grid's cells laid evenly over the box, as numpy computes it."""
    grid = np.random.default_rng(0).normal(size=(3, 4))
    heatmap = a_heatmap(grid, size=(80, 60), box=(0.0, 0.0, 80.0, 60.0))
    levels = (grid - grid.min()) / np.ptp(grid)
    columns, rows = ((np.arange(n) + 0.5) * cells / n - 0.5 for n, cells in ((80, 4), (60, 3)))
    wide = np.stack([np.interp(columns, np.arange(4), row) for row in levels])
    expected = np.stack([np.interp(rows, np.arange(3), column) for column in wide.T], axis=1)
    found = pixels(draw(heatmap, "grey"))[..., 0]
    assert np.abs(found - 255 * expected).max() < 2


def test_a_map_of_one_value_has_the_lowest_colour() -> None:
    picture = pixels(draw(a_heatmap(np.full((2, 2), 7.0)), "grey"))
    assert picture[5, 20].tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize("opacity", [0.0, 0.3, 1.0])
def test_an_overlay_is_blended_where_the_network_saw(opacity: float) -> None:
    image = a_picture(size=(60, 40))
    heatmap = a_heatmap([[1, 2], [3, 4]])
    before, colours = pixels(image, "RGB").astype(float), pixels(draw(heatmap, "turbo"), "RGB").astype(float)
    found = pixels(overlay(image, heatmap, "turbo", opacity), "RGB")
    expected = before.copy()
    expected[:, 10:50] = (1 - opacity) * before[:, 10:50] + opacity * colours[:, 10:50]
    assert np.abs(found - expected).max() <= 1
    assert np.array_equal(found[:, :10], before[:, :10])
    assert np.array_equal(found[:, 50:], before[:, 50:])


@given(
    width=st.integers(1, 50),
    height=st.integers(1, 50),
    crop=st.integers(1, 20),
    extra=st.integers(0, 20),
    grid=_GRIDS,
)
def test_any_image_and_crop(width: int, height: int, crop: int, extra: int, grid: npt.NDArray[np.float32]) -> None:
    box = crop_box(width, height, a_spec(height=crop, width=crop, resize=crop + extra))
    heatmap = a_heatmap(grid, (width, height), box)
    seen = pixels(draw(heatmap, "viridis"))[..., 3] == 255
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    assert seen.sum() == len(rows) * len(columns) >= 1
    for found, begin, end in ((columns, box[0], box[2]), (rows, box[1], box[3])):
        assert abs(found[0] - begin) <= 1
        assert abs(found[-1] + 1 - end) <= 1
    assert overlay(a_picture(size=(width, height)), heatmap, "viridis", 0.5).size == (width, height)


def test_a_png_is_the_picture() -> None:
    drawn = draw(a_heatmap([[1, 2], [3, 4]]), "inferno")
    with Image.open(io.BytesIO(png(drawn))) as opened:
        assert opened.format == "PNG"
        assert np.array_equal(pixels(opened), pixels(drawn))
