"""Costs counted from shapes, against the networks themselves and against what is published."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from export.networks.architecture import AnySpec
from export.networks.build import parameter_count, skeleton
from export.networks.costs import cost
from export.networks.published import PUBLISHED
from export.networks.specs import SPECS

# Building these takes long; what is special in them is in their shorter sisters too.
DEEP = tuple(name for name, spec in SPECS.items() if sum(spec.depths) > 150)


def _lane(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name


def _classes(spec: AnySpec) -> int:
    return 10 if spec.cifar else 1000


@pytest.mark.parametrize("name", [_lane(name) for name in SPECS])
def test_parameters_are_the_networks(name: str) -> None:
    spec = SPECS[name]
    assert cost(spec, _classes(spec)).parameters == parameter_count(skeleton(spec, _classes(spec)))


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50_v1",
        "plain18",
        "resnetv2_50",
        "wide_resnet50_2",
        "resnext50_32x4d",
        "seresnet18",
        "resnet26d",
        "ecaresnet26t",
        "resnetblur18",
        "resnetblur50d",
        "densenet121",
        "cifar_resnet20_c",
        "cifar_preresnet20",
        "cifar_wrn16_8",
        "cifar_densenet_bc100_12",
        "cifar_highway11",
    ],
)
def test_multiply_adds_are_torchs_count(name: str) -> None:
    spec = SPECS[name]
    image = torch.zeros(1, 3, spec.image_size, spec.image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        skeleton(spec, _classes(spec))(image)
    counted = counter.get_total_flops() // 2
    expected = cost(spec, _classes(spec)).multiply_adds
    # torch does not count ECA's convolution over the means on every release: it is a few thousand.
    assert abs(counted - expected) <= 1e-4 * expected


def as_printed(value: int, figure: str, unit: float) -> bool:
    """Whether ``figure`` is ``value``, exact, or rounded or cut off to its digits."""
    if "," in figure:
        return figure == f"{value:,}"
    digits = len(figure.partition(".")[2])
    step = 10**-digits
    return figure in (f"{value / unit:.{digits}f}", f"{int(value / unit / step + 1e-9) * step:.{digits}f}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_figures_are_the_published_ones(name: str) -> None:
    spec, published = SPECS[name], PUBLISHED[name]
    parameters, multiply_adds = cost(spec, _classes(spec))
    assert published.parameters or published.multiply_adds
    if published.parameters:
        assert as_printed(parameters, published.parameters, 1e6)
    if published.multiply_adds:
        assert as_printed(multiply_adds, published.multiply_adds, 1e9)


def test_torchvisions_figures_are_its_weights_own() -> None:
    """What the table quotes of torchvision is what torchvision says."""
    import torchvision.models as torchvision

    for name, published in PUBLISHED.items():
        if published.source == "torchvision":
            meta = torchvision.get_model_weights(name).DEFAULT.meta
            assert published.parameters == f"{meta['num_params']:,}"
            assert published.multiply_adds == f"{meta['_ops']:.3f}"
