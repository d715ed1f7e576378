"""Finding the one state dict of a training checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from export.checkpoints.state_dicts import AVERAGES, WRAPPERS, find_state
from export.checkpoints.weight_files import CheckpointError

PATH = Path("a.pth")
STATE = {"conv1.weight": torch.ones(1), "layer1.0.conv1.weight": torch.ones(1), "fc.weight": torch.ones(2, 1)}
OTHER = {key: value + 1 for key, value in STATE.items()}


def prefixed(prefix: str, state: Mapping[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


def test_bare() -> None:
    found = find_state(PATH, STATE)
    assert same(found.state, STATE)
    assert (found.key, found.prefix, found.aside, found.notes) == (None, "", (), ())


@pytest.mark.parametrize("wrapper", [*WRAPPERS, *AVERAGES])
def test_under_a_key(wrapper: str) -> None:
    found = find_state(PATH, {"epoch": 3, wrapper: STATE, "optimizer": {"lr": 0.1}})
    assert same(found.state, STATE)
    assert (found.key, found.aside, found.notes) == (wrapper, ("epoch", "optimizer"), ())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.module.", "a.b.c."])
def test_prefixes_that_all_names_share(prefix: str) -> None:
    found = find_state(PATH, {"state_dict": prefixed(prefix)})
    assert same(found.state, STATE)
    assert found.prefix == prefix


@given(parts=st.lists(st.sampled_from(["module", "model", "net", "_orig_mod", "backbone", "x_1"]), max_size=5))
def test_any_prefix_is_taken_off(parts: list[str]) -> None:
    prefix = "".join(f"{part}." for part in parts)
    assert same(find_state(PATH, prefixed(prefix)).state, STATE)


@pytest.mark.parametrize("average", AVERAGES)
def test_moving_average_goes_before_the_last_step(average: str) -> None:
    """As in timm's ``load_state_dict``."""
    content = {"state_dict": STATE, average: prefixed("module.", OTHER)}
    found = find_state(PATH, content)
    assert same(found.state, OTHER)
    (note,) = found.notes
    assert note == f"weights: the moving average {average!r}; --weights state_dict takes those of the last step"
    assert found.aside == ("state_dict",)


@pytest.mark.parametrize(("wanted", "expected"), [("state_dict", STATE), ("state_dict_ema", OTHER)])
def test_key_can_be_forced(wanted: str, expected: Mapping[str, Tensor]) -> None:
    found = find_state(PATH, {"state_dict": STATE, "state_dict_ema": OTHER}, wanted)
    assert same(found.state, expected)
    assert found.notes == ()


def test_key_of_any_name_can_be_forced() -> None:
    assert same(find_state(PATH, {"student": OTHER, "model": STATE}, "student").state, OTHER)


def test_average_that_was_never_made() -> None:
    """timm writes none where training kept none."""
    assert same(find_state(PATH, {"state_dict": STATE, "state_dict_ema": None}).state, STATE)


def test_counter_of_an_averaged_model_is_no_weight() -> None:
    """``torch.optim.swa_utils.AveragedModel``, which torchvision's reference training saves."""
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Sequential(torch.nn.Linear(2, 3)))
    content = {"model_ema": averaged.state_dict()}
    assert "n_averaged" in content["model_ema"]
    found = find_state(PATH, content)
    assert set(found.state) == {"weight", "bias"}
    assert found.prefix == "module.0."


def test_loss_with_weights_beside_the_network() -> None:
    content = {"state_dict": prefixed("model.") | {"criterion.weight": torch.ones(2)}}
    found = find_state(PATH, content)
    assert same(found.state, STATE)
    assert (found.prefix, found.aside) == ("model.", ("criterion.weight",))


def test_two_networks_are_asked_about() -> None:
    content = {"state_dict": prefixed("student.") | prefixed("teacher.module.", OTHER)}
    with pytest.raises(CheckpointError, match=r"--weights student or --weights teacher"):
        find_state(PATH, content)
    found = find_state(PATH, content, "teacher")
    assert same(found.state, OTHER)
    assert found.prefix == "teacher.module."
    assert set(found.aside) == set(prefixed("student."))


@pytest.mark.parametrize("wanted", ["model", "model."])
def test_prefix_that_is_there_anyway_can_be_named(wanted: str) -> None:
    for prefix in ("model.", "module.model.", "model._orig_mod."):
        assert same(find_state(PATH, prefixed(prefix), wanted).state, STATE)


@pytest.mark.parametrize("wanted", ["optimizer", "teacher", ""])
def test_key_that_is_not_there(wanted: str) -> None:
    with pytest.raises(CheckpointError, match=r"no state dict and no names under --weights .*there: conv1, fc, layer1"):
        find_state(PATH, {"state_dict": STATE, "optimizer": {"lr": 1}}, wanted)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {}}, {"state_dict": [STATE]}, {"model": 7}])
def test_no_state_dict(content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="no state dict in it"):
        find_state(PATH, content)


def test_names_of_the_network_are_no_prefix() -> None:
    """DenseNets without a head would lose the first part of their names."""
    state = {"features.conv0.weight": torch.ones(1), "features.norm5.weight": torch.ones(1)}
    assert same(find_state(PATH, state).state, state)
