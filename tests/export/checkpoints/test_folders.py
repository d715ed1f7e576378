"""Folders of transformers and timm: written by them, read here, and refused where we would compute something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from export.checkpoints import folders
from export.checkpoints.checkpoint import read_checkpoint
from export.checkpoints.fitting import choose, load_network
from export.checkpoints.folders import CUSTOM, find_folder, read_folder
from export.errors import ExportError
from export.networks import specs
from export.networks.build import build
from export.preprocessing import InputOptions, decide, usual_input
from tests.export.conftest import TINY, perturb
from tests.export.origin_files import CONVNEXT, hugging_face_folder, hugging_face_model, timm_folder

BOTTLENECKS: Mapping[str, Any] = {"layer_type": "bottleneck", "hidden_sizes": [32, 64], "depths": [2, 1]}


def write(folder: Path, config: object, *, weights: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    if weights:
        torch.save({"fc.weight": torch.zeros(2, 3)}, folder / "pytorch_model.bin")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ExportError) as caught:
        read_folder(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Hugging Face


@pytest.mark.parametrize(
    "changes",
    [{}, BOTTLENECKS, {**BOTTLENECKS, "downsample_in_bottleneck": True}, {"hidden_sizes": [16, 32], "depths": [2, 2]}],
    ids=["basic", "bottleneck", "stride in 1x1", "projection in the first stage"],
)
def test_network_computes_what_transformers_computes(tmp_path: Path, changes: dict[str, Any]) -> None:
    theirs = hugging_face_model(**changes)
    checkpoint = read_checkpoint(hugging_face_folder(tmp_path / "net", theirs))
    choice = choose(checkpoint, None)
    ours = load_network(checkpoint, choice.name, choice.spec)
    images = torch.randn(2, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(images).logits
        torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert (checkpoint.origin, choice.name) == ("huggingface", CUSTOM)
    assert checkpoint.about.labels == ("cat", "dog", "cow")


def test_preprocessing_and_labels_come_along(tmp_path: Path) -> None:
    folder = read_folder(hugging_face_folder(tmp_path / "net"))
    assert folder.weights.name == "model.safetensors"
    assert folder.description.labels == ("cat", "dog", "cow")
    assert folder.description.input
    spec = decide(InputOptions(), folder.description.input, usual_input(224, whole=False))
    assert (spec.height, spec.resize, spec.interpolation, spec.mean) == (32, 40, "bicubic", (0.4, 0.5, 0.6))


def test_folder_without_preprocessor_is_told(tmp_path: Path) -> None:
    folder = read_folder(hugging_face_folder(tmp_path / "net", preprocessor=None))
    assert folder.description.input is None
    assert folder.notes == ("input: no preprocessor_config.json in the folder",)


def test_names_that_transformers_made_up_are_none(tmp_path: Path) -> None:
    assert read_folder(hugging_face_folder(tmp_path / "net", hugging_face_model(names=None))).description.labels is None


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({}, "resnet50"),
        ({"downsample_in_bottleneck": True}, "resnet50_v1"),
        ({"depths": [3, 4, 23, 3]}, "resnet101"),
        ({"depths": [2, 2, 2, 2], "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}, "resnet18"),
        ({"depths": [2, 2, 2, 3], "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}, CUSTOM),
    ],
)
def test_known_architectures_are_called_by_their_names(tmp_path: Path, config: dict[str, Any], name: str) -> None:
    about = read_folder(write(tmp_path / "net", {"model_type": "resnet", **config})).description
    assert about.architecture == name
    assert (name == CUSTOM) or about.spec == specs.get_spec(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "config.json: hidden_act: "),
        ({"hidden_sizes": [256, 512, 1024, 1024]}, r"config.json: hidden_sizes \[256, 512, 1024, 1024\]"),
        ({"hidden_sizes": [256, 512]}, "hidden_sizes"),
        ({"hidden_sizes": []}, "hidden_sizes"),
        ({"hidden_sizes": [3, 6, 12, 24]}, "hidden_sizes"),
        ({"hidden_sizes": [-256, -512, -1024, -2048]}, "width"),
        ({"depths": []}, "depths"),
        ({"depths": [3, 4, 6, 0]}, "depths"),
        ({"depths": [3, 4, 6, 10**9]}, "depths"),
        ({"depths": "3463"}, "depths"),
        ({"layer_type": "dense"}, "layer_type"),
        ({"num_channels": 1}, "num_channels"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage"),
        ({"embedding_size": 0}, "stem_width"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label has no 1"),
        ({"id2label": ["a"]}, "id2label"),
        ({"problem_type": "multi_label_classification"}, "config.json: problem_type: "),
        ({"problem_type": "regression"}, "config.json: problem_type: "),
        ({"model_type": "vit"}, "model_type 'vit' is no ResNet"),
        ({"model_type": None}, "model_type None is no ResNet"),
    ],
)
def test_config_that_we_would_compute_otherwise(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        read_folder(write(tmp_path / "net", {"model_type": "resnet", **change}))


def test_config_of_another_network(tmp_path: Path) -> None:
    folder = hugging_face_folder(tmp_path / "net")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"depths": [1, 1]}))
    checkpoint = read_checkpoint(folder)
    choice = choose(checkpoint, None)
    with pytest.raises(ExportError, match=r"does not fit huggingface_resnet: 'layer2\.1\..* is not part of it"):
        load_network(checkpoint, choice.name, choice.spec)


# timm

CFG: Mapping[str, Any] = {
    "input_size": [3, 48, 48],
    "interpolation": "bicubic",
    "crop_pct": 0.75,
    "crop_mode": "center",
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.25, 0.3],
}


@pytest.fixture(scope="module")
def tiny_state() -> dict[str, torch.Tensor]:
    return dict(perturb(build(TINY, 3, seed=0)).state_dict())


def test_what_timm_saves_is_read(tmp_path: Path) -> None:
    theirs = perturb(timm.create_model("resnet18", num_classes=3)).eval()
    timm.models.save_for_hf(
        theirs, str(tmp_path), model_config={"label_names": ["a", "b", "c"]}, safe_serialization=True
    )
    checkpoint = read_checkpoint(tmp_path)
    choice = choose(checkpoint, None)
    assert (checkpoint.origin, choice.name, checkpoint.about.labels) == ("timm", "resnet18", ("a", "b", "c"))
    ours = load_network(checkpoint, choice.name)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
    data = timm.data.resolve_model_data_config(theirs)
    transform = timm.data.create_transform(**data)
    assert checkpoint.about.input
    spec = decide(InputOptions(), checkpoint.about.input, usual_input(224, whole=False))
    assert (spec.height, spec.resize) == (data["input_size"][1], transform.transforms[0].size)
    assert (spec.mean, spec.std, spec.interpolation) == (data["mean"], data["std"], data["interpolation"])


def test_timm_config(tmp_path: Path, tiny_state: dict[str, torch.Tensor]) -> None:
    about = read_folder(timm_folder(tmp_path, tiny_state, "resnet50.a1_in1k", **CFG)).description
    assert about.architecture == "resnet50"
    assert about.input == InputOptions(
        size=48,
        crop=0.75,
        resize_mode="shorter",
        interpolation="bicubic",
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
    )


def test_defaults_are_timms(tmp_path: Path, tiny_state: dict[str, torch.Tensor]) -> None:
    from timm.models import PretrainedCfg

    options = read_folder(timm_folder(tmp_path, tiny_state, "resnet50")).description.input
    theirs = PretrainedCfg()
    assert options
    assert (3, options.size, options.size) == theirs.input_size
    assert (options.crop, options.interpolation) == (theirs.crop_pct, theirs.interpolation)
    assert (options.mean, options.std) == (theirs.mean, theirs.std)


@pytest.mark.parametrize("above", [False, True])
def test_descriptions_of_timms_labels(tmp_path: Path, tiny_state: dict[str, torch.Tensor], above: bool) -> None:
    names = {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n1": "tench", "n2": "goldfish"}}
    folder = timm_folder(tmp_path, tiny_state, "resnet50", **({} if above else names))
    if above:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | names))
    assert read_folder(folder).description.labels == ("tench", "goldfish", "n3")


def test_older_timm_config_is_one_level(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {"architecture": "resnet18", "labels": ["a", "b"], **CFG})
    about = read_folder(folder).description
    assert about.labels == ("a", "b")
    assert about.input
    assert about.input.size == 48


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_args": {"output_stride": 8}}, r"config.json: model_args\.output_stride"),
        ({"model_args": {"in_chans": 1}}, r"model_args\.in_chans"),
        ({"model_args": {"global_pool": "max"}}, r"model_args\.global_pool"),
        ({"global_pool": "catavgmax"}, "global_pool"),
        ({"architecture": 7}, "architecture"),
        ({"pretrained_cfg": {"input_size": [3, 224, 320]}}, "is not 3 channels of a square"),
        ({"pretrained_cfg": {"input_size": [1, 224, 224]}}, "is not 3 channels of a square"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, r"pretrained_cfg\.crop_mode"),
        ({"pretrained_cfg": {"crop_pct": 0}}, r"pretrained_cfg\.crop_pct"),
        ({"pretrained_cfg": {"interpolation": "hamming"}}, r"pretrained_cfg\.interpolation"),
        ({"pretrained_cfg": {"std": [1, 1, 0]}}, r"pretrained_cfg\.std\.2"),
        ({"pretrained_cfg": {"mean": [1, 1]}}, r"pretrained_cfg\.mean"),
        ({"pretrained_cfg": 3}, "pretrained_cfg"),
    ],
)
def test_timm_config_that_we_would_compute_otherwise(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = {"architecture": "resnet18", "pretrained_cfg": {}, **change}
    with pytest.raises(ExportError, match=message):
        read_folder(write(tmp_path / "net", config))


def test_unknown_timm_architecture_lists_the_known(tmp_path: Path, tiny_state: dict[str, torch.Tensor]) -> None:
    checkpoint = read_checkpoint(timm_folder(tmp_path, tiny_state, "vit_base_patch16_224"))
    with pytest.raises(ExportError, match="unknown architecture 'vit_base_patch16_224'; known: resnet18"):
        choose(checkpoint, None)


# Folders


def test_file_in_a_folder_is_read_with_its_config(tmp_path: Path) -> None:
    folder = hugging_face_folder(tmp_path / "net")
    assert find_folder(folder) == find_folder(folder / "model.safetensors") == folder
    assert find_folder(tmp_path / "other.safetensors") is None
    (folder / "config.json").unlink()
    assert find_folder(folder / "model.safetensors") is None
    assert "no config.json in it" in refusal(folder)


def test_folder_without_weights(tmp_path: Path) -> None:
    assert "no model.safetensors or pytorch_model.bin" in refusal(write(tmp_path, {}, weights=False))


def test_forced_origin_must_be_the_folders(tmp_path: Path) -> None:
    folder = hugging_face_folder(tmp_path / "net")
    assert read_checkpoint(folder, origin="huggingface").origin == "huggingface"
    with pytest.raises(ExportError, match=r"not of timm: its config\.json is of huggingface"):
        read_checkpoint(folder, origin="timm")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\x00", '{"a": 1}}', "[" * 100_000, '{"a":' * 5000])
def test_damaged_json(tmp_path: Path, text: str) -> None:
    assert "config.json: not a JSON object" in refusal(write(tmp_path, text))


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_json_of_a_gigabyte_is_not_read(tmp_path: Path, file: str) -> None:
    folder = hugging_face_folder(tmp_path / "net")
    with (folder / file).open("wb") as big:
        big.truncate(10**9)
    message = refusal(folder)
    assert message == f"{folder / file}: 1000000000 bytes; {folders.MAX_JSON_BYTES} are the most that is read"


def test_nulls_of_a_preprocessor_are_its_defaults(tmp_path: Path) -> None:
    nulls = dict.fromkeys(("do_center_crop", "do_rescale", "rescale_factor", "crop_size", "device", "do_resize"))
    told = [
        read_folder(hugging_face_folder(tmp_path / name, preprocessor={**CONVNEXT, **more})).description.input
        for name, more in (("bare", {}), ("nulls", nulls))
    ]
    assert told[0] == told[1] is not None


def test_damaged_preprocessor(tmp_path: Path) -> None:
    folder = hugging_face_folder(tmp_path / "net", preprocessor={**CONVNEXT, "size": "large"})
    assert "preprocessor_config.json: size" in refusal(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        *("depths", "hidden_sizes", "embedding_size", "layer_type", "hidden_act", "id2label", "num_channels"),
        *("architecture", "pretrained_cfg", "model_args", "label_names", "global_pool", "labels"),
    ]
)


@given(kind=st.sampled_from(["resnet", None]), fields=st.dictionaries(FIELDS, JSON, min_size=1, max_size=4))
def test_any_config_is_followed_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str | None, fields: dict[str, Any]
) -> None:
    config = fields if kind is None else {"model_type": kind, **fields}
    folder = write(tmp_path_factory.getbasetemp() / "any", config)
    try:
        about = read_folder(folder).description
    except ExportError as error:
        message = str(error)
    else:
        message = ""
        assert about.architecture is not None
    assert "\n" not in message


def test_backbone_without_a_head(tmp_path: Path) -> None:
    model = hugging_face_model()
    backbone = model.get_submodule("resnet")
    assert isinstance(backbone, nn.Module)
    folder = hugging_face_folder(tmp_path / "net", backbone)
    with pytest.raises(ExportError, match="no head"):
        _ = read_checkpoint(folder).classes
