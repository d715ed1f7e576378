"""Folders as Hugging Face's libraries write them: weights, ``config.json`` and, of transformers, the preprocessing.

``save_pretrained`` of transformers' ``ResNetForImageClassification`` and
``save_for_hf`` of timm write them, and their hubs keep them. The folder says which
network it is, what its classes are called and how images are prepared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, TypeAdapter, ValidationError

from export.checkpoints.origins import Description
from export.checkpoints.preprocessor_configs import PREPROCESSOR_FILE, Preprocessor, preprocessor_options
from export.checkpoints.weight_files import read_bounded
from export.errors import ExportError
from export.networks import specs
from export.networks.architecture import EXPANSION, AnySpec, parse_spec
from export.preprocessing import InputOptions
from model_store.manifest import Interpolation

CONFIG_FILE: Final = "config.json"
WEIGHT_FILES: Final = ("model.safetensors", "pytorch_model.bin")
# A table of ImageNet-22k's names, both ways round, has 2 MB.
MAX_JSON_BYTES: Final = 16 * 2**20
CUSTOM: Final = "huggingface_resnet"

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Folder:
    """A folder's weights, who wrote it (``huggingface`` or ``timm``) and what it says."""

    weights: Path
    origin: str
    description: Description
    notes: tuple[str, ...] = ()


class _Part(BaseModel):
    # The files hold much that is of no concern here.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _ResNetConfig(_Part):
    """transformers, ``configuration_resnet.py``, with its defaults."""

    num_channels: Literal[3] = 3
    embedding_size: int = 64
    hidden_sizes: Annotated[list[int], Field(min_length=1, max_length=8)] = [256, 512, 1024, 2048]
    depths: Annotated[list[int], Field(min_length=1, max_length=8)] = [3, 4, 6, 3]
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    hidden_act: Literal["relu"] = "relu"
    downsample_in_first_stage: Literal[False] = False
    downsample_in_bottleneck: bool = False
    id2label: dict[str, str] | None = None
    # The others tell yes or no of each class, or a number.
    problem_type: Literal["single_label_classification"] | None = None


class _PretrainedCfg(_Part):
    """timm, ``models/_pretrained.py``, with its defaults; ``label_names`` may stand one level higher too."""

    input_size: Annotated[list[int], Field(min_length=3, max_length=3)] = [3, 224, 224]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "random"] = "bicubic"
    crop_pct: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.875
    crop_mode: Literal["center", "squash"] = "center"
    mean: Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)] = [0.485, 0.456, 0.406]
    std: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=3, max_length=3)] = [
        0.229,
        0.224,
        0.225,
    ]
    label_names: list[str] | None = None
    label_descriptions: dict[str, str] | None = None


class _ModelArgs(BaseModel):
    """Arguments of ``timm.create_model`` that leave the network as its name says; any other is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    num_classes: int | None = None
    in_chans: Literal[3] = 3
    global_pool: Literal["avg"] = "avg"


class _TimmConfig(_Part):
    architecture: str
    global_pool: Literal["avg"] = "avg"
    model_args: _ModelArgs = _ModelArgs()
    pretrained_cfg: _PretrainedCfg
    label_names: list[str] | None = None
    label_descriptions: dict[str, str] | None = None


def find_folder(path: Path) -> Path | None:
    """The folder that ``path`` is or, for a file of weights as the libraries call it, lies in with its config."""
    if path.is_dir():
        return path
    if path.name in WEIGHT_FILES and (path.parent / CONFIG_FILE).is_file():
        return path.parent
    return None


def read_folder(folder: Path) -> Folder:
    """What ``folder`` says; ``ExportError`` names the file and the field that is missing or cannot be followed."""
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).exists()), None)
    if weights is None:
        raise ExportError(f"{folder}: no {' or '.join(WEIGHT_FILES)} in it; name the file with the weights")
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ExportError(f"{folder}: no {CONFIG_FILE} in it, as transformers and timm write; name {weights} itself")
    config = _load_json(path)
    if "architecture" in config:
        return Folder(weights, "timm", _timm(config, path))
    kind = config.get("model_type")
    if kind != "resnet":
        raise ExportError(
            f"{path}: model_type {kind!r} is no ResNet of transformers, and there is no timm architecture"
        )
    return _hugging_face(folder, weights, config, path)


def _hugging_face(folder: Path, weights: Path, config: Mapping[str, Any], path: Path) -> Folder:
    parsed = _check(_ResNetConfig, config, path)
    spec = _spec(parsed, path)
    name = next((name for name, known in specs.SPECS.items() if known == spec), CUSTOM)
    about = Description(architecture=name, spec=spec, labels=_labels(parsed.id2label, path), source=CONFIG_FILE)
    preprocessor = folder / PREPROCESSOR_FILE
    if not preprocessor.is_file():
        return Folder(weights, "huggingface", about, (f"input: no {PREPROCESSOR_FILE} in the folder",))
    # A null stands for the default, as a missing field does.
    fields = {name: value for name, value in _load_json(preprocessor).items() if value is not None}
    options = preprocessor_options(_check(Preprocessor, fields, preprocessor), str(preprocessor))
    return Folder(weights, "huggingface", replace(about, input=options, input_source=PREPROCESSOR_FILE))


def _spec(config: _ResNetConfig, path: Path) -> AnySpec:
    """The network that transformers builds of ``config``."""
    expansion = EXPANSION[config.layer_type]
    width = config.hidden_sizes[0] // expansion
    expected = [width * expansion * 2**stage for stage in range(len(config.depths))]
    if config.hidden_sizes != expected:
        raise ExportError(
            f"{path}: hidden_sizes {config.hidden_sizes}: one for each of depths is expected, "
            f"each twice the one before, the first a multiple of {expansion}"
        )
    fields = {
        "block": config.layer_type,
        "depths": config.depths,
        "stem": "imagenet",
        "shortcut": "B",
        "stem_width": config.embedding_size,
        "width": width,
        "image_size": 224,
        "stride_in": "1x1" if config.layer_type == "bottleneck" and config.downsample_in_bottleneck else "3x3",
    }
    return parse_spec(fields, str(path))


def _labels(id2label: dict[str, str] | None, path: Path) -> tuple[str, ...] | None:
    """The names in the order of their numbers; None where transformers made them up."""
    if not id2label:
        return None
    names = [id2label.get(str(number)) for number in range(len(id2label))]
    if None in names:
        raise ExportError(f"{path}: id2label has no {names.index(None)}, though {len(id2label)} entries")
    if names == [f"LABEL_{number}" for number in range(len(names))]:
        return None
    return tuple(name for name in names if name is not None)


def _timm(config: dict[str, Any], path: Path) -> Description:
    # Older files are the pretrained_cfg itself, with its names called labels: timm, models/_hub.py, _parse_model_cfg.
    if "pretrained_cfg" not in config:
        config = {**config, "pretrained_cfg": config, "label_names": config.get("labels")}
    parsed = _check(_TimmConfig, config, path)
    inner = parsed.pretrained_cfg
    if inner.input_size[0] != 3 or inner.input_size[1] != inner.input_size[2]:
        raise ExportError(f"{path}: pretrained_cfg.input_size {inner.input_size} is not 3 channels of a square")
    names = parsed.label_names or inner.label_names
    texts = parsed.label_descriptions or inner.label_descriptions or {}
    (a, b, c), (d, e, f) = inner.mean, inner.std
    interpolation: Interpolation = "bilinear" if inner.interpolation == "random" else inner.interpolation
    return Description(
        architecture=parsed.architecture.partition(".")[0],
        labels=tuple(texts.get(name, name) for name in names) if names else None,
        input=InputOptions(
            size=inner.input_size[1],
            crop=inner.crop_pct,
            resize_mode="squash" if inner.crop_mode == "squash" else "shorter",
            interpolation=interpolation,
            mean=(a, b, c),
            std=(d, e, f),
        ),
        source=CONFIG_FILE,
    )


def _load_json(path: Path) -> dict[str, JsonValue]:
    data = read_bounded(path, MAX_JSON_BYTES)
    try:
        return TypeAdapter(dict[str, JsonValue]).validate_json(data)
    except ValidationError as error:
        raise ExportError(f"{path}: not a JSON object: {error.errors()[0]['msg']}") from error


def _check(model: type[_Model], fields: Mapping[str, Any], path: Path) -> _Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ExportError(f"{path}: {place}: {first['msg']}") from error
