"""Reads trained weights, wherever they come from, as the network's own names.

A path is a file of weights, an archive of ``torch.export`` or a folder as Hugging
Face's libraries write it. Nothing in it is ever executed (``export.checkpoints.weight_files``);
what it says of architecture, labels and preprocessing comes along. Every tensor
must find its place (``export.checkpoints.fitting``): a missing, unknown or misshapen one is an
error, never a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from export.checkpoints.folders import Folder, find_folder, read_folder
from export.checkpoints.origins import (
    HEAD,
    NAMES,
    Clues,
    Description,
    Origin,
    get_origin,
    named_architecture,
    own_names,
    recognise,
)
from export.checkpoints.state_dicts import Found, State, find_state
from export.checkpoints.torchvision_weights import published
from export.checkpoints.training import Training
from export.checkpoints.weight_files import CheckpointError, WeightFile, read_weight_file
from export.errors import ONE_OUTPUT
from export.networks import specs

__all__ = ["COUNTER", "Checkpoint", "CheckpointError", "read_checkpoint", "shape_of"]

# BatchNorm's count of batches, which old checkpoints lack and inference ignores.
COUNTER: Final = "num_batches_tracked"
_HALF: Final = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Checkpoint:
    """Weights by the network's own names, and what is known of them.

    origin   -- one of ``export.checkpoints.origins.NAMES``.
    sha256   -- of the file, in hexadecimal.
    aside    -- what else the file holds: an optimizer, an epoch. It is not exported.
    training -- where ``export.train`` wrote the file, what it wrote; else None.
    about    -- what the origin says of the network.
    common   -- see ``export.checkpoints.origins.Origin``.
    notes    -- what the caller may want to know.
    """

    path: Path
    sha256: str
    origin: str
    state: Mapping[str, Tensor]
    aside: tuple[str, ...] = ()
    training: Training | None = None
    about: Description = field(default_factory=Description)
    common: bool = False
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """Outputs of the head."""
        head = self.state.get(HEAD)
        if head is None:
            raise CheckpointError(f"{self.path}: no head: neither {HEAD!r} nor 'linear.weight' is there")
        if head.ndim != 2 or head.shape[0] == 0:
            raise CheckpointError(f"{self.path}: {HEAD!r} is {shape_of(head)}; a head is [classes, features]")
        if head.shape[0] == 1:
            raise CheckpointError(f"{self.path}: {ONE_OUTPUT}")
        return int(head.shape[0])


def read_checkpoint(path: Path, origin: str | None = None, weights: str | None = None) -> Checkpoint:
    """The weights in ``path``, their ``origin`` recognised where not given.

    ``weights`` is the key of the state dict in the file, or the prefix of its
    names. ``CheckpointError`` where ``path`` is no checkpoint, not of ``origin``,
    or has a value that is not finite.
    """
    if origin is not None and origin not in NAMES:
        raise CheckpointError(f"unknown origin {origin!r}; known: {', '.join(NAMES)}")
    place = find_folder(path)
    folder = read_folder(place) if place else None
    file = read_weight_file(folder.weights if folder else path)
    found = find_state(file.path, file.content, weights)
    clues = Clues(file.format, file.content, found.key, found.prefix, frozenset(found.state))
    chosen = _origin(path, origin, clues, folder)
    state, notes = own_names(found.state)
    _check_values(file, state)
    return Checkpoint(
        path=path,
        sha256=file.sha256,
        origin=chosen.name,
        state=state,
        aside=found.aside,
        training=_training(file.content),
        about=_about(file, folder, chosen),
        common=chosen.common,
        notes=(*(folder.notes if folder else ()), *found.notes, *notes, *_precision(found)),
    )


def _origin(path: Path, wanted: str | None, clues: Clues, folder: Folder | None) -> Origin:
    """The origin: the caller's, if its marks are there; the folder's; the one recognised."""
    if wanted is None:
        return get_origin(folder.origin) if folder else recognise(clues)
    origin = get_origin(wanted)
    if folder and wanted != folder.origin:
        raise CheckpointError(f"{path}: not of {wanted}: its config.json is of {folder.origin}")
    if origin.needs and not origin.marks(clues):
        raise CheckpointError(f"{path}: not of {wanted}: {origin.needs}")
    return origin


def _about(file: WeightFile, folder: Folder | None, origin: Origin) -> Description:
    if folder:
        return folder.description
    if origin.name == "torchvision" and (known := published(file.sha256)):
        return known
    return Description(architecture=named_architecture(file.content, specs.SPECS))


def _check_values(file: WeightFile, state: State) -> None:
    """``CheckpointError`` unless all are plain tensors of finite numbers, no more of them than the file has bytes."""
    if sum(value.nbytes for value in state.values() if value.layout is torch.strided) > 2 * file.bytes:
        raise CheckpointError(f"{file.path}: its tensors claim more bytes than the file has")
    for key, value in state.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise CheckpointError(f"{file.path}: {key!r} is not a plain tensor")
        if key.endswith(COUNTER):
            continue
        if not value.is_floating_point():
            raise CheckpointError(f"{file.path}: {key!r} is of {value.dtype}; weights are floating-point numbers")
        if not bool(torch.isfinite(value.float()).all()):
            raise CheckpointError(f"{file.path}: {key!r} holds a value that is not finite; training diverged?")


def _precision(found: Found) -> tuple[str, ...]:
    half = {str(value.dtype).removeprefix("torch.") for value in found.state.values() if value.dtype in _HALF}
    return (f"weights: {' and '.join(sorted(half))}, widened to float32",) if half else ()


def _training(content: Mapping[str, Any]) -> Training | None:
    """What ``export.train`` wrote into ``content``, if it was export.train that wrote it."""
    recipe, epoch, labels = content.get("recipe"), content.get("epoch"), content.get("labels")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("arch"), str) or not isinstance(epoch, int):
        return None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return None
    return Training(recipe, epoch, tuple(labels))


def shape_of(tensor: Tensor) -> str:
    return str(list(tensor.shape))
