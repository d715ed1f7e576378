"""Preprocessing as Hugging Face's image processors keep it, in ``preprocessor_config.json``.

Two ways of cutting are known. ConvNeXT's, which the published ResNets have
(transformers, ``image_processing_convnext.py``): below 384 pixels the shorter side
becomes ``size / crop_pct`` and the centre is cut, from there on the whole image is
squashed. And the plain one of the other classifiers: resize, then an optional cut.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from export.errors import ExportError
from export.preprocessing import InputOptions
from model_store.manifest import Interpolation, Triple

PREPROCESSOR_FILE: Final = "preprocessor_config.json"
_CONVNEXT: Final = "ConvNextImageProcessor"
# With a bare number for ``size``, as old files have it: whether that is both sides, or the shorter one.
_PLAIN: Final = {"ViTImageProcessor": True, "DeiTImageProcessor": True} | dict.fromkeys(
    ("CLIPImageProcessor", "BitImageProcessor"), False
)
# PIL.Image.Resampling; 4 (box) and 5 (hamming) are not offered.
_RESAMPLE: Final[dict[int, Interpolation]] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_WHOLE_FROM: Final = 384

_Pixels = Annotated[int, Field(gt=0, le=8192)]
_Positive = Annotated[FiniteFloat, Field(gt=0)]
_Mean = Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]
_Std = Annotated[list[_Positive], Field(min_length=3, max_length=3)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Size(_Part):
    height: _Pixels | None = None
    width: _Pixels | None = None
    shortest_edge: _Pixels | None = None
    longest_edge: _Pixels | None = None


class Preprocessor(_Part):
    """The fields of the file that decide what the network sees."""

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    do_resize: bool = True
    size: _Size | _Pixels
    resample: int
    crop_pct: Annotated[FiniteFloat, Field(gt=0, le=1)] = 224 / 256
    do_center_crop: bool = False
    crop_size: _Size | _Pixels | None = None
    do_rescale: bool = True
    rescale_factor: _Positive = 1 / 255
    do_normalize: bool = True
    image_mean: _Mean | None = None
    image_std: _Std | None = None

    @property
    def kind(self) -> str:
        """The processor's class, by its present name."""
        name = self.image_processor_type or (self.feature_extractor_type or _CONVNEXT)
        return name.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")


def preprocessor_options(config: Preprocessor, where: str) -> InputOptions:
    """``config`` in our words; ``ExportError`` names the field that cannot be followed."""
    if config.kind != _CONVNEXT and config.kind not in _PLAIN:
        raise ExportError(f"{where}: {config.kind} is not known here; known: {_CONVNEXT}, {', '.join(_PLAIN)}")
    if not config.do_resize:
        raise ExportError(f"{where}: do_resize is false, but images of any size are to be classified")
    if config.resample not in _RESAMPLE:
        raise ExportError(
            f"{where}: resample {config.resample} is none of nearest, lanczos, bilinear and bicubic (0-3)"
        )
    cut = _convnext(config, where) if config.kind == _CONVNEXT else _plain(config, where)
    mean, std = _normalisation(config, where)
    return InputOptions(
        size=cut.size,
        resize=cut.resize,
        resize_mode=cut.resize_mode,
        interpolation=_RESAMPLE[config.resample],
        mean=mean,
        std=std,
        value_range=_values(config),
    )


def _values(config: Preprocessor) -> tuple[float, float] | None:
    """What 0 and 255 become before mean and standard deviation; None for the usual 0 and 1."""
    white = 255 * config.rescale_factor if config.do_rescale else 255.0
    return None if abs(white - 1) < 1e-9 else (0.0, white)


def _normalisation(config: Preprocessor, where: str) -> tuple[Triple, Triple]:
    if not config.do_normalize:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.image_mean is None or config.image_std is None:
        raise ExportError(f"{where}: image_mean and image_std are missing, though do_normalize is true")
    (a, b, c), (d, e, f) = config.image_mean, config.image_std
    return (a, b, c), (d, e, f)


def _convnext(config: Preprocessor, where: str) -> InputOptions:
    size = config.size if isinstance(config.size, int) else config.size.shortest_edge
    if size is None or config.do_center_crop:
        raise ExportError(f"{where}: {_CONVNEXT} takes size.shortest_edge and no do_center_crop")
    if size < _WHOLE_FROM:
        return InputOptions(size=size, resize=int(size / config.crop_pct), resize_mode="shorter")
    return InputOptions(size=size, resize=size, resize_mode="squash")


def _plain(config: Preprocessor, where: str) -> InputOptions:
    size = config.size
    if isinstance(size, int):
        size = _Size(height=size, width=size) if _PLAIN[config.kind] else _Size(shortest_edge=size)
    if size.longest_edge is not None:
        raise ExportError(f"{where}: size.longest_edge is not followed")
    crop = _square(config.crop_size, f"{where}: crop_size") if config.do_center_crop else None
    if size.shortest_edge is None:
        whole = _square(size, f"{where}: size")
        return InputOptions(size=crop or whole, resize=whole, resize_mode="squash")
    if crop is None:
        raise ExportError(f"{where}: without do_center_crop every image would have another size")
    return InputOptions(size=crop, resize=size.shortest_edge, resize_mode="shorter")


def _square(size: _Size | int | None, where: str) -> int:
    if isinstance(size, int):
        return size
    if size is None or size.height is None or size.height != size.width:
        raise ExportError(f"{where} is no square, which the input is to be")
    return size.height
