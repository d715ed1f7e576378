"""Reads trained weights: a state dict, wherever it comes from, as the network's own keys.

Nothing in a file is ever executed: PyTorch files are read with
``weights_only=True``, safetensors hold no code. A state dict may lie inside a
training checkpoint (``{"state_dict": ..., "epoch": ...}``), carry the prefix of
``DataParallel`` or ``torch.compile``, and call its head ``linear`` as the
CIFAR checkpoints in circulation do. Every tensor must find its place: a missing,
unknown or misshapen one is an error, never a warning.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from export.errors import ExportError
from export.resnet import ResNet
from export.specs import SPECS, get_spec

HEAD: Final = "fc.weight"
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES: Final = ("module.", "_orig_mod.")
_COUNTER: Final = "num_batches_tracked"


class CheckpointError(ExportError):
    """The weights cannot be read or do not fit; the message names the file and the key."""


@dataclass(frozen=True)
class Training:
    """What ``export.train`` wrote beside the weights: its recipe, the epochs behind it, the classes' names."""

    recipe: Mapping[str, str | int | float]
    epoch: int
    labels: tuple[str, ...]

    @property
    def arch(self) -> str:
        return str(self.recipe["arch"])


@dataclass(frozen=True)
class Checkpoint:
    """Weights by the network's own keys, and where they came from.

    origin   -- ``torchvision`` (a bare state dict with its keys), ``export.train`` (ours), else ``pytorch``.
    sha256   -- of the file, in hexadecimal.
    aside    -- keys of the file beside the state dict: an optimizer, an epoch. They are not exported.
    training -- where ``export.train`` wrote the file, what it wrote; else None.
    """

    path: Path
    sha256: str
    origin: str
    state: Mapping[str, Tensor]
    aside: tuple[str, ...] = ()
    training: Training | None = None

    @property
    def classes(self) -> int:
        """Outputs of the head."""
        head = self.state.get(HEAD)
        if head is None:
            raise CheckpointError(f"{self.path}: no head: neither {HEAD!r} nor 'linear.weight' is there")
        if head.ndim != 2 or head.shape[0] == 0:
            raise CheckpointError(f"{self.path}: {HEAD!r} is {_shape(head)}; a head is [classes, features]")
        return int(head.shape[0])


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights in ``path``; ``CheckpointError`` where it is no checkpoint or has a value that is not finite."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    content = _parse(path, data)
    state, aside = _unwrap(path, content)
    renamed = _own_keys(state)
    _check_values(path, renamed)
    training = _training(content)
    if training:
        origin = "export.train"
    elif not aside and renamed.keys() == state.keys() == content.keys() and "layer4.0.conv1.weight" in state:
        origin = "torchvision"
    else:
        origin = "pytorch"
    return Checkpoint(path, hashlib.sha256(data).hexdigest(), origin, renamed, aside, training)


def _parse(path: Path, data: bytes) -> Mapping[str, Any]:
    try:
        content = safetensors.torch.load(data) if path.suffix == ".safetensors" else _torch_load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file, or a damaged one: {error}") from error
    except Exception as error:
        if "Unsupported global" in str(error):
            raise CheckpointError(
                f"{path}: holds Python objects, a whole pickled model perhaps, which are never loaded; "
                "save its state_dict() instead"
            ) from error
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or a damaged one") from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path}: holds {_kind(content)}, not a state dict")
    return content


def _torch_load(data: bytes) -> Any:
    with warnings.catch_warnings():
        # TorchScript archives and sparse tensors are refused below with a line of our own.
        for message in (".*looks like a TorchScript archive", "Validating sparse tensor invariants"):
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _kind(content: object) -> str:
    return "a dict with keys that are no names" if isinstance(content, Mapping) else f"a {type(content).__name__}"


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def _unwrap(path: Path, content: Mapping[str, Any]) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """The state dict in ``content`` and the keys beside it."""
    if _is_state(content):
        return content, ()
    for wrapper in _WRAPPERS:
        if _is_state(content.get(wrapper)):
            return content[wrapper], tuple(key for key in content if key != wrapper)
    keys = ", ".join(list(content)[:5]) or "none"
    raise CheckpointError(f"{path}: no state dict in it, bare or under {', '.join(_WRAPPERS)}; its keys: {keys}")


def _own_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` without the prefixes of wrappers, its head called ``fc``."""
    renamed = dict(state)
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in renamed)), None):
        renamed = {key.removeprefix(prefix): value for key, value in renamed.items()}
    if HEAD not in renamed:
        renamed = {_head_key(key): value for key, value in renamed.items()}
    return renamed


def _head_key(key: str) -> str:
    return f"fc.{key.removeprefix('linear.')}" if key.startswith("linear.") else key


def _check_values(path: Path, state: Mapping[str, Tensor]) -> None:
    for key, value in state.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise CheckpointError(f"{path}: {key!r} is not a plain tensor")
        if key.endswith(_COUNTER):
            continue
        if not value.is_floating_point():
            raise CheckpointError(f"{path}: {key!r} is of {value.dtype}; weights are floating-point numbers")
        if not bool(torch.isfinite(value.float()).all()):
            raise CheckpointError(f"{path}: {key!r} holds a value that is not finite; training diverged?")


def _training(content: Mapping[str, Any]) -> Training | None:
    """What ``export.train`` wrote into ``content``, if it was export.train that wrote it."""
    recipe, epoch, labels = content.get("recipe"), content.get("epoch"), content.get("labels")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("arch"), str) or not isinstance(epoch, int):
        return None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return None
    return Training(recipe, epoch, tuple(labels))


def _skeleton(arch: str, classes: int) -> ResNet:
    """The network's shapes, without memory for its weights."""
    with torch.device("meta"):
        return ResNet(get_spec(arch), classes)


def load_network(checkpoint: Checkpoint, arch: str) -> ResNet:
    """``arch`` with the weights of ``checkpoint``, fp32, in evaluation mode.

    ``CheckpointError`` names the first key that is missing, unknown or has
    another shape, and the architecture that fits, if one does.
    """
    net = _skeleton(arch, checkpoint.classes)
    problem = _misfit(checkpoint.state, net)
    if problem:
        fitting = fitting_architectures(checkpoint)
        hint = f"; it fits --arch {' or '.join(fitting)}" if fitting else ""
        raise CheckpointError(f"{checkpoint.path}: does not fit {arch}: {problem}{hint}")
    net = net.to_empty(device="cpu")
    # Not strict only for the missing batch counters, which old checkpoints lack and inference ignores.
    net.load_state_dict({k: v for k, v in checkpoint.state.items() if not k.endswith(_COUNTER)}, strict=False)
    for key, buffer in net.named_buffers():
        if key.endswith(_COUNTER):
            buffer.zero_()
    return net.eval()


def fitting_architectures(checkpoint: Checkpoint) -> list[str]:
    """Names of the architectures whose keys and shapes are those of ``checkpoint``."""
    classes = checkpoint.classes
    features = checkpoint.state[HEAD].shape[1]
    # Building a network to compare with takes a moment; most are ruled out by the width of their head.
    likely = [arch for arch, spec in SPECS.items() if spec.embedding_size == features]
    return [arch for arch in likely if _misfit(checkpoint.state, _skeleton(arch, classes)) is None]


def _misfit(state: Mapping[str, Tensor], net: ResNet) -> str | None:
    """Why ``state`` is not for ``net``: the first key and how many more; None where it is."""
    expected = net.state_dict()
    problems = [f"{key!r} {_shape(value)} is missing" for key, value in expected.items() if _needed(key, state)]
    problems += [f"{key!r} {_shape(value)} is not part of it" for key, value in state.items() if key not in expected]
    problems += [
        f"{key!r} is {_shape(state[key])}, not {_shape(value)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if not problems:
        return None
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return problems[0] + more


def _needed(key: str, state: Mapping[str, Tensor]) -> bool:
    return key not in state and not key.endswith(_COUNTER)


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
