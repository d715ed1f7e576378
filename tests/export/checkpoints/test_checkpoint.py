"""Reading weights of any origin: what is known of them, and one clear line for values that cannot be weights."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from export.checkpoints.checkpoint import CheckpointError, read_checkpoint
from export.checkpoints.fitting import choose, fitting_architectures, load_network
from export.networks.build import build
from export.networks.resnet import ResNet
from export.networks.specs import get_spec
from tests.export.origin_files import lightning_checkpoint, save

ARCH = "cifar_resnet20"


@pytest.fixture(scope="module")
def net() -> ResNet:
    return build(get_spec(ARCH), 10, seed=1)


@pytest.fixture
def state(net: ResNet) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def assert_loads(path: Path, net: ResNet) -> None:
    loaded = load_network(read_checkpoint(path), ARCH)
    for (key, ours), theirs in zip(loaded.named_parameters(), net.parameters(), strict=True):
        assert torch.equal(ours, theirs), key


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_bare_state_dict(tmp_path: Path, state: dict[str, Tensor], net: ResNet) -> None:
    path = save(tmp_path / "a.pth", state)
    assert_loads(path, net)
    checkpoint = read_checkpoint(path)
    assert checkpoint.classes == 10
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (checkpoint.origin, checkpoint.aside, checkpoint.training, checkpoint.notes) == ("pytorch", (), None, ())


def test_safetensors(tmp_path: Path, state: dict[str, Tensor], net: ResNet) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(state, path)
    assert_loads(path, net)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "net"])
def test_wrapped_state_dict_tells_what_lies_beside(
    tmp_path: Path, state: dict[str, Tensor], net: ResNet, wrapper: str
) -> None:
    path = save(tmp_path / "a.pt", {wrapper: state, "epoch": 3, "best": 0.5})
    assert_loads(path, net)
    assert read_checkpoint(path).aside == ("epoch", "best")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrapping_modules(tmp_path: Path, state: dict[str, Tensor], net: ResNet, prefix: str) -> None:
    assert_loads(save(tmp_path / "a.pth", {prefix + key: value for key, value in state.items()}), net)


def test_linear_head_is_fc(tmp_path: Path, state: dict[str, Tensor], net: ResNet) -> None:
    renamed = {key.replace("fc.", "linear."): value for key, value in state.items()}
    assert_loads(save(tmp_path / "a.pth", renamed), net)


@pytest.mark.parametrize("prefix", ["model.", "net.", "model.module."])
def test_lightning(tmp_path: Path, state: dict[str, Tensor], net: ResNet, prefix: str) -> None:
    path = lightning_checkpoint(tmp_path / "a.ckpt", state, prefix)
    assert_loads(path, net)
    checkpoint = read_checkpoint(path)
    assert checkpoint.origin == "lightning"
    assert "hyper_parameters" in checkpoint.aside


def test_lightning_with_objects_among_its_parameters(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = lightning_checkpoint(tmp_path / "a.ckpt", state, hyper_parameters={"data": Path("images")})
    assert "save its state_dict() instead" in refusal(path)


def test_moving_average_is_taken_and_told(tmp_path: Path, state: dict[str, Tensor], net: ResNet) -> None:
    """timm's checkpoints: https://github.com/huggingface/pytorch-image-models, utils/checkpoint_saver.py."""
    raw = {key: torch.zeros_like(value) for key, value in state.items()}
    arguments = argparse.Namespace(model="resnet20")
    path = save(tmp_path / "a.pth.tar", {"arch": "mine", "args": arguments, "state_dict": raw, "state_dict_ema": state})
    assert_loads(path, net)
    checkpoint = read_checkpoint(path)
    assert checkpoint.origin == "timm"
    assert "--weights state_dict" in checkpoint.notes[0]
    assert not read_checkpoint(path, weights="state_dict").state["fc.weight"].any()


def test_fine_tuned_head_gives_the_classes(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state |= {"fc.weight": torch.ones(3, 64), "fc.bias": torch.ones(3)}
    checkpoint = read_checkpoint(save(tmp_path / "a.pth", state))
    assert checkpoint.classes == 3
    assert load_network(checkpoint, ARCH).fc.out_features == 3


def test_one_output_is_no_classifier(tmp_path: Path, state: dict[str, Tensor]) -> None:
    checkpoint = read_checkpoint(save(tmp_path / "a.pth", state | {"fc.weight": torch.ones(1, 64)}))
    with pytest.raises(CheckpointError, match=r"a\.pth: one output is a yes or no by sigmoid"):
        _ = checkpoint.classes


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16")])
def test_half_precision_is_widened_and_told(
    tmp_path: Path, state: dict[str, Tensor], dtype: torch.dtype, name: str
) -> None:
    half = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    checkpoint = read_checkpoint(save(tmp_path / "a.pth", half))
    assert checkpoint.notes == (f"weights: {name}, widened to float32",)


def test_our_own_checkpoint_brings_recipe_and_labels(tmp_path: Path, state: dict[str, Tensor]) -> None:
    labels = [f"c{i}" for i in range(10)]
    content = {"state_dict": state, "optimizer": {}, "recipe": {"arch": ARCH, "epochs": 4}, "epoch": 2}
    checkpoint = read_checkpoint(save(tmp_path / "a.pth", content | {"labels": labels}))
    assert checkpoint.origin == "export.train"
    assert checkpoint.training
    assert (checkpoint.training.arch, checkpoint.training.epoch) == (ARCH, 2)
    assert checkpoint.training.labels == tuple(labels)
    assert choose(checkpoint, None).name == ARCH


@pytest.mark.parametrize("content", [{"arch": "resnet18"}, {"args": argparse.Namespace(model="resnet18")}])
def test_architecture_that_a_training_script_noted(tmp_path: Path, content: dict[str, Any]) -> None:
    state = build(get_spec("resnet18"), 3).state_dict()
    checkpoint = read_checkpoint(save(tmp_path / "a.pth", {"model": state, **content}))
    assert choose(checkpoint, None).name == "resnet18"


# torchvision


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare state dict with torchvision's names."""
    return save(tmp_path_factory.mktemp("torchvision") / "a.pth", build(get_spec("resnet18"), 5, seed=0).state_dict())


def test_torchvisions_names_are_known_as_such(resnet18: Path) -> None:
    checkpoint = read_checkpoint(resnet18)
    assert (checkpoint.origin, checkpoint.classes, checkpoint.common) == ("torchvision", 5, True)
    assert fitting_architectures(checkpoint)[0] == "resnet18"
    assert checkpoint.about.labels is None


# Values


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_value_that_is_not_finite(tmp_path: Path, state: dict[str, Tensor], value: float) -> None:
    state["layer2.1.conv1.weight"][0, 0, 0, 0] = value
    assert "'layer2.1.conv1.weight' holds a value that is not finite" in refusal(save(tmp_path / "a.pth", state))


def test_double_precision_beyond_single_is_not_finite(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["fc.bias"] = torch.full((10,), 1e300, dtype=torch.float64)
    assert "'fc.bias'" in refusal(save(tmp_path / "a.pth", state))


def test_integer_weights(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["conv1.weight"] = torch.zeros(16, 3, 3, 3, dtype=torch.int8)
    assert "'conv1.weight' is of torch.int8" in refusal(save(tmp_path / "a.pth", state))


def test_sparse_weights(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["fc.weight"] = state["fc.weight"].to_sparse()
    assert "'fc.weight' is not a plain tensor" in refusal(save(tmp_path / "a.pth", state))


def test_weights_without_values(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["fc.weight"] = state["fc.weight"].to("meta")
    assert "'fc.weight' is not a plain tensor" in refusal(save(tmp_path / "a.pth", state))


def test_one_number_that_claims_to_be_a_terabyte(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """A view with strides of 0 has a few bytes in the file, and would have all of them in memory."""
    state["fc.weight"] = torch.zeros(1).expand(2**20, 2**18)
    assert "claim more bytes than the file has" in refusal(save(tmp_path / "a.pth", state))


def test_many_names_for_the_same_bytes(tmp_path: Path) -> None:
    values = torch.zeros(2**16)
    path = save(tmp_path / "a.pth", {f"a{i}.b": values for i in range(200)} | {"fc.weight": torch.zeros(2, 2)})
    assert path.stat().st_size < 2**19
    assert "claim more bytes than the file has" in refusal(path)


@pytest.mark.parametrize(
    "content", [{}, [torch.zeros(2)], torch.zeros(2), {1: torch.zeros(2)}, {"epoch": 3}, {"state_dict": {}}, "text"]
)
def test_content_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    assert "state dict" in refusal(save(tmp_path / "a.pth", content))


def test_truncated_file(tmp_path: Path, state: Mapping[str, Tensor]) -> None:
    path = save(tmp_path / "a.pth", state)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    ("file", "arch", "twin"),
    [
        ("resnet20-12fca82f.th", "cifar_resnet20", "cifar_plain20"),
        ("resnet32-d509ac18.th", "cifar_resnet32", "cifar_plain32"),
        ("resnet56-4bfd9763.th", "cifar_resnet56", "cifar_plain56"),
    ],
)
def test_checkpoints_in_circulation(shared: Path, file: str, arch: str, twin: str) -> None:
    checkpoint = read_checkpoint(shared / "checkpoints" / file)
    assert (checkpoint.classes, checkpoint.aside) == (10, ("best_prec1",))
    assert fitting_architectures(checkpoint) == [arch, twin]
    assert load_network(checkpoint, arch).spec == get_spec(arch)
