"""What an execution provider is: whether it can be had here, and a session of a file on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy.typing as npt
import onnxruntime as ort

from model_store.errors import Explained
from service.config import ConfigError, variable
from service.settings import Provider, ProviderSettings

Arithmetic = Literal["fp32", "fp16", "int8", "bf16"]
"""What a file computes in. ``bf16`` is an fp32 file that the provider is asked to round."""

Model = Path | bytes
"""An ONNX file, or its content."""

Kind = Literal["CPU", "GPU"]

GPU_SLOTS: Final = 2  # one batch computes while the next is copied


def kind(provider: Provider) -> Kind:
    """What ``provider`` computes on: a slot of a CPU is a core, which decoding needs too."""
    return "GPU" if provider in ("cuda", "tensorrt") else "CPU"


class ProviderUnavailable(Explained):
    """This provider cannot be had here; the message says why."""


@dataclass(frozen=True)
class Share:
    """One worker's part of the machine and of the work.

    ``cpus`` cores; ``wanted_slots`` batches at once where that is given, so ``Share(cpus, 1)`` puts all cores on one
    batch; ``max_batch`` images in the largest batch, where it is known, for a provider that compiles for sizes.
    """

    cpus: int
    wanted_slots: int | None = None
    max_batch: int | None = None

    def slots(self, provider: Provider) -> int:
        """Batches at the same time: one a core, or two in flight on a GPU."""
        return self.wanted_slots or (GPU_SLOTS if kind(provider) == "GPU" else self.cpus)

    def threads(self, provider: Provider) -> int:
        """Threads for each batch, so that all slots together use all cores."""
        return max(1, self.cpus // self.slots(provider))


class ProviderSession(Protocol):
    """A model ready to run, by as many threads at once as there are slots; ``InferenceSession`` is one."""

    def get_inputs(self) -> Sequence[Any]:
        """The graph's inputs, each with ``name``, ``type`` and ``shape``."""

    def get_outputs(self) -> Sequence[Any]:
        """The graph's outputs, likewise."""

    def run(self, output_names: Sequence[str], feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The outputs asked for, in that order, for inputs by name; the first dimension of all is the batch."""


@dataclass(frozen=True)
class ExecutionProvider:
    """One provider: ``check`` raises ``ProviderUnavailable`` where it cannot be had at all, without loading a model.

    ``open`` gives a session of a model for a share, in an arithmetic; whatever it raises means that there is none.
    """

    name: Provider
    check: Callable[[], None]
    open: Callable[[Model, Share, Arithmetic, ProviderSettings], ProviderSession]


def session_options(threads: int) -> Any:
    """``SessionOptions`` with ``threads`` for a batch; the operators of a residual net give no parallel branches."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads take the cores that decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def refuse_bf16(precision: Arithmetic) -> None:
    """For providers that would run such a variant in fp32 without a word."""
    if precision == "bf16":
        raise ProviderUnavailable("it has no bf16 arithmetic for an fp32 file")


def private_folder(cache_dir: Path, *levels: str) -> Path:
    """The folder ``levels`` below ``cache_dir``, each made for this user alone if missing.

    ``ConfigError`` where others may write to one of them, as what compilers leave there is run. How closed an existing
    ``cache_dir`` is is left to who made it.
    """
    name, folder = variable("cache_dir"), cache_dir
    try:
        cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for level in levels:
            folder /= level
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.stat()
            if found.st_uid not in (0, os.getuid()) or found.st_mode & 0o022:
                raise ConfigError(f"{name}: {folder} must be owned by the service's user and writable by no other")
    except OSError as error:
        raise ConfigError(f"{name}: {folder}: {error.strerror}") from error
    return folder
