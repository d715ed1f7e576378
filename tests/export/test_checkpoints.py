"""Reading weights: what loads as it is, and one clear line for everything else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from export.checkpoints import CheckpointError, fitting_architectures, load_network, read_checkpoint
from export.resnet import ResNet, build
from export.specs import get_spec

ARCH = "cifar_resnet20"


@pytest.fixture(scope="module")
def net() -> ResNet:
    return build(get_spec(ARCH), 10, seed=1)


@pytest.fixture
def state(net: ResNet) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def assert_loads(path: Path, net: ResNet) -> None:
    loaded = load_network(read_checkpoint(path), ARCH)
    assert not loaded.training
    for (key, ours), theirs in zip(loaded.named_parameters(), net.parameters(), strict=True):
        assert torch.equal(ours, theirs), key


def refusal(path: Path, arch: str = ARCH) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_network(read_checkpoint(path), arch)
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
    assert (checkpoint.origin, checkpoint.aside, checkpoint.training) == ("pytorch", (), None)


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


def test_missing_batch_counters_are_fine(tmp_path: Path, state: dict[str, Tensor], net: ResNet) -> None:
    path = save(tmp_path / "a.pth", {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")})
    assert_loads(path, net)


def test_half_precision_becomes_single(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = save(tmp_path / "a.pth", {k: v.half() if v.is_floating_point() else v for k, v in state.items()})
    loaded = load_network(read_checkpoint(path), ARCH)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_torchvisions_state_dict_is_known_as_such(tmp_path: Path) -> None:
    state = build(get_spec("resnet18"), 5).state_dict()
    checkpoint = read_checkpoint(save(tmp_path / "a.pth", state))
    assert checkpoint.origin == "torchvision"
    assert checkpoint.classes == 5
    assert fitting_architectures(checkpoint) == ["resnet18"]


def test_our_own_checkpoint_brings_recipe_and_labels(tmp_path: Path, state: dict[str, Tensor]) -> None:
    labels = [f"c{i}" for i in range(10)]
    content = {"state_dict": state, "optimizer": {}, "recipe": {"arch": ARCH, "epochs": 4}, "epoch": 2}
    checkpoint = read_checkpoint(save(tmp_path / "a.pth", content | {"labels": labels}))
    assert checkpoint.origin == "export.train"
    assert checkpoint.training
    assert (checkpoint.training.arch, checkpoint.training.epoch) == (ARCH, 2)
    assert checkpoint.training.labels == tuple(labels)


def test_missing_key(tmp_path: Path, state: dict[str, Tensor]) -> None:
    del state["layer1.0.bn1.running_mean"]
    assert "'layer1.0.bn1.running_mean' [16] is missing" in refusal(save(tmp_path / "a.pth", state))


def test_unexpected_key(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["attention.weight"] = torch.zeros(2, 3)
    assert "'attention.weight' [2, 3] is not part of it" in refusal(save(tmp_path / "a.pth", state))


def test_wrong_shape(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    assert "'conv1.weight' is [16, 1, 3, 3], not [16, 3, 3, 3]" in refusal(save(tmp_path / "a.pth", state))


def test_wrong_architecture_gets_a_hint(tmp_path: Path, state: dict[str, Tensor]) -> None:
    message = refusal(save(tmp_path / "a.pth", state), arch="resnet18")
    assert "does not fit resnet18" in message
    assert message.endswith(f"it fits --arch {ARCH}")


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


@pytest.mark.parametrize("head", [None, torch.zeros(10), torch.zeros(0, 64)])
def test_no_proper_head(tmp_path: Path, state: dict[str, Tensor], head: Tensor | None) -> None:
    del state["fc.weight"]
    assert "fc.weight" in refusal(save(tmp_path / "a.pth", state if head is None else state | {"fc.weight": head}))


def test_whole_pickled_module_is_never_loaded(tmp_path: Path, net: ResNet) -> None:
    assert "save its state_dict()" in refusal(save(tmp_path / "a.pth", net))
    assert "save its state_dict()" in refusal(save(tmp_path / "b.pth", nn.Linear(2, 2)))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    refusal(path)


@pytest.mark.parametrize(
    "content", [{}, [torch.zeros(2)], torch.zeros(2), {1: torch.zeros(2)}, {"epoch": 3}, {"state_dict": {}}, "text"]
)
def test_content_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    assert "state dict" in refusal(save(tmp_path / "a.pth", content))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".safetensors"])
@pytest.mark.parametrize(
    "data",
    [b"", b"hello\n", b"\x80\x02", b"PK\x03\x04", b"\xff" * 64, b"\x89PNG\r\n\x1a\n"],
    ids=["empty", "text", "pickle", "zip", "ff", "png"],
)
def test_no_checkpoint_at_all(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_file(tmp_path: Path, state: Mapping[str, Tensor], suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(dict(state), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "damaged" in refusal(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent.pth")
    assert "directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("file", "arch", "aside"),
    [
        ("resnet20-12fca82f.th", "cifar_resnet20", ("best_prec1",)),
        ("resnet32-d509ac18.th", "cifar_resnet32", ("best_prec1",)),
        ("resnet56-4bfd9763.th", "cifar_resnet56", ("best_prec1",)),
    ],
)
def test_checkpoints_in_circulation(shared: Path, file: str, arch: str, aside: tuple[str, ...]) -> None:
    checkpoint = read_checkpoint(shared / "checkpoints" / file)
    assert (checkpoint.classes, checkpoint.aside) == (10, aside)
    assert fitting_architectures(checkpoint) == [arch]
    assert load_network(checkpoint, arch).spec == get_spec(arch)
