"""What settings are made of: how text becomes a value, and is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
)

from model_store.locations import parse_location
from model_store.manifest import parse_reference

Provider = Literal["tensorrt", "cuda", "openvino", "cpu"]
_VERSION_POLICY: Final = re.compile(r"stable|all|latest(:[1-9][0-9]?)?")
ImageFormat = Literal["jpeg", "png", "webp", "bmp", "gif", "tiff"]


def split(value: object) -> object:
    """``"a, b"`` from the environment as ``("a", "b")``."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def model_references(value: object) -> object:
    """``"*"`` as the empty tuple, ``"name,name@2"`` as pairs of name and version."""
    if not isinstance(value, str):
        return value
    if value.strip() == "*":
        return ()
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise ValueError("names no model; '*' takes all")
    references = tuple(parse_reference(part) for part in parts)
    if len(set(references)) < len(references):
        raise ValueError("names a model twice")
    return references


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def _some_path(value: object) -> object:
    """Refuses "", which would be the current folder."""
    if isinstance(value, str) and not value.strip():
        raise ValueError("names no folder")
    return value


def absolute(path: Path) -> Path:
    """Workers may run in another folder than the command that started them."""
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


Folder = Annotated[Path, BeforeValidator(_some_path)]


def _location(value: object) -> object:
    _some_path(value)
    return parse_location(value) if isinstance(value, str) else value


Location = Annotated[Path | str, BeforeValidator(_location)]
"""A folder, or the URL of a store."""


def checked_policy(policy: str) -> str:
    if not _VERSION_POLICY.fullmatch(policy):
        raise ValueError("must be stable, all, latest or latest:N, with N from 1 to 99")
    return policy
