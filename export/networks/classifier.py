"""What every network here is: features, global average pooling, one linear layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn


class Classifier(nn.Module):
    """Normalised float images ``[batch, 3, height, width]`` to logits ``[batch, classes]``.

    ``features`` gives the last maps ``[batch, embedding, h, w]``; ``fc`` is the
    head on their means, so that class activation maps are exact.
    """

    fc: nn.Linear
    features: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.fc(self.features(x).mean(dim=(2, 3))))


def he_initialise(net: nn.Module) -> None:
    """He initialisation of every convolution (https://arxiv.org/abs/1502.01852), as the 2015 paper trains."""
    for module in net.modules():
        # Of a skeleton there is nothing to draw, and drawing it would load PyTorch's compiler first, for a second.
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
