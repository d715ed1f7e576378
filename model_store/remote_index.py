"""What a store at a URL has: read from one listing of its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from model_store.aliases import ALIASES_FOLDER, PROMOTED_FILE
from model_store.locations import StoreUnreachable
from model_store.manifest import MANIFEST_FILE
from model_store.names import STABLE, check_alias, check_name, check_version
from model_store.remote_files import RemoteFiles
from model_store.verified import StoreError

_ALIAS_BYTES: Final = 64


@dataclass
class Listed:
    """One model as the store lists it.

    versions -- with what tells their manifests from others; None where the store has nothing for that.
    aliases  -- what their files hold, ``stable`` included.
    numbers  -- of all versions, those included that are not published whole.
    """

    versions: dict[str, str | None] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    numbers: set[int] = field(default_factory=set)


class Lister:
    """Looks at the store again and again; the files of aliases are read only where they may have changed."""

    def __init__(self, files: RemoteFiles) -> None:
        self._files = files
        self._texts: dict[str, tuple[str, str]] = {}

    def look(self) -> Mapping[str, Listed]:
        """All that has a model's name; what is called otherwise, or lies elsewhere, is passed over."""
        found: dict[str, Listed] = {}
        for path, stamp in self._files.list().items():
            name, *rest = path.split("/")
            if not is_name(check_name, name):
                continue
            listed = found.setdefault(name, Listed())
            match rest:
                case [version, file] if is_name(check_version, version):
                    listed.numbers.add(int(version))
                    if file == MANIFEST_FILE:
                        listed.versions[version] = stamp
                case [file] if file == PROMOTED_FILE:
                    self._read(listed, STABLE, path, stamp)
                case [folder, alias] if folder == ALIASES_FOLDER and is_name(check_alias, alias) and alias != STABLE:
                    self._read(listed, alias, path, stamp)
        return found

    def _read(self, listed: Listed, alias: str, path: str, stamp: str | None) -> None:
        known, text = self._texts.get(path, (None, ""))
        if stamp is None or known != stamp:
            try:
                data = self._files.read(path, _ALIAS_BYTES)
            except StoreUnreachable:
                raise
            except StoreError:
                data = b""  # too large for a version, and so none: this model's mistake alone
            if data is None:
                return  # taken away since it was listed
            text = data.decode("ascii", "replace").strip()
            if stamp is not None:
                self._texts[path] = stamp, text
        listed.aliases[alias] = text


def is_name(check: Callable[[str], str], text: str) -> bool:
    """Whether ``check``, one of model_store/names.py, takes ``text``."""
    try:
        check(text)
    except ValueError:
        return False
    return True
