"""Files of weights as plain data: nothing in them is ever executed, and nothing they claim is believed unchecked.

PyTorch files are read with ``weights_only=True``, safetensors hold no code. What
a file claims to hold is compared with its length before memory is asked for, so
that a few bytes cannot unpack to more than the machine has.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError

from export.checkpoints import torch_export
from export.errors import ExportError

MAX_FILE_BYTES: Final = 8 * 2**30
# Of the largest network known here, with 1,202 layers, it is below a megabyte.
MAX_SAFETENSORS_HEADER: Final = 16 * 2**20
TORCH_EXPORT: Final = "torch.export"
_ZIP: Final = b"PK\x03\x04"
_OBJECT: Final = re.compile(r"unsupported global:? (?:global )?([\w.]+)", re.IGNORECASE)
# Whoever trusts the file can save what is wanted of it, in this one line.
WAY_OUT: Final = (
    'where the model was made, save its state_dict() instead: torch.save(model.state_dict(), "weights.pth")'
)


class CheckpointError(ExportError):
    """The weights cannot be read or do not fit; the message names the file and the key."""


@dataclass(frozen=True)
class WeightFile:
    """What a file holds: a state dict or a training checkpoint, by the file's own keys.

    format -- ``pytorch``, ``safetensors`` or ``torch.export``.
    bytes  -- of the file.
    """

    path: Path
    sha256: str
    bytes: int
    format: str
    content: Mapping[str, Any]


def read_weight_file(path: Path) -> WeightFile:
    """The content of ``path``; ``CheckpointError`` where it is no file of weights, or one that cannot be trusted."""
    data = read_bounded(path, MAX_FILE_BYTES)
    kind, content = _parse(path, data)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path}: holds {_kind(content)}, not a state dict")
    return WeightFile(path, hashlib.sha256(data).hexdigest(), len(data), kind, content)


def read_bounded(path: Path, most: int) -> bytes:
    """All of the plain file ``path``; ``CheckpointError`` where it is none or longer than ``most`` bytes."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size > most:
            raise CheckpointError(f"{path}: {status.st_size} bytes; {most} are the most that is read")
        if not stat.S_ISREG(status.st_mode) and not path.is_dir():
            raise CheckpointError(f"{path}: not a plain file")
        with path.open("rb") as file:
            # It may have grown since it was looked at.
            data = file.read(most + 1)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    if len(data) > most:
        raise CheckpointError(f"{path}: longer than {most} bytes, the most that is read")
    return data


def _parse(path: Path, data: bytes) -> tuple[str, Any]:
    """The format and the content of ``data``."""
    if path.suffix == ".safetensors":
        return "safetensors", _safetensors(path, data)
    entries = _entries(path, data) if data.startswith(_ZIP) else []
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(f"{path}: a TorchScript archive, which is code; {WAY_OUT}")
    _check_sizes(path, data, entries)
    if torch_export.is_archive(names):
        try:
            return TORCH_EXPORT, torch_export.read_weights(data)
        except torch_export.ArchiveError as error:
            raise CheckpointError(f"{path}: {error}") from error
    return "pytorch", _torch(path, data)


def _entries(path: Path, data: bytes) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or a damaged one: {_line(error)}") from error


def _check_sizes(path: Path, data: bytes, entries: list[zipfile.ZipInfo]) -> None:
    """``CheckpointError`` unless the entries of a zip file unpack to no more than it is."""
    # PyTorch stores tensors as they are; a compressed entry unpacks to nobody knows how much.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{path}: holds compressed entries, which PyTorch's weights never are; not unpacked")
    if sum(entry.file_size for entry in entries) > len(data):
        raise CheckpointError(f"{path}: its entries claim more bytes than the file has; not unpacked")


def _safetensors(path: Path, data: bytes) -> Any:
    """https://github.com/huggingface/safetensors#format: the header's length, the header (JSON), the tensors."""
    header = int.from_bytes(data[:8], "little")
    if header > MAX_SAFETENSORS_HEADER:
        raise CheckpointError(f"{path}: not a safetensors file, or a damaged one: its header claims {header} bytes")
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or a damaged one: {_line(error)}") from error


def _torch(path: Path, data: bytes) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            # timm and torchvision keep their command line's arguments in checkpoints: a Namespace is plain data.
            # Sparse tensors are refused later, with a line of our own.
            warnings.filterwarnings("ignore", message="Validating sparse tensor invariants", category=UserWarning)
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        found = _OBJECT.search(str(error))
        if not found:
            raise CheckpointError(f"{path}: not a PyTorch checkpoint, or a damaged one") from error
        raise CheckpointError(
            f"{path}: holds Python objects ({found[1]}), a whole pickled model perhaps; never loaded; {WAY_OUT}"
        ) from error


def _kind(content: object) -> str:
    return "a dict with keys that are no names" if isinstance(content, Mapping) else f"a {type(content).__name__}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
