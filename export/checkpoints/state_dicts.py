"""The one state dict of a training checkpoint, and the network's own part of its names.

A state dict may lie bare in its file or under a key of a training checkpoint,
beside its moving average. Its names may carry what wrapped the network:
``module.`` of ``DataParallel`` and DDP, ``_orig_mod.`` of ``torch.compile``,
``model.`` or ``net.`` of a LightningModule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from export.checkpoints.weight_files import CheckpointError

State = Mapping[str, Tensor]

# Moving averages go first, as in timm's load_checkpoint (timm/models/_helpers.py): they are what was evaluated.
AVERAGES: Final = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict")
WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "net")
# torch.optim.swa_utils.AveragedModel counts its updates under this name.
_NOT_WEIGHTS: Final = frozenset({"n_averaged"})
# First parts of names that are the network's own, never a wrapper's.
_OWN: Final = frozenset({"fc", "linear", "classifier", "last_linear", "head", "features"})
_HEAD: Final = re.compile(r"(?:fc|linear|classifier|last_linear|head\.fc)(?:\.\d+)?\.weight")


@dataclass(frozen=True)
class Found:
    """A state dict without its wrappers' prefixes.

    key    -- where in the file it lay; None for a bare one.
    prefix -- what its names had in front.
    aside  -- what else the file has: other keys, and names that belong to no part of the network.
    notes  -- what the caller may want to know of the choice.
    """

    state: State
    key: str | None = None
    prefix: str = ""
    aside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def find_state(path: Path, content: Mapping[str, Any], wanted: str | None = None) -> Found:
    """The state dict in ``content``; ``wanted`` forces its key, or the prefix of its names.

    ``CheckpointError`` where there is none, or several that might be meant.
    """
    if wanted is not None and is_state(content.get(wanted)):
        key: str | None = wanted
    elif is_state(content):
        key = None
    else:
        key = next((k for k in (*AVERAGES, *WRAPPERS) if is_state(content.get(k))), None)
        if key is None:
            keys = ", ".join(list(content)[:5]) or "none"
            raise CheckpointError(f"{path}: no state dict in it, bare or under {', '.join(WRAPPERS)}; its keys: {keys}")
    aside = tuple(k for k in content if k != key) if key else ()
    prefix = None if key == wanted or wanted is None else _dotted(wanted)
    state, prefix, left = _unwrap(path, content[key] if key else content, prefix)
    return Found(state, key, prefix, aside + left, _notes(key, wanted, content))


def _notes(key: str | None, wanted: str | None, content: Mapping[str, Any]) -> tuple[str, ...]:
    raw = next((k for k in WRAPPERS if is_state(content.get(k))), None)
    if key in AVERAGES and wanted is None and raw:
        return (f"weights: the moving average {key!r}; --weights {raw} takes those of the last step",)
    return ()


def _dotted(prefix: str) -> str:
    return prefix if prefix.endswith(".") else f"{prefix}."


def _unwrap(path: Path, state: State, wanted: str | None) -> tuple[State, str, tuple[str, ...]]:
    """``state`` without the prefix of its names, the prefix, and the names that had another."""
    kept = {key: value for key, value in state.items() if key not in _NOT_WEIGHTS}
    bare, prefix = _strip(kept)
    if wanted is None and not _has_head(bare):
        wanted = _only_part_with_a_head(path, bare)
    if wanted is None or f".{wanted}" in f".{prefix}":
        return bare, prefix, ()
    part = {key.removeprefix(wanted): value for key, value in bare.items() if key.startswith(wanted)}
    if not part:
        there = ", ".join(sorted({_first(key) for key in kept})[:5])
        raise CheckpointError(f"{path}: no state dict and no names under --weights {wanted[:-1]}; there: {there}")
    left = tuple(key for key in bare if not key.startswith(wanted))
    part, inner = _strip(part)
    return part, prefix + wanted + inner, left


def _strip(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """``state`` without the prefixes that all its names share, and these."""
    removed = ""
    while state:
        prefix = _first(next(iter(state))) + "."
        if prefix[:-1] in _OWN or not all(key.startswith(prefix) for key in state):
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        removed += prefix
    return state, removed


def _first(key: str) -> str:
    return key.partition(".")[0]


def _has_head(state: State) -> bool:
    return any(_HEAD.fullmatch(key) for key in state)


def _only_part_with_a_head(path: Path, state: dict[str, Tensor]) -> str | None:
    """The prefix of the one network among several modules, such as a loss with weights; None where there is none."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        parts.setdefault(_first(key) + ".", {})[key] = value
    found = [prefix for prefix, part in parts.items() if prefix[:-1] not in _OWN and _has_head(_strip(part)[0])]
    if len(found) > 1:
        choices = " or ".join(f"--weights {prefix[:-1]}" for prefix in found)
        raise CheckpointError(f"{path}: holds more than one network; say which: {choices}")
    return found[0] if found else None
