"""What models, versions and aliases may be called: safe as files, in URLs and in commands."""

from __future__ import annotations

import re
from typing import Final

STABLE: Final = "stable"
"""The alias that every model has: the promoted version, else the newest."""

_MODEL_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")
_ALIAS: Final = re.compile(r"(?=.*[a-z-])[a-z0-9][a-z0-9-]{0,31}")


def check_name(name: str) -> str:
    """A model's name, safe as a folder and in a URL, or ``ValueError``."""
    if not _MODEL_NAME.fullmatch(name) or ".." in name:
        raise ValueError(
            f"{name!r} is no model name: at most 64 of a-z, 0-9, '.', '_', '-', the first a letter or digit"
        )
    return name


def check_version(version: str) -> str:
    """A version is a whole number from 1, as text, or ``ValueError``."""
    if not _VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is no version: a whole number from 1")
    return version


def check_alias(alias: str) -> str:
    """A name for one version of a model, never to be taken for a number, or ``ValueError``."""
    if not _ALIAS.fullmatch(alias):
        raise ValueError(
            f"{alias!r} is no alias: at most 32 of a-z, 0-9, '-', the first a letter or digit, and not a number"
        )
    return alias


def is_alias(version: str) -> bool:
    """Whether ``version`` could be an alias; else it is a number, or neither."""
    return _ALIAS.fullmatch(version) is not None


def parse_reference(text: str) -> tuple[str, str | None]:
    """``NAME``, ``NAME@VERSION`` or ``NAME@ALIAS`` as a pair, or ``ValueError``."""
    name, at, version = text.partition("@")
    if not at:
        return check_name(name), None
    return check_name(name), version if is_alias(version) else check_version(version)
