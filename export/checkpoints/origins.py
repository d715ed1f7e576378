"""Where weights come from: how each origin is recognised, and how its names become the network's own.

The first origin of ``ORIGINS`` whose marks are there is taken, unless the caller
names one. Names are translated by all of ``_RENAMES`` whose marks are there, so
weights of one origin inside a checkpoint of another (a Hugging Face network in a
LightningModule) are read too.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from export.checkpoints.state_dicts import State
from export.checkpoints.weight_files import TORCH_EXPORT
from export.networks.architecture import AnySpec
from export.preprocessing import InputOptions

HEAD: Final = "fc.weight"


@dataclass(frozen=True)
class Description:
    """What an origin says of a network beside its weights; None where it says nothing.

    architecture -- its name in ``export.networks.specs``, or one made up for ``spec``.
    spec         -- where the origin describes the network rather than names it.
    labels       -- the classes' names, by number.
    input        -- the preprocessing.
    source       -- the file that says so, for messages; ``input_source`` where the preprocessing is in another.
    """

    architecture: str | None = None
    spec: AnySpec | None = None
    labels: tuple[str, ...] | None = None
    input: InputOptions | None = None
    source: str = ""
    input_source: str = ""


@dataclass(frozen=True)
class Clues:
    """What an origin is recognised by.

    format  -- of the file, see ``WeightFile``.
    content -- the file's own keys and values.
    key     -- where in it the state dict lay; None for a bare one.
    prefix  -- what its names had in front.
    names   -- its names without that.
    """

    format: str
    content: Mapping[str, Any]
    key: str | None
    prefix: str
    names: frozenset[str]

    @property
    def bare(self) -> bool:
        """Whether the file is a state dict and nothing else, its names the network's."""
        return self.key is None and not self.prefix

    def has(self, pattern: str) -> bool:
        """Whether a name begins with ``pattern``."""
        return any(re.match(pattern, name) for name in self.names)


@dataclass(frozen=True)
class Origin:
    """One origin.

    marks  -- whether the clues are its own.
    needs  -- in words, what is missing where the marks are not there but the caller names it all the same;
              empty where any state dict may be its.
    common -- of networks that differ in strides or filters only, it has torchvision's and timm's form.
    """

    name: str
    marks: Callable[[Clues], bool]
    needs: str = ""
    common: bool = False


def _training_arguments(content: Mapping[str, Any]) -> str | None:
    """The network's name where a training script kept it: timm's and PyTorch's example's, or torchvision's."""
    arguments = content.get("args")
    kept = getattr(arguments, "model", None) if isinstance(arguments, argparse.Namespace) else None
    name = content.get("arch") or kept
    return name if isinstance(name, str) else None


def named_architecture(content: Mapping[str, Any], known: Mapping[str, AnySpec]) -> str | None:
    """The architecture that a training script noted in its checkpoint, if it is a known one."""
    name = (_training_arguments(content) or "").partition(".")[0]
    return name if name in known else None


_HUGGING_FACE: Final = re.compile(r"(?:resnet\.)?embedder\.embedder\.")
_RESNETV2: Final = r"stages\.\d+\.blocks\."
_TORCHVISION_NAMES: Final = r"layer1\.0\.(?:conv|bn)1\.weight|features\.denseblock1\.denselayer1\.norm\.?1\.weight"

ORIGINS: Final = (
    Origin(
        "export.train",
        lambda clues: {"state_dict", "recipe", "epoch", "labels"} <= clues.content.keys(),
        "no recipe and labels of `python -m export train` in it",
    ),
    Origin(TORCH_EXPORT, lambda clues: clues.format == TORCH_EXPORT, "not an archive of torch.export.save"),
    Origin(
        "lightning",
        lambda clues: "pytorch-lightning_version" in clues.content,
        "no 'pytorch-lightning_version' in it",
    ),
    Origin(
        "huggingface",
        lambda clues: any(_HUGGING_FACE.match(name) for name in clues.names),
        "no names such as 'resnet.embedder.embedder.convolution.weight' in it",
    ),
    Origin(
        "timm",
        lambda clues: clues.has(rf"{_RESNETV2}|conv1\.0\.|layer1\.0\.se\.") or {"arch", "args"} <= clues.content.keys(),
        common=True,
    ),
    Origin(
        "torchvision",
        lambda clues: (
            (clues.bare and clues.has(_TORCHVISION_NAMES) and clues.has(r"layer4\.|features\.norm5\."))
            or ("model" in clues.content and _training_arguments(clues.content) is not None)
        ),
        common=True,
    ),
    Origin("pytorch", lambda clues: True),
)
NAMES: Final = tuple(origin.name for origin in ORIGINS)


def recognise(clues: Clues) -> Origin:
    """The first origin whose marks are there."""
    return next(origin for origin in ORIGINS if origin.marks(clues))


def get_origin(name: str) -> Origin:
    return next(origin for origin in ORIGINS if origin.name == name)


def _stage(match: re.Match[str]) -> str:
    """Their stages count from 0, ours from 1; their convolutions too where there is a third number."""
    stage, block, rest = int(match[1]) + 1, match[2], match[3]
    return f"layer{stage}.{block}.{rest}"


def _hugging_face_layer(match: re.Match[str]) -> str:
    stage, block, layer = int(match[1]) + 1, match[2], int(match[3]) + 1
    return f"layer{stage}.{block}.{'conv' if match[4] == 'convolution' else 'bn'}{layer}."


@dataclass(frozen=True)
class _Renames:
    """Patterns and what takes their place, for state dicts where a name begins with ``mark``."""

    mark: str
    rules: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


_RENAMES: Final = (
    # transformers, modeling_resnet.py.
    _Renames(
        _HUGGING_FACE.pattern,
        (
            (r"^(?:resnet\.)?embedder\.embedder\.convolution\.", "conv1."),
            (r"^(?:resnet\.)?embedder\.embedder\.normalization\.", "bn1."),
            (
                r"^(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.(convolution|normalization)\.",
                _hugging_face_layer,
            ),
            (r"^(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.(shortcut\.)", _stage),
            (r"(?<=\.)shortcut\.convolution\.", "downsample.0."),
            (r"(?<=\.)shortcut\.normalization\.", "downsample.1."),
        ),
    ),
    # timm, resnetv2.py.
    _Renames(
        _RESNETV2,
        (
            (r"^stem\.conv\.", "conv1."),
            (r"^stages\.(\d+)\.blocks\.(\d+)\.(.*)$", _stage),
            (r"^(layer\d+\.\d+\.)norm(\d)\.", r"\1bn\2."),
            (r"(?<=\.)downsample\.conv\.", "downsample.0."),
        ),
    ),
    # torchvision's published DenseNets have the names of an older release: densenet.py, _load_state_dict.
    _Renames(
        r"features\.denseblock1\.denselayer1\.norm\.1\.", ((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),)
    ),
    # The CIFAR networks in circulation: https://github.com/kuangliu/pytorch-cifar.
    _Renames(r"layer\d+\.\d+\.shortcut\.\d\.", ((r"^(layer\d+\.\d+\.)shortcut\.(\d)\.", r"\1downsample.\2."),)),
    _Renames(r"(?:linear|classifier|last_linear|head)\.", ((r"^(?:linear|classifier|last_linear|head\.fc)\.", "fc."),)),
)


def own_names(state: State) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """``state`` by the network's own names, and notes on what was not plain renaming.

    Two names that become one keep the later tensor under its old name, where it is told as no part of the network.
    """
    rules = [rule for group in _RENAMES if any(re.match(group.mark, key) for key in state) for rule in group.rules]
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        new = key
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        renamed[new if new not in renamed else key] = value
    renamed, notes = _plain_head(renamed)
    # There the head is always a Flatten and the linear layer.
    return renamed, () if any(_HUGGING_FACE.match(key) for key in state) else notes


def _plain_head(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The head as a linear layer called ``fc``: out of an ``nn.Sequential``, or of a 1x1 convolution."""
    notes: tuple[str, ...] = ()
    weights = [key for key in state if re.fullmatch(r"fc\.\d+\.weight", key)]
    if HEAD not in state and len(weights) == 1:
        place = weights[0].removesuffix("weight")
        state = {f"fc.{k.removeprefix(place)}" if k.startswith(place) else k: v for k, v in state.items()}
        notes = (f"head: {place[:-1]!r}, the only layer of its nn.Sequential with weights, is taken as linear",)
    head = state.get(HEAD)
    if head is not None and head.ndim == 4 and head.shape[2:] == (1, 1):
        state[HEAD] = head.flatten(1)
    return state, notes
