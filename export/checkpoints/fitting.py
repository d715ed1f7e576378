"""Which network a state dict is for, and that network with its weights.

Several networks may have the same names and shapes: where a bottleneck strides,
whether a shortcut pads or is not there at all, leave no trace in the weights.
Then the origin must say which, or the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from export.checkpoints.checkpoint import COUNTER, Checkpoint, CheckpointError, shape_of
from export.checkpoints.origins import HEAD
from export.networks import specs
from export.networks.architecture import AnySpec
from export.networks.build import build, skeleton
from export.networks.classifier import Classifier
from export.networks.costs import cost
from export.networks.specs import get_spec

_STATISTICS = ("running_mean", "running_var", COUNTER)


@dataclass(frozen=True)
class Choice:
    """An architecture, and what the caller may want to know of how it was found."""

    name: str
    spec: AnySpec
    notes: tuple[str, ...] = ()


def choose(checkpoint: Checkpoint, wanted: str | None) -> Choice:
    """The architecture: the one ``wanted``, the one that the origin names, the one that fits.

    ``CheckpointError`` where several fit and nobody says which, or none does.
    """
    if wanted is not None:
        return Choice(Path(wanted).stem if wanted.endswith(".json") else wanted, get_spec(wanted))
    about = checkpoint.about
    if checkpoint.training:
        # Only names: a checkpoint from elsewhere does not choose which files of this machine are read.
        if checkpoint.training.arch not in specs.SPECS:
            raise CheckpointError(f"{checkpoint.path}: trained as {checkpoint.training.arch!r}; name it with --arch")
        return Choice(checkpoint.training.arch, get_spec(checkpoint.training.arch))
    if about.architecture is not None:
        return Choice(about.architecture, about.spec or get_spec(about.architecture))
    fitting = fitting_architectures(checkpoint)
    if not fitting:
        raise CheckpointError(f"{checkpoint.path}: name the architecture with --arch; no known architecture fits")
    first, *others = fitting
    if others and not checkpoint.common:
        raise CheckpointError(
            f"{checkpoint.path}: name the architecture with --arch; it fits {' or '.join(fitting)}, "
            f"which have the same shapes"
        )
    # The table has torchvision's and timm's names first.
    note = f"architecture: {first}, as in {checkpoint.origin}; of the same shapes are {', '.join(others)}"
    return Choice(first, get_spec(first), (note,) if others else ())


def load_network(checkpoint: Checkpoint, arch: str, spec: AnySpec | None = None) -> Classifier:
    """``arch`` (with ``spec``, that network) with the weights of ``checkpoint``, fp32, in evaluation mode.

    ``CheckpointError`` names the first key that is missing, unknown or has
    another shape, and the architecture that fits, if one does.
    """
    spec = spec or get_spec(arch)
    net = skeleton(spec, checkpoint.classes)
    expected = net.state_dict()
    if problem := _misfit(checkpoint.state, expected):
        fitting = fitting_architectures(checkpoint)
        hint = f"; it fits --arch {' or '.join(fitting)}" if fitting else ""
        raise CheckpointError(f"{checkpoint.path}: does not fit {arch}: {problem}{hint}")
    # Constants that no state dict has, such as the filters of anti-aliasing, are there only once they are computed.
    constants = {name for name, _ in net.named_buffers()} - expected.keys()
    net = build(spec, checkpoint.classes) if constants else net.to_empty(device="cpu")
    # Not strict only for the missing batch counters.
    net.load_state_dict({k: v for k, v in checkpoint.state.items() if not k.endswith(COUNTER)}, strict=False)
    for key, buffer in net.named_buffers():
        if key.endswith(COUNTER):
            buffer.zero_()
    return net.eval()


def fitting_architectures(checkpoint: Checkpoint) -> list[str]:
    """Names of the architectures whose keys and shapes are those of ``checkpoint``."""
    classes, state = checkpoint.classes, checkpoint.state
    features = state[HEAD].shape[1]
    parameters = sum(value.numel() for key, value in state.items() if not key.endswith(_STATISTICS))
    # Building a network to compare with takes a moment; almost all are ruled out by two numbers.
    likely = [
        arch
        for arch, spec in specs.SPECS.items()
        if spec.embedding_size == features and cost(spec, classes).parameters == parameters
    ]
    return [arch for arch in likely if _misfit(state, skeleton(get_spec(arch), classes).state_dict()) is None]


def _misfit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Why ``state`` is not ``expected``: the first key and how many more; None where it is."""
    problems = [f"{key!r} {shape_of(value)} is missing" for key, value in expected.items() if _needed(key, state)]
    problems += [f"{key!r} {shape_of(value)} is not part of it" for key, value in state.items() if key not in expected]
    problems += [
        f"{key!r} is {shape_of(state[key])}, not {shape_of(value)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if not problems:
        return None
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return problems[0] + more


def _needed(key: str, state: Mapping[str, Tensor]) -> bool:
    return key not in state and not key.endswith(COUNTER)
