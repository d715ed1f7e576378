"""Shattered gradients: how fast the gradient of a network turns as its input moves.

After Balduzzi et al., "The Shattered Gradients Problem", 2017
(https://arxiv.org/abs/1702.08591): random networks from a scalar to a scalar,
200 rectifiers a layer, and df/dx on 256 evenly spaced inputs in [-2, 2]. In a deep
plain net neighbouring inputs have gradients that know nothing of each other
(white noise); in a shallow or a residual net they change in small steps, as a
random walk does (brown noise).

Weights are drawn from N(0, 2 / inputs of the layer) (He et al. 2015,
https://arxiv.org/abs/1502.01852). Biases are drawn from the same distribution:
without them a scalar rectifier net has one kink, at zero, and nothing to
measure. A residual layer is ``x + beta * W relu(BN(x))``, BN over the inputs of
the grid. Its statistics count as constants in the gradient, as when serving.
Plain nets are measured with BN as well, so that it is not BN that makes the
difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

POINTS = 256
RANGE = 2.0
WIDTH = 200
SEEDS = 20
LAGS = 16
DEPTHS = (2, 4, 10, 24, 50)

Kind = Literal["plain", "plain with BN", "residual"]
# The kinds of network that are compared over depth, each with the scale of its residual branches.
FAMILIES: tuple[tuple[Kind, float], ...] = (
    ("plain", 1.0),
    ("plain with BN", 1.0),
    ("residual", 1.0),
    ("residual", 0.1),
)


@dataclass(frozen=True)
class ScalarNet:
    """A random network from a scalar to a scalar.

    depth -- layers of rectifiers. A residual net has a linear stem before them, as pre-activation nets have.
    beta  -- scale of the residual branches.
    """

    kind: Kind
    depth: int
    beta: float = 1.0
    width: int = WIDTH

    def __str__(self) -> str:
        beta = f", beta {self.beta:g}" if self.kind == "residual" else ""
        return f"{self.depth}-layer {self.kind}{beta}"


@dataclass(frozen=True)
class Shattering:
    """How the gradients of one kind of network, or a noise, follow each other along the input.

    autocorrelation -- at lags 0 to ``LAGS - 1``, mean over seeds; one at lag zero.
    spectral_slope  -- a of the power spectrum 1 / frequency^a: 0 is white noise, 2 brown noise.
    rms             -- root mean square of the gradients, all seeds together.
    """

    name: str
    autocorrelation: tuple[float, ...]
    spectral_slope: float
    rms: float


# The three networks of the paper's first figure. The plain one has BN, as the residual one does.
SHOWN = (ScalarNet("plain", 1), ScalarNet("plain with BN", 24), ScalarNet("residual", 50, 0.1))
SHOWN_SEEDS = 60


def grid(points: int = POINTS) -> Tensor:
    """The inputs, ``[points, 1]``."""
    return torch.linspace(-RANGE, RANGE, points).unsqueeze(1)


def _normalise(x: Tensor) -> Tensor:
    """BatchNorm over the points of ``x`` ``[points, width]``, its statistics constants."""
    mean, variance = x.detach().mean(0), x.detach().var(0, unbiased=False)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def output(net: ScalarNet, x: Tensor, seed: int) -> Tensor:
    """f(x), ``[points, 1]``, of the ``net`` that ``seed`` draws."""
    generator = torch.Generator().manual_seed(seed)

    def affine(h: Tensor, outputs: int) -> Tensor:
        drawn = torch.randn(h.shape[1] + 1, outputs, generator=generator) * (2 / h.shape[1]) ** 0.5
        return torch.addmm(drawn[-1], h, drawn[:-1])

    if net.kind == "residual":
        h = affine(x, net.width)
        for _ in range(net.depth):
            h = h + net.beta * affine(F.relu(_normalise(h)), net.width)
        return affine(h, 1)
    h = F.relu(affine(x, net.width))
    for _ in range(net.depth - 1):
        h = affine(h, net.width)
        h = F.relu(_normalise(h) if net.kind == "plain with BN" else h)
    return affine(h, 1)


def gradients(net: ScalarNet, seeds: int = SEEDS, points: int = POINTS) -> Tensor:
    """df/dx at every point for every seed, ``[seeds, points]``."""
    rows = []
    for seed in range(seeds):
        x = grid(points).requires_grad_()
        # Points do not meet in the network, so the gradient of the sum holds each point's own.
        (gradient,) = torch.autograd.grad(output(net, x, seed).sum(), x)
        rows.append(gradient.squeeze(1))
    return torch.stack(rows)


def white_noise(seeds: int = SEEDS, points: int = POINTS) -> Tensor:
    """Independent normal values, ``[seeds, points]``."""
    return torch.randn(seeds, points, generator=torch.Generator().manual_seed(0))


def brown_noise(seeds: int = SEEDS, points: int = POINTS) -> Tensor:
    """Random walks, ``[seeds, points]``."""
    return white_noise(seeds, points).cumsum(1)


NOISES: Mapping[str, Callable[[int], Tensor]] = MappingProxyType(
    {"white noise": white_noise, "brown noise": brown_noise}
)


def autocorrelation(series: Tensor, lags: int = LAGS) -> Tensor:
    """Of each row of ``series`` ``[n, points]``, at lags 0 to ``lags - 1``; the mean over rows, ``[lags]``."""
    centred = series.double() - series.double().mean(1, keepdim=True)
    size = 2 * series.shape[1]
    power = torch.fft.rfft(centred, size).abs().square()
    products: Tensor = torch.fft.irfft(power, size)[:, :lags]
    return (products / products[:, :1]).mean(0).float()


def covariance(series: Tensor) -> Tensor:
    """``[points, points]`` over the rows of ``series``, scaled to a mean of one on the diagonal.

    Each row is first scaled to the same size: a network with steep gradients counts no more than others.
    """
    scaled = series.double() / series.double().square().mean(1, keepdim=True).sqrt()
    found: Tensor = torch.cov(scaled.T)
    return (found / found.diagonal().mean()).float()


def spectral_slope(series: Tensor) -> float:
    """a where the mean power spectrum of the rows falls as 1 / frequency^a, by least squares on the logarithms.

    A window is laid over the rows first: a walk that ends elsewhere than it began
    would otherwise look like a step and smear into every frequency.
    """
    points = series.shape[1]
    centred = series.double() - series.double().mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred * torch.hann_window(points, dtype=torch.float64)).abs().square()
    # Each network counts the same, however steep it is; the two lowest frequencies hold the window itself.
    power = (spectrum / spectrum.sum(1, keepdim=True)).mean(0)[2 : points // 2]
    frequency = torch.arange(2, points // 2, dtype=torch.float64).log()
    design = torch.stack([frequency, torch.ones_like(frequency)], 1)
    slope = torch.linalg.lstsq(design, power.log().unsqueeze(1)).solution[0, 0]
    return -float(slope)


def showcase(seeds: int = SHOWN_SEEDS) -> dict[str, Tensor]:
    """The gradients that the paper's first figure shows, ``[seeds, points]`` by name."""
    nets = {str(net): gradients(net, seeds) for net in SHOWN}
    return {**nets, **{name: noise(seeds) for name, noise in NOISES.items()}}


def measure(name: str, series: Tensor) -> Shattering:
    """What is reported of the rows of ``series``."""
    rms = float(series.double().square().mean().sqrt())
    return Shattering(name, tuple(autocorrelation(series).tolist()), spectral_slope(series), rms)


def measure_all(seeds: int = SEEDS, depths: Sequence[int] = DEPTHS) -> list[Shattering]:
    """Both noises, and every family at every one of ``depths``."""
    found = [measure(name, noise(seeds)) for name, noise in NOISES.items()]
    nets = [ScalarNet(kind, depth, beta) for kind, beta in FAMILIES for depth in depths]
    return [*found, *(measure(str(net), gradients(net, seeds)) for net in (ScalarNet("plain", 1), *nets))]
