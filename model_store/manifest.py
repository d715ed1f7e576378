"""The manifest: all that serving must know of a model, beside its weights.

``manifest.json`` lies in ``models/NAME/VERSION/`` with the ONNX files and the
labels. Unknown fields are an error, so a typing mistake or a manifest of a newer
release is refused, not half understood.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from model_store.errors import Explained
from model_store.files import File as File
from model_store.files import Part
from model_store.files import Sha256 as Sha256
from model_store.names import check_name as check_name
from model_store.names import check_version as check_version
from model_store.names import parse_reference as parse_reference
from model_store.plain_files import read_plain
from model_store.reference import Reference as Reference
from model_store.reports import Accuracy as Accuracy
from model_store.reports import Calibration as Calibration
from model_store.reports import Gate as Gate
from model_store.reports import Parity as Parity
from model_store.reports import Quantization as Quantization

MANIFEST_FILE: Final = "manifest.json"
SCHEMA_VERSION: Final = 1
MAX_MANIFEST_BYTES: Final = 4 * 2**20

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ResizeMode = Literal["shorter", "squash"]
ChannelOrder = Literal["rgb", "bgr"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]


class ManifestError(Explained):
    """A manifest that cannot be read or does not hold together; one line says what and where."""


ModelName = Annotated[str, AfterValidator(check_name)]
Version = Annotated[str, AfterValidator(check_version)]
Triple = tuple[float, float, float]


class JpegScaling(Part):
    """Large JPEGs are decoded at 1/2, 1/4 or 1/8 of their size, by scaling their cosine transforms.

    margin -- so many times the side that the resize needs is left at least.
    gate   -- the variant that agreed least, on images so decoded, with itself on the whole ones.
    """

    margin: float = Field(ge=1, le=8)
    gate: Gate

    @model_validator(mode="after")
    def _admitted(self) -> Self:
        if not self.gate.passed:
            raise ValueError("JPEG scaling needs a gate that was passed")
        return self


class Preprocessing(Part):
    """How an image becomes the network's input: resized, its centre cut out, normalised.

    height, width -- of the input, pixels.
    resize        -- length of the shorter side after the resize and before the centre crop, pixels.
    resize_mode   -- ``shorter``: the image keeps its proportions; ``squash``: the whole image gets those of
                     ``width`` x ``height``, so that nothing is cut off where ``resize`` is the shorter of them.
    channel_order -- what the network takes. The graph's input is RGB all the same.
    mean, std     -- of values from 0 to 1, in ``channel_order``. Both are in the graph.
    jpeg_scaling  -- whether large JPEGs are decoded smaller, which changes pixels a little; None: never.
    """

    height: int = Field(gt=0, le=4096)
    width: int = Field(gt=0, le=4096)
    resize: int = Field(gt=0, le=8192)
    resize_mode: ResizeMode = "shorter"
    interpolation: Interpolation = "bilinear"
    channel_order: ChannelOrder = "rgb"
    mean: Triple
    std: Annotated[Triple, AfterValidator(lambda std: _all_positive(std))]
    jpeg_scaling: JpegScaling | None = None


def _all_positive(values: Triple) -> Triple:
    if min(values) <= 0:
        raise ValueError("every value must be above 0")
    return values


class Architecture(Part):
    """What was exported: the exporter's name for it, its settings, its size."""

    name: str
    spec: dict[str, JsonValue]
    parameters: int = Field(gt=0)


class Source(Part):
    """Where the weights came from."""

    origin: str
    file: str
    sha256: Sha256


class ClassActivationMap(Part):
    """Shape of the ``cam`` output for one image: maps of the top ``k`` classes."""

    k: int = Field(gt=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class Outputs(Part):
    """The graph's outputs besides ``logits``, each None where the graph has it not.

    ``embedding`` needs a linear head, ``cam`` a linear head right behind global average pooling.
    """

    classes: int = Field(gt=0)
    embedding: Annotated[int, Field(gt=0)] | None
    cam: ClassActivationMap | None


class Variant(File):
    """The network in one arithmetic, with the report that admitted it.

    fp32 has its parity with PyTorch; every other precision was compared with fp32 by the gate. bf16 has no file
    of its own: it is how OpenVINO may run the fp32 one. ``report`` is the gate's page for people, beside the file.
    """

    precision: Precision
    parity: Parity | None = None
    quantization: Quantization | None = None
    gate: Gate | None = None
    report: File | None = None

    @model_validator(mode="after")
    def _admitted(self) -> Self:
        if self.precision == "fp32" and self.parity is None:
            raise ValueError("an fp32 variant needs its parity report")
        if self.precision != "fp32" and self.gate is None:
            raise ValueError(f"an {self.precision} variant needs its gate report")
        if self.precision == "int8" and self.quantization is None:
            raise ValueError("an int8 variant needs to say how it was quantized")
        if self.precision == "bf16" and self.gate is not None and self.gate.provider != "openvino":
            raise ValueError("only OpenVINO computes in bf16, so only there can its gate have been")
        return self

    @property
    def gated(self) -> bool:
        """Whether a comparison admitted it; where not, it is served only when asked for by name."""
        reports = [report for report in (self.parity, self.gate) if report is not None]
        return bool(reports) and all(report.passed for report in reports)


class Manifest(Part):
    """``manifest.json``, whole."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: ModelName
    version: Version
    created: datetime
    architecture: Architecture
    source: Source
    preprocessing: Preprocessing
    labels: File
    outputs: Outputs
    opset: int = Field(gt=0)
    variants: list[Variant] = Field(min_length=1)
    calibration: Calibration | None = None
    reference: Reference | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        precisions = [variant.precision for variant in self.variants]
        if len(set(precisions)) != len(precisions):
            raise ValueError("two variants have the same precision")
        names = [MANIFEST_FILE, *(file.file for file in self.files)]
        if len(set(names)) != len(names):
            raise ValueError("two files have the same name")
        fp32, bf16 = self.variant("fp32"), self.variant("bf16")
        if bf16 is not None and (fp32 is None or _file(bf16) != _file(fp32)):
            raise ValueError("a bf16 variant is the fp32 file")
        if self.outputs.cam and self.outputs.cam.k > self.outputs.classes:
            raise ValueError("cam has more maps than there are classes")
        if self.reference and max(self.reference.top_classes) >= self.outputs.classes:
            raise ValueError("the reference has a class that the model has not")
        return self

    @property
    def files(self) -> list[File]:
        """Every file that belongs to the model, but for the manifest."""
        weights = [variant for variant in self.variants if variant.precision != "bf16"]
        reports = [report.report for report in (*self.variants, self.calibration) if report and report.report]
        embedding = [self.reference.embedding] if self.reference and self.reference.embedding else []
        return [self.labels, *weights, *reports, *embedding]

    def variant(self, precision: Precision) -> Variant | None:
        return next((v for v in self.variants if v.precision == precision), None)


def _file(file: File) -> tuple[str, str, int]:
    return file.file, file.sha256, file.bytes


def load_manifest(path: Path) -> Manifest:
    """Read ``path`` strictly; ``ManifestError`` names the file and the first wrong field."""
    try:
        return parse_manifest(read_plain(path, MAX_MANIFEST_BYTES), str(path))
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror or error}") from error


def parse_manifest(data: bytes, source: str) -> Manifest:
    """Read ``data`` strictly; ``ManifestError`` names ``source`` and the first wrong field."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise ManifestError(f"{source}: {where}: {first['msg']}") from error


def dump_manifest(manifest: Manifest) -> str:
    """``manifest`` as indented JSON with a newline at its end."""
    return json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
