"""Hugging Face's image processors: the same pixels as theirs, and one line for what cannot be followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from export.checkpoints.preprocessor_configs import Preprocessor, preprocessor_options
from export.errors import ExportError
from export.preprocessing import InputOptions, decide, normalised, usual_input
from model_store.manifest import Preprocessing
from model_store.transforms import to_tensor
from tests.export.origin_files import CONVNEXT

USUAL = usual_input(224, whole=False)
NORMALISED: dict[str, Any] = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3], "resample": 2}


def followed(**fields: Any) -> Preprocessing:
    config = Preprocessor.model_validate(fields)
    return decide(InputOptions(), preprocessor_options(config, "x.json"), USUAL)


CONFIGS = {
    "convnext": dict(CONVNEXT),
    "convnext, large": {**CONVNEXT, "size": {"shortest_edge": 384}},
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, **NORMALISED},
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        **NORMALISED,
    },
    "bit": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 32},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        **NORMALISED,
    },
    "deit": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 40, "width": 40},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        **NORMALISED,
    },
    "rescaled otherwise": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "rescale_factor": 2 / 255,
        **NORMALISED,
    },
    "not rescaled": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "do_rescale": False,
        **NORMALISED,
        "image_mean": [100.0, 110.0, 120.0],
        "image_std": [50.0, 51.0, 52.0],
    },
    "not normalised": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "do_normalize": False,
        "resample": 2,
    },
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shape", [(90, 60), (50, 70)])
def test_pixels_are_those_of_transformers(name: str, shape: tuple[int, int]) -> None:
    import transformers

    fields = CONFIGS[name]
    processor = getattr(transformers, fields["image_processor_type"])(
        **{key: value for key, value in fields.items() if key != "image_processor_type"}
    )
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(shape, Image.Resampling.BICUBIC)
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    spec = followed(**fields)
    found = torch.from_numpy(normalised(to_tensor(image, spec)[None], spec)[0])
    assert found.shape == expected.shape
    # In grey levels; they resize tensors, we images, and each rounds on the way.
    levels = torch.tensor(spec.std).view(3, 1, 1) * 255
    assert float(((found - expected).abs() * levels).max()) <= 3.01


def test_file_of_the_published_resnets() -> None:
    """https://huggingface.co/microsoft/resnet-50/blob/main/preprocessor_config.json, of an older release."""
    spec = followed(
        crop_pct=0.875,
        do_normalize=True,
        do_resize=True,
        feature_extractor_type="ConvNextFeatureExtractor",
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        resample=3,
        size=224,
    )
    assert (spec.height, spec.resize, spec.interpolation, spec.resize_mode) == (224, 256, "bicubic", "shorter")
    assert spec.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("kind", "size", "mode"),
    [
        ("ViTFeatureExtractor", 32, "squash"),
        ("ViTImageProcessorFast", 32, "squash"),
        ("CLIPImageProcessor", 40, "shorter"),
    ],
)
def test_bare_numbers_of_older_files(kind: str, size: int, mode: str) -> None:
    crop = {"do_center_crop": True, "crop_size": 32} if mode == "shorter" else {}
    spec = followed(image_processor_type=kind, size=size, **crop, **NORMALISED)
    assert (spec.height, spec.resize, spec.resize_mode) == (32, size, mode)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_processor_type": "SamImageProcessor"}, "SamImageProcessor is not known"),
        ({"do_resize": False}, "do_resize is false"),
        ({"resample": 4}, "resample 4 is none of"),
        ({"image_mean": None}, "image_mean and image_std are missing"),
        ({"size": {"height": 32, "width": 32}}, r"size\.shortest_edge"),
        ({"do_center_crop": True}, "no do_center_crop"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 48}}, "size is no square"),
        ({"image_processor_type": "CLIPImageProcessor"}, "without do_center_crop"),
        ({"image_processor_type": "CLIPImageProcessor", "size": {"longest_edge": 9}}, "longest_edge"),
        ({"image_processor_type": "CLIPImageProcessor", "do_center_crop": True}, "crop_size is no square"),
    ],
)
def test_what_cannot_be_followed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        followed(**{**CONVNEXT, **change})
    assert str(caught.value).startswith("x.json: ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(changes=st.dictionaries(st.sampled_from(sorted(Preprocessor.model_fields)), JSON, min_size=1, max_size=3))
def test_any_file_gives_preprocessing_or_one_error(changes: dict[str, Any]) -> None:
    try:
        spec = followed(**{**CONVNEXT, **changes})
    except (ExportError, ValidationError):
        return
    assert spec.resize >= spec.height > 0
    assert min(spec.std) > 0
