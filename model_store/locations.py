"""Where a store may be: in a folder, or at a URL, with a mirror of it in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from model_store.store import ModelStore


def is_url(text: str) -> bool:
    """Whether ``text`` names a store by URL, and no folder."""
    return "://" in text


def default_cache() -> Path:
    """Where mirrors are kept where nobody says."""
    return Path.home() / ".cache" / "resnet-serving" / "stores"


def mirror_folder(cache: Path, url: str) -> Path:
    """Where in ``cache`` the store at ``url`` is mirrored."""
    return cache / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def open_store(location: Path | str, cache: Path | None = None) -> ModelStore:
    """The store in a folder, or at a URL with its mirror in ``cache``; ``StoreError`` where it cannot be asked."""
    if not (isinstance(location, str) and is_url(location)):
        return ModelStore(Path(location))
    from model_store.remote import RemoteStore  # fsspec is for those who need it

    return RemoteStore(location, mirror_folder(cache or default_cache(), location))
