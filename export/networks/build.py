"""From any spec to its network."""

from __future__ import annotations

import torch
from torch import nn

from export.networks.architecture import AnySpec, DenseNetSpec, HighwaySpec
from export.networks.classifier import Classifier
from export.networks.densenet import DenseNet
from export.networks.highway import Highway
from export.networks.resnet import ResNet


def network(spec: AnySpec, classes: int) -> Classifier:
    """The network of ``spec`` in training mode, on torch's default device."""
    if isinstance(spec, DenseNetSpec):
        return DenseNet(spec, classes)
    if isinstance(spec, HighwaySpec):
        return Highway(spec, classes)
    return ResNet(spec, classes)


def build(spec: AnySpec, classes: int, seed: int | None = None) -> Classifier:
    """The network in evaluation mode; with ``seed``, its weights are reproducible."""
    if seed is not None:
        torch.manual_seed(seed)
    return network(spec, classes).eval()


def skeleton(spec: AnySpec, classes: int) -> Classifier:
    """The network's shapes, without memory for its weights."""
    with torch.device("meta"):
        return network(spec, classes).eval()


def parameter_count(module: nn.Module) -> int:
    """Trained parameters of ``module`` (BatchNorm statistics not counted)."""
    return sum(p.numel() for p in module.parameters())
