"""The identity that carries the gradient through a residual block, checked on real blocks.

He et al., "Identity Mappings in Deep Residual Networks", 2016
(https://arxiv.org/abs/1603.05027, equations 1 to 5): with x_{k+1} = x_k + F(x_k),
d x_{k+1} / d x_k = 1 + dF/dx. A pre-activation block is that. A block of 2015 has a
ReLU after the addition, which lets only the rows of the positive outputs pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from export.networks.blocks import ResidualBlock
from export.networks.classifier import Classifier
from export.study.training_runs import StudyError

# 8x8 of the first stage's 16 channels: a Jacobian of 1024 by 1024.
CROP = 8
STEP = 1e-6


@dataclass(frozen=True)
class IdentityCheck:
    """Jacobians of one block at one real input, in float64.

    entries           -- rows (and columns) of the Jacobians.
    identity_error    -- largest difference between that of the block and 1 + that of its branch, by autograd.
    difference_error  -- largest difference between that of the block by autograd and by central differences.
    diagonal          -- mean of the diagonal of the block's Jacobian.
    branch_diagonal   -- mean of the diagonal of the branch's.
    branch_norm       -- spectral norm of the branch's, where the identity's is one.
    """

    arch: str
    block: str
    trained: bool
    entries: int
    identity_error: float
    difference_error: float
    diagonal: float
    branch_diagonal: float
    branch_norm: float


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """d function / d x by autograd, ``[outputs, inputs]``; ``x`` ``[1, c, h, w]``."""
    found = torch.autograd.functional.jacobian(function, x, vectorize=True)  # type: ignore[no-untyped-call]
    return torch.as_tensor(found).reshape(-1, x.numel())


def central_differences(function: Callable[[Tensor], Tensor], x: Tensor, step: float = STEP) -> Tensor:
    """The same Jacobian without autograd."""
    moves = step * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape[1:])
    with torch.no_grad():
        columns = (function(x + moves) - function(x - moves)) / (2 * step)
    return columns.flatten(1).T


def block_input(net: Classifier, name: str, images: Tensor, crop: int = CROP) -> Tensor:
    """What reaches the block ``name`` of the first of ``images``: its centre, ``[1, c, crop, crop]``."""
    seen: list[Tensor] = []
    hook = net.get_submodule(name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        with torch.no_grad():
            net.eval()(images[:1])
    finally:
        hook.remove()
    top, left = ((size - crop) // 2 for size in seen[0].shape[-2:])
    return seen[0][..., top : top + crop, left : left + crop].double()


def check(arch: str, net: Classifier, name: str, images: Tensor, trained: bool, crop: int = CROP) -> IdentityCheck:
    """Compare the Jacobians of the block ``name`` of ``net`` at what the first of ``images`` makes of it."""
    block = net.get_submodule(name)
    if not isinstance(block, ResidualBlock) or block.plain or block.downsample is not None:
        raise StudyError(f"{arch}: {name} has no identity shortcut")
    x = block_input(net, name, images, crop)
    block = block.double().eval()
    whole, branch = jacobian(block, x), jacobian(block.branch, x)
    expected = torch.eye(len(whole), dtype=whole.dtype) + branch
    if not block.pre:
        expected = expected * (block(x) > 0).reshape(-1, 1)
    measured = central_differences(block, x)
    block.float()
    return IdentityCheck(
        arch=arch,
        block=name,
        trained=trained,
        entries=len(whole),
        identity_error=float((whole - expected).abs().max()),
        difference_error=float((whole - measured).abs().max()),
        diagonal=float(whole.diagonal().mean()),
        branch_diagonal=float(branch.diagonal().mean()),
        branch_norm=float(torch.linalg.matrix_norm(branch, 2)),
    )
