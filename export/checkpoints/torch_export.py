"""The weights in an archive of ``torch.export.save`` (``.pt2``), without PyTorch's loader, which unpickles.

The archive is a zip file whose entries lie in one folder. Of these are read
``archive_format`` (``pt2``), ``byteorder``, ``data/weights/NAME_weights_config.json``,
which says for every key of the state dict its entry, type, shape and strides, and
``data/weights/weight_N``, the bytes of one storage. The pickles beside them
(sample inputs, custom objects) are not touched. Read from PyTorch 2.14's
``torch/export/pt2_archive/_package.py`` and ``torch/_export/serde/schema.py``.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from typing import Annotated, Final

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

_FORMAT: Final = "archive_format"
_WEIGHTS: Final = "data/weights/"
_CONFIG: Final = "_weights_config.json"
MAX_CONFIG_BYTES: Final = 64 * 2**20
# torch._export.serde.schema.ScalarType and Layout.
_TYPES: Final[dict[int, torch.dtype]] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_STRIDED: Final = 7


class ArchiveError(ValueError):
    """The archive is damaged, or holds what is not read; one line, without the file's name."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Size(_Part):
    as_int: Annotated[int, Field(ge=0, le=2**40)]


class _Meta(_Part):
    dtype: int
    sizes: Annotated[list[_Size], Field(max_length=8)]
    strides: Annotated[list[_Size], Field(max_length=8)]
    storage_offset: _Size
    layout: int


class _Payload(_Part):
    path_name: Annotated[str, Field(pattern=r"^weight_[0-9]{1,9}$")]
    use_pickle: bool
    tensor_meta: _Meta | None


class _Config(_Part):
    config: dict[str, _Payload]


def is_archive(members: Sequence[str]) -> bool:
    """Whether the entries of a zip file are those of such an archive."""
    return any(name.partition("/")[2] == _FORMAT for name in members)


def read_weights(data: bytes) -> dict[str, Tensor]:
    """The state dict in the archive ``data``; ``ArchiveError`` where it is none that can be read safely.

    The caller has seen to it that the entries unpack to no more than ``data`` is.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            root = _root(archive)
            # Mutable, as a tensor on memory that may not be written is none; keys may share one.
            storages: dict[str, bytearray] = {}
            state: dict[str, Tensor] = {}
            for key, payload in _config(archive, root).config.items():
                if payload.path_name not in storages:
                    storages[payload.path_name] = bytearray(archive.read(f"{root}{_WEIGHTS}{payload.path_name}"))
                state[key] = _tensor(key, payload, storages[payload.path_name])
            return state
    except (zipfile.BadZipFile, KeyError, OSError, RuntimeError, NotImplementedError) as error:
        raise ArchiveError(f"a damaged torch.export archive: {' '.join(str(error).split())}") from error


def _root(archive: zipfile.ZipFile) -> str:
    """The folder that all entries lie in, with its slash."""
    entry = next(name for name in archive.namelist() if name.partition("/")[2] == _FORMAT)
    root = entry.removesuffix(_FORMAT)
    if archive.read(entry) != b"pt2":
        raise ArchiveError("a torch.export archive of an unknown format")
    if archive.read(f"{root}byteorder") != b"little":
        raise ArchiveError("a torch.export archive of a big-endian machine, which is not read")
    return root


def _config(archive: zipfile.ZipFile, root: str) -> _Config:
    names = [name for name in archive.namelist() if name.startswith(root + _WEIGHTS) and name.endswith(_CONFIG)]
    if not names:
        raise ArchiveError(
            "a torch.export archive that keeps its weights as a pickle, as before PyTorch 2.9; "
            "save it again with a newer one, or save the state_dict()"
        )
    if len(names) > 1:
        raise ArchiveError(f"a torch.export archive of {len(names)} models; one is exported at a time")
    if archive.getinfo(names[0]).file_size > MAX_CONFIG_BYTES:
        raise ArchiveError(f"a torch.export archive whose table of weights is longer than {MAX_CONFIG_BYTES} bytes")
    try:
        return _Config.model_validate_json(archive.read(names[0]))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArchiveError(f"a damaged torch.export archive: its table of weights: {place}: {first['msg']}") from error


def _tensor(key: str, payload: _Payload, storage: bytearray) -> Tensor:
    meta = payload.tensor_meta
    if payload.use_pickle or meta is None:
        raise ArchiveError(f"{key!r} is pickled in the torch.export archive (a tensor subclass?), so it is not read")
    if meta.layout != _STRIDED or meta.dtype not in _TYPES or len(meta.sizes) != len(meta.strides):
        raise ArchiveError(f"{key!r} is not a plain tensor in the torch.export archive")
    dtype = _TYPES[meta.dtype]
    sizes, strides = [size.as_int for size in meta.sizes], [stride.as_int for stride in meta.strides]
    if math.prod(sizes) * dtype.itemsize > len(storage) or _end(sizes, strides, meta) * dtype.itemsize > len(storage):
        raise ArchiveError(f"{key!r} reaches beyond its bytes in the torch.export archive")
    if not math.prod(sizes):
        return torch.empty(sizes, dtype=dtype)
    flat = torch.frombuffer(storage, dtype=dtype, count=len(storage) // dtype.itemsize)
    return flat.as_strided(sizes, strides, meta.storage_offset.as_int)


def _end(sizes: Sequence[int], strides: Sequence[int], meta: _Meta) -> int:
    """One more than the index of the last element, in elements."""
    if not math.prod(sizes):
        return 0
    return 1 + meta.storage_offset.as_int + sum((n - 1) * stride for n, stride in zip(sizes, strides, strict=True))
