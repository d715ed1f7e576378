"""d x_{k+1} / d x_k = 1 + dF/dx, on blocks of either order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from export.networks.architecture import Spec
from export.networks.blocks import ResidualBlock
from export.networks.build import build
from export.networks.classifier import Classifier
from export.study import identity, records
from export.study.training_runs import StudyError
from tests.export.conftest import perturb

POST = Spec("basic", (2, 1), "cifar", "A", stem_width=4, width=4, image_size=16)
PRE = replace(POST, order="pre")
BOTTLENECK = Spec("bottleneck", (2,), "cifar", "B", stem_width=4, width=4, image_size=16, order="pre")
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def made(spec: Spec) -> Classifier:
    return perturb(build(spec, 4, seed=3))


@pytest.mark.parametrize("spec", [PRE, POST, BOTTLENECK], ids=["pre", "post", "bottleneck"])
def test_jacobian_is_one_plus_that_of_the_branch(spec: Spec) -> None:
    found = identity.check("net", made(spec), "layer1.1", IMAGES, trained=False, crop=4)
    assert found.entries == 16 * (16 if spec.block == "bottleneck" else 4)
    assert found.identity_error < 1e-4
    assert found.difference_error < 1e-4
    if spec.order == "pre":
        assert found.diagonal == pytest.approx(1 + found.branch_diagonal)


def test_in_float32_as_it_runs() -> None:
    block = made(PRE).get_submodule("layer1.1").eval()
    assert isinstance(block, ResidualBlock)
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    difference = identity.jacobian(block, x) - identity.jacobian(block.branch, x)
    torch.testing.assert_close(difference, torch.eye(64), atol=1e-4, rtol=0)


def test_a_scaled_shortcut_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the input on the shortcut: the identity is off by a half."""

    def halved(self: ResidualBlock, x: Tensor) -> Tensor:
        return x / 2 if self.downsample is None else self.downsample(x)

    monkeypatch.setattr(ResidualBlock, "shortcut", halved)
    found = identity.check("net", made(PRE), "layer1.1", IMAGES, trained=False, crop=4)
    assert found.identity_error == pytest.approx(0.5)


def test_input_is_the_centre_of_what_reaches_the_block() -> None:
    net = made(PRE)
    x = identity.block_input(net, "layer1.0", IMAGES, crop=6)
    torch.testing.assert_close(x.float(), net.get_submodule("conv1")(IMAGES[:1])[..., 5:11, 5:11])


@pytest.mark.parametrize(
    ("spec", "block"), [(PRE, "layer2.0"), (replace(POST, shortcut="none"), "layer1.1"), (PRE, "conv1")]
)
def test_blocks_without_an_identity_are_refused(spec: Spec, block: str) -> None:
    with pytest.raises(StudyError, match="no identity shortcut"):
        identity.check("net", made(spec), block, IMAGES, trained=False, crop=4)


def test_results_are_read_back(tmp_path: Path) -> None:
    found = identity.check("net", made(PRE), "layer1.1", IMAGES, trained=False, crop=2)
    records.save([found], tmp_path / "new" / "identity.json")
    assert records.read(identity.IdentityCheck, tmp_path / "new" / "identity.json") == [found]
    (tmp_path / "a.json").write_text("[{}]")
    with pytest.raises(StudyError, match=r"a\.json"):
        records.read(identity.IdentityCheck, tmp_path / "a.json")
