"""How large the gradient is at each block of plain and residual networks.

The norm of d loss / d x, x the output of a block, on one batch of real images:
at initialisation with and without BatchNorm, and after training. BatchNorm
normalises by the batch, as in training. He et al. 2015
(https://arxiv.org/abs/1512.03385, section 4.1) themselves report that with it the
gradients of plain nets do not vanish; this measures what they do instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.checkpoints.checkpoint import read_checkpoint
from export.checkpoints.fitting import load_network
from export.networks.architecture import Spec
from export.networks.build import build
from export.networks.classifier import Classifier
from export.networks.specs import get_spec
from export.study.training_runs import Results, Run, StudyError
from export.train import Dataset, normalise

ARCHS = tuple(f"cifar_{kind}{depth}" for kind in ("plain", "resnet") for depth in (20, 56, 110))
BATCH = 64
SEEDS = (1, 2, 3)

State = Literal["initialisation", "initialisation without BN", "trained"]


@dataclass(frozen=True)
class GradientCurve:
    """Norms along one network, from the first block to the last; geometric means where several seeds are measured.

    maps    -- of d loss / d (output of the block), over the whole batch.
    weights -- of d loss / d (the block's parameters).
    trained -- how: epochs and images; None at initialisation.
    """

    arch: str
    state: State
    blocks: tuple[str, ...]
    maps: tuple[float, ...]
    weights: tuple[float, ...]
    trained: str | None = None

    @property
    def first_over_last(self) -> float:
        """Above one the gradient grows on its way back to the input, below it shrinks."""
        return self.maps[0] / self.maps[-1]


def residual_spec(arch: str) -> Spec:
    """The spec of ``arch``; ``StudyError`` for a family that has no such blocks."""
    spec = get_spec(arch)
    if not isinstance(spec, Spec):
        raise StudyError(f"{arch} has no residual blocks to measure")
    return spec


def without_norm(net: nn.Module) -> None:
    """Take every BatchNorm out of ``net``."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())


def block_norms(
    net: Classifier, blocks: Sequence[str], images: Tensor, targets: Tensor
) -> tuple[list[float], list[float]]:
    """Norms of the gradients of the cross-entropy at ``blocks``: of their output maps, of their parameters."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        outputs.append(output)

    hooks = [net.get_submodule(name).register_forward_hook(keep) for name in blocks]
    try:
        loss = F.cross_entropy(net.train()(images), targets)
    finally:
        for hook in hooks:
            hook.remove()
    parameters = [list(net.get_submodule(name).parameters()) for name in blocks]
    flat = [p for of_block in parameters for p in of_block]
    found = torch.autograd.grad(loss, [*outputs, *flat])
    maps = [float(gradient.norm()) for gradient in found[: len(outputs)]]
    rest = iter(found[len(outputs) :])
    weights = [float(torch.stack([next(rest).norm() for _ in of_block]).norm()) for of_block in parameters]
    return maps, weights


def _mean(rows: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """Geometric, column by column."""
    return tuple(float(value) for value in torch.tensor(list(rows), dtype=torch.float64).log().mean(0).exp())


def at_initialisation(
    arch: str, images: Tensor, targets: Tensor, classes: int, norm: bool = True, seeds: Sequence[int] = SEEDS
) -> GradientCurve:
    """``images`` float ``[n, 3, h, w]``; ``norm`` False measures the network without its BatchNorm layers."""
    spec = residual_spec(arch)
    blocks = tuple(plan.name for plan in spec.blocks())
    maps, weights = [], []
    for seed in seeds:
        net = build(spec, classes, seed)
        if not norm:
            without_norm(net)
        found = block_norms(net, blocks, images, targets)
        maps.append(found[0])
        weights.append(found[1])
    state: State = "initialisation" if norm else "initialisation without BN"
    return GradientCurve(arch, state, blocks, _mean(maps), _mean(weights))


def after_training(run: Run, out: Path, images: Tensor, targets: Tensor) -> GradientCurve:
    """Of the checkpoint that ``run`` left in ``out``."""
    net = load_network(read_checkpoint(run.checkpoint(out)), run.arch)
    blocks = tuple(plan.name for plan in residual_spec(run.arch).blocks())
    maps, weights = block_norms(net, blocks, images, targets)
    trained = f"{run.epochs} epoch{'s' if run.epochs > 1 else ''} of {run.images} images"
    return GradientCurve(run.arch, "trained", blocks, tuple(maps), tuple(weights), trained)


def measure(data: Dataset, out: Path, results: Results, archs: Sequence[str] = ARCHS) -> list[GradientCurve]:
    """All curves on the images of ``data``; after training for ``results``, whose checkpoints are in ``out``."""
    images, targets = normalise(data.images), data.targets
    curves = []
    for arch in archs:
        curves += [at_initialisation(arch, images, targets, len(data.labels), norm) for norm in (True, False)]
        if arch in results:
            curves.append(after_training(results[arch][0].run, out, images, targets))
    return curves
