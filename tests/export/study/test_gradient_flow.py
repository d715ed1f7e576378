"""Gradient norms by block: against formulas, and the claims on small networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from export.networks import specs
from export.networks.architecture import Spec
from export.networks.build import build
from export.study import gradient_flow, records
from export.study.gradient_flow import at_initialisation, block_norms, without_norm
from export.study.training_runs import StudyError, gather, perform
from export.train import load_dataset
from tests.export.conftest import TINY
from tests.export.study.conftest import Pictures, tiny_run

DEEP = Spec("basic", (8, 8), "cifar", "A", stem_width=8, width=8, image_size=16)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, 16, 16, generator=generator), torch.arange(8) % 4


@pytest.fixture
def deep_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = {"cifar_plain56": replace(DEEP, shortcut="none"), "cifar_resnet56": DEEP}
    monkeypatch.setattr(specs, "SPECS", {**specs.SPECS, **nets})


def test_last_block_has_the_gradient_of_the_head(batch: tuple[Tensor, Tensor]) -> None:
    """d loss / d maps of softmax, linear and mean: (p - y) W / (batch * pixels), the same at every pixel."""
    images, targets = batch
    net = build(TINY, 4, seed=1)
    maps, _ = block_norms(net, ("layer1.0", "layer2.0"), images, targets)
    pixels = 8 * 8
    with torch.no_grad():
        wrong = net.train()(images).softmax(1) - torch.nn.functional.one_hot(targets, 4)
        expected = (wrong @ net.fc.weight / (len(images) * pixels)).norm() * pixels**0.5
    assert maps[1] == pytest.approx(float(expected), rel=1e-4)


def test_weights_are_those_of_the_block(batch: tuple[Tensor, Tensor]) -> None:
    net = build(TINY, 4, seed=1)
    _, weights = block_norms(net, ("layer1.0",), *batch)
    net.zero_grad()
    torch.nn.functional.cross_entropy(net.train()(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
    block = net.get_submodule("layer1.0")
    expected = torch.cat([p.grad.flatten() for p in block.parameters() if p.grad is not None]).norm()
    assert weights == [pytest.approx(float(expected), rel=1e-4)]


def test_no_hook_stays_behind(batch: tuple[Tensor, Tensor]) -> None:
    net = build(TINY, 4, seed=1)
    block_norms(net, ("layer1.0",), *batch)
    assert not net.get_submodule("layer1.0")._forward_hooks


def test_without_norm_leaves_no_batchnorm() -> None:
    net = build(TINY, 4, seed=1)
    without_norm(net)
    assert not [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert net(torch.zeros(1, 3, 16, 16)).shape == (1, 4)


@pytest.mark.usefixtures("deep_nets")
def test_shortcuts_carry_the_gradient_that_plain_nets_distort(batch: tuple[Tensor, Tensor]) -> None:
    """With BatchNorm a plain net's gradient grows towards the input, a residual net's far less."""
    plain = at_initialisation("cifar_plain56", *batch, classes=4, seeds=(1,))
    residual = at_initialisation("cifar_resnet56", *batch, classes=4, seeds=(1,))
    assert len(plain.maps) == len(plain.weights) == len(plain.blocks) == 16
    assert plain.first_over_last > 20 * residual.first_over_last


@pytest.mark.usefixtures("deep_nets")
def test_without_batchnorm_it_is_the_residual_net_that_explodes(batch: tuple[Tensor, Tensor]) -> None:
    plain = at_initialisation("cifar_plain56", *batch, classes=4, norm=False, seeds=(1,))
    residual = at_initialisation("cifar_resnet56", *batch, classes=4, norm=False, seeds=(1,))
    assert plain.first_over_last < 2
    assert residual.first_over_last > 20


@pytest.mark.usefixtures("tiny_is_known")
def test_seeds_are_averaged_geometrically(batch: tuple[Tensor, Tensor]) -> None:
    one, two, both = (at_initialisation("tiny", *batch, classes=4, seeds=s) for s in ((1,), (2,), (1, 2)))
    for a, b, mean in zip(one.maps, two.maps, both.maps, strict=True):
        assert mean == pytest.approx((a * b) ** 0.5)


@pytest.mark.usefixtures("tiny_is_known")
def test_trained_networks_are_measured_where_there_are_some(
    pictures: Pictures, tmp_path: Path, console: Console
) -> None:
    folder = pictures(count=4, size=16)
    data = load_dataset(folder, 16, console)
    assert [curve.state for curve in gradient_flow.measure(data, tmp_path, {}, ("tiny",))] == [
        "initialisation",
        "initialisation without BN",
    ]
    perform(tiny_run(), folder, folder, tmp_path, console)
    curves = gradient_flow.measure(data, tmp_path, gather(tmp_path), ("tiny",))
    assert curves[-1].state == "trained"
    assert curves[-1].trained == "2 epochs of 8 images"
    records.save(curves, tmp_path / "gradients.json")
    assert [
        curve.first_over_last for curve in records.read(gradient_flow.GradientCurve, tmp_path / "gradients.json")
    ] == [curve.first_over_last for curve in curves]


def test_other_families_are_refused() -> None:
    with pytest.raises(StudyError, match="no residual blocks"):
        gradient_flow.residual_spec("densenet121")


def test_foreign_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"arch": "tiny"}]')
    with pytest.raises(StudyError, match=r"a\.json"):
        records.read(gradient_flow.GradientCurve, path)
