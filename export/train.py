"""Train a CIFAR-size residual network on a folder or zip of labelled images.

The recipe: SGD with Nesterov momentum; learning rate up linearly for the first
fifth and down to zero for the rest (Smith and Topin, "Super-Convergence", 2017,
https://arxiv.org/abs/1708.07120); weight decay on convolutions and the head
only; random flips and 4-pixel shifts (He et al. 2015, section 4.2); an erased
8x8 square (DeVries and Taylor, "Cutout", 2017, https://arxiv.org/abs/1708.04552);
label smoothing 0.1. Forward and backward in bfloat16, channels last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from export.checkpoints.checkpoint import read_checkpoint
from export.errors import ExportError
from export.images.files import list_images, read_images, spread
from export.networks.build import build
from export.networks.classifier import Classifier
from export.networks.specs import get_spec
from model_store.durable import sync

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


class TrainingError(ExportError):
    """Training cannot start or go on; the message says why."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result but the data."""

    arch: str = "cifar_resnet16_wide2"
    epochs: int = 24
    batch_size: int = 128
    peak_learning_rate: float = 0.2
    warm_up_share: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    shift_pixels: int = 4
    cutout_pixels: int = 8
    seed: int = 1


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave; errors are shares of images.

    loss             -- mean over the epoch's batches, augmented and in training mode.
    training_error   -- of the same batches, from the same forward passes.
    validation_error -- of the whole validation set after the epoch, in fp32; None where not measured.
    seconds          -- of training alone.
    """

    epoch: int
    loss: float
    training_error: float
    validation_error: float | None
    seconds: float


History = tuple[EpochRecord, ...]


@dataclass(frozen=True)
class Dataset:
    """Images uint8 ``[n, 3, h, w]``, class numbers int64 ``[n]``, the classes' names."""

    images: Tensor
    targets: Tensor
    labels: tuple[str, ...]


def load_dataset(source: Path, size: int, console: Console, count: int | None = None) -> Dataset:
    """Decode the images of ``source`` into memory; classes are its folders in alphabetical order.

    ``count`` takes that many of them, evenly spread over the classes.
    """
    names = list_images(source)
    names = names if count is None else spread(names, count)
    images = np.empty((len(names), size, size, 3), np.uint8)
    found: list[str] = []
    for i, file in enumerate(track(read_images(source, names), f"reading {source.name}", len(names), console=console)):
        image = file.rgb()
        if image.size != (size, size):
            raise TrainingError(f"{file.path} is {image.width}x{image.height}; training takes {size}x{size} images")
        if file.label is None:
            raise TrainingError(f"{file.path} is in no class folder")
        images[i] = np.asarray(image)
        found.append(file.label)
    labels = tuple(sorted(set(found)))
    index = {label: i for i, label in enumerate(labels)}
    targets = torch.tensor([index[label] for label in found])
    return Dataset(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), targets, labels)


def normalise(images: Tensor) -> Tensor:
    """uint8 ``[n, 3, h, w]`` as the networks take it: float, channels last, of about unit variance."""
    mean = torch.tensor(MEAN).view(1, 3, 1, 1) * 255
    std = torch.tensor(STD).view(1, 3, 1, 1) * 255
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, shift: int, cutout: int, generator: torch.Generator) -> Tensor:
    """Shift, flip and erase a part of each of ``images``, float ``[n, 3, h, w]``."""
    n, _, height, width = images.shape

    def draw(limit: int) -> Tensor:
        return torch.randint(limit, (n, 1), generator=generator)

    padded = F.pad(images, (shift,) * 4, mode="reflect")
    rows = draw(2 * shift + 1) + torch.arange(height)
    columns = torch.arange(width).expand(n, width)
    columns = torch.where(draw(2).bool(), columns.flip(1), columns) + draw(2 * shift + 1)
    batch = torch.arange(n).view(n, 1, 1)
    out = padded.permute(0, 2, 3, 1)[batch, rows.unsqueeze(2), columns.unsqueeze(1)]
    if cutout:
        y, x = draw(height) - cutout // 2, draw(width) - cutout // 2
        in_rows = (torch.arange(height) >= y) & (torch.arange(height) < y + cutout)
        in_columns = (torch.arange(width) >= x) & (torch.arange(width) < x + cutout)
        out[in_rows.unsqueeze(2) & in_columns.unsqueeze(1)] = 0.0
    return out.permute(0, 3, 1, 2)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """One triangle over all ``steps``: up for ``warm_up_share``, then down to zero."""
    peak_at = recipe.warm_up_share * steps
    share = step / peak_at if step < peak_at else (steps - step) / (steps - peak_at)
    return recipe.peak_learning_rate * share


def _optimizer(net: Classifier, recipe: Recipe) -> torch.optim.SGD:
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True)


def accuracy(net: nn.Module, data: Dataset, batch_size: int = 500) -> float:
    """Top-1 share of ``data`` in fp32."""
    net.eval()
    right = 0
    with torch.inference_mode():
        for images, targets in zip(
            torch.split(data.images, batch_size), torch.split(data.targets, batch_size), strict=True
        ):
            right += int((net(normalise(images)).argmax(1) == targets).sum())
    return right / len(data.targets)


def _batches(data: Dataset, recipe: Recipe, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, shuffled and augmented by the epoch's own seed, so that resuming repeats nothing."""
    generator = torch.Generator().manual_seed(recipe.seed * 10_000 + epoch)
    order = torch.randperm(len(data.targets), generator=generator)
    for chosen in torch.split(order, recipe.batch_size):
        images = augment(normalise(data.images[chosen]), recipe.shift_pixels, recipe.cutout_pixels, generator)
        yield images, data.targets[chosen]


def run_training(recipe: Recipe, data: Path, out: Path, console: Console, validate: Path | None) -> None:
    """Train ``recipe`` on ``data`` into ``out``; ``ExportError`` before the first epoch where that cannot work."""
    size = get_spec(recipe.arch).image_size
    if out.exists() and read_checkpoint(out).training is None:
        raise TrainingError(f"{out} is there already and was not written by this command; name another --output")
    dataset = load_dataset(data, size, console)
    if len(dataset.labels) < 2:
        raise TrainingError(f"{data}: one class only; there is nothing to tell apart")
    validation = load_dataset(validate, size, console) if validate else None
    if validation and validation.labels != dataset.labels:
        raise TrainingError(f"{validate}: its classes are not those of {data}")
    train(recipe, dataset, out, console, validation)


def train(
    recipe: Recipe,
    data: Dataset,
    checkpoint: Path,
    console: Console,
    validation: Dataset | None = None,
    validate_every: int = 5,
    on_epoch: Callable[[History], None] | None = None,
) -> Classifier:
    """Train, writing ``checkpoint`` after every epoch; one that is there already is resumed.

    ``validation`` is measured every ``validate_every`` epochs and after the last.
    ``on_epoch`` gets the history so far, those epochs before an interruption
    included, once at the start and after every epoch.
    """
    net = build(get_spec(recipe.arch), len(data.labels), seed=recipe.seed)
    net = net.to(memory_format=torch.channels_last)
    optimizer = _optimizer(net, recipe)
    start, history = _resume(checkpoint, net, optimizer, recipe, data.labels)
    if start:
        console.print(f"resuming {checkpoint} after epoch {start} of {recipe.epochs}")
    report = on_epoch or (lambda _: None)
    report(history)
    for epoch in range(start, recipe.epochs):
        began = time.perf_counter()
        loss, error = _train_epoch(recipe, net, optimizer, data, epoch, console)
        seconds = time.perf_counter() - began
        line = f"epoch {epoch + 1}: loss {loss:.3f}, training error {100 * error:.2f} %, {seconds:.0f} s"
        validation_error = None
        if validation is not None and (epoch + 1 == recipe.epochs or (epoch + 1) % validate_every == 0):
            share = accuracy(net, validation)
            validation_error = 1 - share
            line += f", validation accuracy {100 * share:.2f} %"
        history = (*history, EpochRecord(epoch + 1, loss, error, validation_error, seconds))
        _save(checkpoint, net, optimizer, recipe, history, data.labels)
        report(history)
        console.print(line)
    return net.eval()


def _train_epoch(
    recipe: Recipe, net: Classifier, optimizer: torch.optim.SGD, data: Dataset, epoch: int, console: Console
) -> tuple[float, float]:
    """One pass over ``data``; its mean loss and its share of wrong answers."""
    per_epoch = -(-len(data.targets) // recipe.batch_size)
    losses: list[Tensor] = []
    wrong = 0
    net.train()
    batches = track(_batches(data, recipe, epoch), f"epoch {epoch + 1}/{recipe.epochs}", per_epoch, console=console)
    for step, (images, targets) in enumerate(batches, start=epoch * per_epoch):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, recipe.epochs * per_epoch)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(images)
            loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
        wrong += int((logits.detach().argmax(1) != targets).sum())
    return float(torch.stack(losses).mean()), wrong / len(data.targets)


def _save(
    path: Path, net: Classifier, optimizer: torch.optim.SGD, recipe: Recipe, history: History, labels: tuple[str, ...]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {
        "state_dict": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "recipe": asdict(recipe),
        "epoch": history[-1].epoch,
        "labels": list(labels),
        "history": [asdict(record) for record in history],
    }
    temporary = path.with_name(f".{path.name}.tmp")
    torch.save(state, temporary)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def _resume(
    path: Path, net: Classifier, optimizer: torch.optim.SGD, recipe: Recipe, labels: tuple[str, ...]
) -> tuple[int, History]:
    """Load ``path`` if it is there; the number of epochs behind it and their records."""
    if not path.exists():
        return 0, ()
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["recipe"] != asdict(recipe) or tuple(state["labels"]) != labels:
        raise TrainingError(
            f"{path} was trained with another recipe or other classes; remove it or name another --output"
        )
    net.load_state_dict(state["state_dict"])
    optimizer.load_state_dict(state["optimizer"])
    # Checkpoints from before the history was kept have none.
    return int(state["epoch"]), tuple(EpochRecord(**record) for record in state.get("history", ()))
