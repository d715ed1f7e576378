"""Which architecture a state dict is for: named, the only one, or asked about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from export.checkpoints.checkpoint import Checkpoint, CheckpointError
from export.checkpoints.fitting import choose, fitting_architectures, load_network
from export.checkpoints.origins import Description
from export.errors import ExportError
from export.networks import specs
from export.networks.build import build, skeleton
from export.networks.specs import get_spec

ARCH = "cifar_resnet20_b"


def checkpoint(state: dict[str, Tensor], **fields: object) -> Checkpoint:
    return replace(Checkpoint(Path("a.pth"), "0" * 64, "pytorch", state), **fields)  # type: ignore[arg-type]


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {key: value.clone() for key, value in build(get_spec(ARCH), 10, seed=1).state_dict().items()}


def shapes(arch: str, classes: int = 3) -> Checkpoint:
    return checkpoint(dict(skeleton(get_spec(arch), classes).state_dict()))


def test_the_only_one_that_fits_needs_no_name() -> None:
    found = shapes("seresnext50_32x4d")
    choice = choose(found, None)
    assert (choice.name, choice.spec, choice.notes) == ("seresnext50_32x4d", get_spec("seresnext50_32x4d"), ())


@pytest.mark.parametrize(
    ("arch", "twin"), [("resnet50", "resnet50_v1"), ("resnet18", "resnetblur18"), ("cifar_resnet20", "cifar_plain20")]
)
def test_several_of_the_same_shapes_are_asked_about(arch: str, twin: str) -> None:
    found = shapes(arch)
    fitting = fitting_architectures(found)
    assert {arch, twin} <= set(fitting)
    with pytest.raises(CheckpointError) as caught:
        choose(found, None)
    assert f"name the architecture with --arch; it fits {' or '.join(fitting)}" in str(caught.value)
    assert choose(found, twin).name == twin


def test_origin_that_has_the_common_form_decides_and_says_so() -> None:
    found = replace(shapes("resnet50"), common=True, origin="torchvision")
    choice = choose(found, None)
    assert choice.name == "resnet50"
    (note,) = choice.notes
    assert note.startswith("architecture: resnet50, as in torchvision; of the same shapes are resnet50_v1")


def test_origin_that_names_it_decides() -> None:
    named = replace(shapes("resnet50"), about=Description(architecture="resnet50_v1"))
    assert choose(named, None).name == "resnet50_v1"
    assert choose(named, "resnet50").name == "resnet50"
    spec = get_spec("resnet50")
    described = replace(named, about=Description(architecture="mine", spec=spec))
    assert choose(described, None).spec is spec


def test_nothing_fits(state: dict[str, Tensor]) -> None:
    del state["conv1.weight"]
    with pytest.raises(CheckpointError, match="no known architecture fits"):
        choose(checkpoint(state), None)


def test_unknown_name() -> None:
    with pytest.raises(ExportError, match="unknown architecture 'resnet51'"):
        choose(shapes("resnet18"), "resnet51")


def test_spec_in_a_file(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "my net.json"
    path.write_text(
        '{"block": "basic", "depths": [3, 3, 3], "stem": "cifar", "shortcut": "B", '
        '"stem_width": 16, "width": 16, "image_size": 32}'
    )
    choice = choose(checkpoint(state), str(path))
    assert choice.name == "my net"
    assert load_network(checkpoint(state), choice.name, choice.spec).fc.out_features == 10


def test_weights_arrive(state: dict[str, Tensor]) -> None:
    net = load_network(checkpoint(state), ARCH)
    assert not net.training
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_becomes_single(state: dict[str, Tensor], dtype: torch.dtype) -> None:
    other = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    net = load_network(checkpoint(other), ARCH)
    assert {value.dtype for value in net.parameters()} == {torch.float32}
    assert torch.equal(net.fc.weight, other["fc.weight"].float())


def test_filters_without_parameters_are_computed() -> None:
    """Anti-aliasing's are in no state dict."""
    ours = build(get_spec("resnetblur18"), 3, seed=0)
    net = load_network(checkpoint(dict(ours.state_dict())), "resnetblur18")
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(net(images), ours(images))


def test_missing_batch_counters_are_fine(state: dict[str, Tensor]) -> None:
    older = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    net = load_network(checkpoint(older), ARCH)
    assert all(int(v) == 0 for k, v in net.state_dict().items() if k.endswith("num_batches_tracked"))


def refusal(found: Checkpoint, arch: str = ARCH) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_network(found, arch)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_key(state: dict[str, Tensor]) -> None:
    del state["layer1.0.bn1.running_mean"]
    assert "'layer1.0.bn1.running_mean' [16] is missing" in refusal(checkpoint(state))


def test_unexpected_key(state: dict[str, Tensor]) -> None:
    state["attention.weight"] = torch.zeros(2, 3)
    assert "'attention.weight' [2, 3] is not part of it" in refusal(checkpoint(state))


def test_wrong_shape(state: dict[str, Tensor]) -> None:
    state["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    assert "'conv1.weight' is [16, 1, 3, 3], not [16, 3, 3, 3]" in refusal(checkpoint(state))


def test_wrong_architecture_gets_a_hint(state: dict[str, Tensor]) -> None:
    message = refusal(checkpoint(state), "resnet18")
    assert "does not fit resnet18" in message
    assert message.endswith(f"it fits --arch {ARCH}")


@pytest.mark.parametrize("head", [None, torch.zeros(10), torch.zeros(0, 64)])
def test_no_proper_head(state: dict[str, Tensor], head: Tensor | None) -> None:
    del state["fc.weight"]
    assert "fc.weight" in refusal(checkpoint(state if head is None else state | {"fc.weight": head}))


@pytest.mark.slow
@pytest.mark.parametrize("arch", specs.SPECS)
def test_every_architecture_fits_itself(arch: str) -> None:
    found = shapes(arch)
    assert arch in fitting_architectures(found)
