"""Decoders of every format, and what they make of an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from model_store.manifest import Preprocessing
from service.images.decode import Decoder
from service.settings import DecodeSettings, ImageFormat
from tests.model_store.pictures import scaling

ALL_FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)

# Filters set at import do not hold within pytest; that Pillow is kept quiet is tested in a process of its own.
PILLOW_MAY_WARN = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def a_decoder(formats: tuple[ImageFormat, ...] = ALL_FORMATS, **limits: Any) -> Decoder:
    return Decoder(DecodeSettings(image_formats=formats, **limits))


@pytest.fixture
def decoder() -> Decoder:
    return a_decoder()


@pytest.fixture(autouse=True)
def _keep_pillows_limit() -> Iterator[None]:
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit


def decoded(data: bytes, decoder: Decoder | None = None) -> np.ndarray:
    image = (decoder or a_decoder()).decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def pixel(data: bytes) -> tuple[int, ...]:
    """The top left pixel, decoded."""
    return tuple(decoded(data)[0, 0].tolist())


def flat(mode: str, colour: Any, size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new(mode, size, colour)


def a_spec(side: int = 16, resize: int = 20) -> Preprocessing:
    return Preprocessing(height=side, width=side, resize=resize, mean=(0, 0, 0), std=(1, 1, 1))


def a_scaling_spec(side: int = 16, resize: int = 20) -> Preprocessing:
    """As ``a_spec``, with JPEGs decoded smaller."""
    return scaling(a_spec(side, resize), 2)
