"""Where a store may be: in a folder, or at a URL, with a mirror of it in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from model_store.store import ModelStore, StoreError

READ_ONLY: Final = ("http", "https")


class StoreUnreachable(StoreError):
    """A store at a URL does not answer, or not as one does; what was fetched from it stays."""


def parse_location(text: str) -> Path | str:
    """A folder as a path, also where it is given as ``file://``; else the URL.

    ``ValueError`` where the URL holds what would be shown in logs, or names no place.
    """
    if "://" not in text:
        return Path(text)
    parts = urlsplit(text)
    if "@" in parts.netloc or parts.query or parts.fragment or "::" in text:
        raise ValueError("a store's URL has no user, password, query or fragment; docs/stores.md says who it asks as")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise ValueError("a folder's URL is file:///PATH")
        return Path(unquote(parts.path))
    if not parts.netloc:
        raise ValueError(f"{parts.scheme}:// lacks the name of a bucket or server")
    return text.rstrip("/")


def default_cache() -> Path:
    """Where mirrors are kept where nobody says; ``StoreError`` where the user has no home."""
    try:
        return Path.home() / ".cache" / "resnet-serving" / "stores"
    except RuntimeError as error:
        raise StoreError("there is no home folder to keep fetched models in; set RESNET_STORE_CACHE or HOME") from error


def mirror_folder(url: str, cache: Path | None = None) -> Path:
    """Where in ``cache`` the store at ``url`` is mirrored."""
    return (cache or default_cache()) / hashlib.sha256(url.encode()).hexdigest()[:16]


def open_store(location: Path | str, cache: Path | None = None, *, writing: bool = False) -> ModelStore:
    """The store in a folder, or at a URL with its mirror in ``cache``.

    ``StoreError`` where there can be none, or it is for ``writing`` and can only be read.
    """
    try:
        place = parse_location(location) if isinstance(location, str) else location
    except ValueError as error:
        raise StoreError(f"the model store: {error}") from None
    if isinstance(place, Path):
        return ModelStore(place)
    scheme = urlsplit(place).scheme
    if writing and scheme in READ_ONLY:
        raise StoreError(f"{place}: a store at {scheme}:// can only be read; publish where its files are")
    from model_store.remote import RemoteStore  # fsspec is for those who need it

    return RemoteStore(place, mirror_folder(place, cache))
