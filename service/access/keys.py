"""API keys as they are written down: a name, the hash of the key, and limits where they are not everybody's.

    # name      hash                limits
    mobile-app  sha256:9f86d08...   images_per_s=50 burst=100 concurrency=8

A key is 256 random bits. Nobody guesses it, so a slow hash like scrypt, which makes guessing dear, protects nothing
here; it would only let anybody who sends wrong keys spend this machine's time. So it is a plain SHA-256.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

PREFIX: Final = "resnet_"
"""Of every key, for people and for programs that look for lost secrets."""

UNLIMITED: Final = "none"
_MOST: Final = 1_000_000_000
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH: Final = re.compile(r"sha256:([0-9a-f]{64})")
_LONGEST: Final = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What the holder of a key may use; None is no limit.

    burst -- images at once after a quiet while; None: those of a second.
    concurrency -- images in work.
    """

    images_per_s: float | None = None
    burst: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One line: whose key it is, its SHA-256, and what its holder may use."""

    name: str
    digest: bytes
    limits: Limits


def digest_of(key: str) -> bytes | None:
    """The SHA-256 of a key that was sent; None for what is too long to be one."""
    return hashlib.sha256(key.encode("utf-8", "replace")).digest() if len(key) <= _LONGEST else None


def new_key() -> str:
    """A key that there was never before."""
    return PREFIX + secrets.token_urlsafe(32)


def checked_name(name: str) -> str:
    """``name``; ``ValueError`` where it may not stand in a line."""
    if not _NAME.fullmatch(name):
        raise ValueError("a name is 1 to 64 letters, digits, dots, dashes and underscores, and begins with one of them")
    return name


def line_of(name: str, key: str, **limits: float | None) -> str:
    """The line that lets the holder of ``key`` in; limits that are None are left out."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    given = [f"{name}={_plain(value)}" for name, value in limits.items() if value is not None]
    return " ".join([checked_name(name), f"sha256:{digest}", *given])


def _plain(value: float) -> str:
    """Without an exponent, as lines have it; to the sixth digit."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def parse_keys(text: str, usual: Limits) -> list[ApiKey]:
    """The keys in ``text``, one a line or separated by commas; ``usual`` are the limits that a line does not set.

    ``ValueError`` says which line is wrong and why, and never what is in it: somebody may have put in the key itself.
    """
    found: list[ApiKey] = []
    for number, line in enumerate(re.split(r"[\n,]", text), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            found.append(_parse(words, usual))
        except ValueError as error:
            raise ValueError(f"key {number}: {error}") from None
    if len({key.digest for key in found}) < len(found):
        raise ValueError("a key stands there twice")
    return checked_limits(found)


def checked_limits(keys: list[ApiKey]) -> list[ApiKey]:
    """``keys``; ``ValueError`` where those of one name have different limits."""
    limits: dict[str, Limits] = {}
    for key in keys:
        if limits.setdefault(key.name, key.limits) != key.limits:
            raise ValueError(f"the keys of {key.name!r} have different limits; they are of one holder")
    return keys


def _parse(words: list[str], usual: Limits) -> ApiKey:
    name, *rest = words
    checked_name(name)
    hashed = _HASH.fullmatch(rest[0]) if rest else None
    if hashed is None:
        raise ValueError("must be NAME sha256:HASH and limits; `python -m service keys new NAME` makes such a line")
    return ApiKey(name, bytes.fromhex(hashed[1]), _limits(rest[1:], usual))


def _limits(words: list[str], usual: Limits) -> Limits:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in Limits.__dataclass_fields__ or name in given:
            raise ValueError(f"limits are each once {', '.join(f'{n}=N' for n in Limits.__dataclass_fields__)}")
        given[name] = value
    return _changed(usual, given)


def _changed(usual: Limits, given: Mapping[str, str]) -> Limits:
    limits = usual
    if "images_per_s" in given:
        limits = replace(limits, images_per_s=_number("images_per_s", given["images_per_s"]))
    for name in ("burst", "concurrency"):
        if name in given:
            number = _number(name, given[name])
            if number is not None and (number < 1 or number != int(number)):
                raise ValueError(f"{name} must be a whole number from 1, or {UNLIMITED}")
            limits = replace(limits, **{name: None if number is None else int(number)})
    return limits


def _number(name: str, text: str) -> float | None:
    if text == UNLIMITED:
        return None
    if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6})?", text) or not 0 < float(text) <= _MOST:
        raise ValueError(f"{name} must be a number above 0, or {UNLIMITED}")
    return float(text)
