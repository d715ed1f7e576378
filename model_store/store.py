"""Models in a folder: ``NAME/VERSION/{manifest.json, *.onnx, labels.txt}``.

A version is whole or absent: it is written to a temporary folder beside the
others and renamed into place, and never changed afterwards. ``NAME/PROMOTED``,
where there is one, names the version that stands for the model; else the newest does.
Other names for versions are in ``NAME/aliases`` (model_store/aliases.py).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from model_store.aliases import ALIASES_FOLDER, PROMOTED_FILE, list_aliases, read_alias, write_alias
from model_store.durable import sync, sync_files
from model_store.manifest import (
    MANIFEST_FILE,
    Manifest,
    ManifestError,
    Variant,
    dump_manifest,
    load_manifest,
)
from model_store.names import STABLE, check_alias, check_name, check_version, is_alias, parse_reference
from model_store.staging import staging_folder
from model_store.stored_model import StoredModel
from model_store.verified import StoreError as StoreError

T = TypeVar("T")
V = TypeVar("V")

EMBEDDED_MODELS: Final = Path(__file__).parent / "models"
LABELS_FILE: Final = "labels.txt"
PROFILES_FOLDER: Final = "profiles"
"""Beside the versions: settings that were measured for them, which the service writes."""


class ModelStore:
    """The models under ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def check_there(self) -> None:
        """``StoreError`` where there is no such folder."""
        if not self.root.is_dir():
            raise StoreError(f"{self.root}: no such model store; export a model to it first, or name another one")

    def names(self) -> list[str]:
        """Names of the models with at least one version, sorted."""
        self.check_there()
        return sorted(
            p.name for p in self.root.iterdir() if self._is_folder_called(check_name, p) and self._versions(p)
        )

    def versions(self, name: str) -> list[str]:
        """Versions of ``name``, oldest first; empty where the model is unknown."""
        return self._versions(self.root / _checked(check_name, name))

    def _versions(self, folder: Path) -> list[str]:
        if not self._is_inside(folder):
            return []
        found = [p.name for p in folder.iterdir() if self._is_version(p)]
        return sorted(found, key=int)

    def _is_version(self, path: Path) -> bool:
        return self._is_folder_called(check_version, path) and (path / MANIFEST_FILE).is_file()

    def _is_folder_called(self, check: Callable[[str], str], path: Path) -> bool:
        try:
            check(path.name)
        except ValueError:
            return False
        return self._is_inside(path)

    def _is_inside(self, folder: Path) -> bool:
        """Whether ``folder`` is one, and of this store: a link that leads out of it is as good as not there."""
        if not folder.is_dir():
            return False
        return not folder.is_symlink() or folder.resolve().is_relative_to(self.root.resolve())

    def resolve(self, name: str, version: str | None = None) -> StoredModel:
        """The model ``name``: the version given, by number or alias, else the promoted one, else the newest.

        ``StoreError`` where there is none.
        """
        version = self.choose(name, version)
        folder = self.root / name / version
        try:
            manifest = load_manifest(folder / MANIFEST_FILE)
        except ManifestError as error:
            raise StoreError(str(error)) from error
        if (manifest.name, manifest.version) != (name, version):
            raise StoreError(f"{folder}: the manifest is of {manifest.name} version {manifest.version}")
        return StoredModel(folder, manifest)

    def choose(self, name: str, version: str | None) -> str:
        """The version that ``resolve`` means."""
        newest = self.newest(name)
        if version is None or version == STABLE:
            return self.promoted(name) or newest
        if is_alias(version):
            alias, named = version, self.aliases(name).get(version)
            if named is None:
                there = ", ".join([STABLE, *self.aliases(name)])
                raise StoreError(f"model {name!r} has no alias {alias!r}; there: {there}")
            return named
        if _checked(check_version, version) not in (versions := self.versions(name)):
            raise StoreError(f"model {name!r} has no version {version}; there: {', '.join(versions)}")
        return version

    def manifest(self, name: str, version: str | None = None) -> Manifest:
        """What ``resolve`` finds, without the files."""
        return self.resolve(name, version).manifest

    def find(self, reference: str) -> StoredModel:
        """The model that ``NAME`` or ``NAME@VERSION`` means; ``StoreError`` where there is none."""
        return self.resolve(*_checked(parse_reference, reference))

    def promoted(self, name: str) -> str | None:
        """The version that was promoted, if one was; ``StoreError`` where it is not there any more."""
        return self._named(name, STABLE)

    def aliases(self, name: str) -> dict[str, str]:
        """Versions by alias, ``stable`` left out; ``StoreError`` where one names a version that is not there."""
        named = {alias: self._named(name, alias) for alias in self._alias_names(_checked(check_name, name))}
        return {alias: version for alias, version in named.items() if version is not None}

    def _named(self, name: str, alias: str) -> str | None:
        version = self._read_alias(_checked(check_name, name), alias)
        if version is not None and version not in self.versions(name):
            what = "is promoted" if alias == STABLE else f"is the {alias}"
            raise StoreError(f"{self}/{name}: version {version} {what}, but it is not there")
        return version

    def _alias_names(self, name: str) -> list[str]:
        return _checked(list_aliases, self.root / name) if self._is_inside(self.root / name) else []

    def _read_alias(self, name: str, alias: str) -> str | None:
        folder = self.root / name
        return _checked(lambda folder: read_alias(folder, alias), folder) if self._is_inside(folder) else None

    def _write_alias(self, name: str, alias: str, version: str | None) -> None:
        write_alias(self.root / name, alias, version)

    def promote(self, name: str, version: str | None) -> StoredModel:
        """Make ``version`` the one that stands for ``name``; None goes back to the newest. Says which it is now."""
        if version is None:
            self.resolve(name, self.newest(name))
            self._write_alias(name, STABLE, None)
        else:
            promoted = self.resolve(name, version)
            promoted.verify()
            self._write_alias(name, STABLE, promoted.manifest.version)
        return self.resolve(name)

    def set_alias(self, name: str, alias: str, version: str | None) -> None:
        """Make ``alias`` name ``version``, whose files are verified first; None takes it away.

        ``StoreError`` where there is no such version or alias, and for ``stable``, which ``promote`` moves.
        """
        if _checked(check_alias, alias) == STABLE:
            raise StoreError("'stable' is what promote says; give it a version, or take its promotion back")
        if version is None:
            if alias not in self.aliases(name):
                raise StoreError(f"model {name!r} has no alias {alias!r}")
            self._write_alias(name, alias, None)
        else:
            stored = self.resolve(name, version)
            stored.verify()
            self._write_alias(name, alias, stored.manifest.version)

    def remove(self, name: str, version: str) -> None:
        """Delete one version, all of it or nothing, and with the last one what belongs to the model.

        ``StoreError`` where it is the promoted one of several, or an alias names it.
        """
        version, last = self.removable(name, version)
        folder = self.root / name
        with self.staging() as trash:
            if last:  # first: it must never name what is not there
                (folder / PROMOTED_FILE).unlink(missing_ok=True)
            (folder / version).replace(trash / version)
            if last:
                for rest in (PROFILES_FOLDER, ALIASES_FOLDER):
                    with contextlib.suppress(FileNotFoundError):
                        (folder / rest).replace(trash / rest)
                with contextlib.suppress(OSError):  # not empty: whatever else lies there is not ours
                    folder.rmdir()

    def removable(self, name: str, version: str) -> tuple[str, bool]:
        """The number of a version that may be removed, and whether it is the model's last; ``StoreError`` as there."""
        version = self.choose(name, version)
        last = self.versions(name) == [version]
        if not last and self.promoted(name) == version:
            raise StoreError(f"{name} version {version} is promoted; promote another version first")
        if aliases := [alias for alias, named in self.aliases(name).items() if named == version]:
            raise StoreError(f"{name} version {version} is its {', '.join(aliases)}; move or remove that alias first")
        return version, last

    def newest(self, name: str) -> str:
        """The highest version of ``name``; ``StoreError`` where it has none."""
        versions = self.versions(name)
        if not versions:
            raise StoreError(f"no model {name!r} in {self}; there: {', '.join(self.names()) or 'none'}")
        return versions[-1]

    def next_version(self, name: str) -> str:
        """One more than the newest; 1 for a new model."""
        versions = self.versions(name)
        return _checked(check_version, str(int(versions[-1]) + 1)) if versions else "1"

    @contextlib.contextmanager
    def staging(self, needed_bytes: int = 0) -> Iterator[Path]:
        """A temporary folder on the store's file system, removed at the end unless published.

        What a killed process left of its own is removed first. ``StoreError`` where the file system has no room for
        ``needed_bytes``, before anything is written.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if needed_bytes > free:
            raise StoreError(f"{self.root}: {needed_bytes} bytes are needed there, {free} are free")
        with staging_folder(self.root) as folder:
            yield folder

    def publish(self, staged: Path, manifest: Manifest) -> StoredModel:
        """Write the manifest into ``staged`` and rename the folder into its place.

        ``StoreError`` where a variant's report failed, a file differs from
        the manifest, or the version is there already. A variant whose gate
        was off is published: it says of itself that it is ungated.
        """
        for variant in manifest.variants:
            _check_admitted(variant)
        StoredModel(staged, manifest).verify()
        (staged / MANIFEST_FILE).write_text(dump_manifest(manifest), encoding="utf-8")
        staged.chmod(0o755)
        sync_files(staged)  # before it has its name: after a loss of power a version is whole, too, or absent
        target = self.root / manifest.name / manifest.version
        target.parent.mkdir(exist_ok=True)
        try:
            staged.replace(target)
        except OSError as error:
            if target.exists():
                raise StoreError(f"{target} is there already; name another --version") from error
            raise
        for folder in (target.parent, self.root):
            sync(folder)
        return StoredModel(target, manifest)


def _check_admitted(variant: Variant) -> None:
    if variant.parity is not None and not variant.parity.passed:
        raise StoreError(f"{variant.file}: its parity with PyTorch failed; not published")
    if variant.gate is not None and variant.gate.rule != "off" and not variant.gate.passed:
        raise StoreError(f"{variant.file}: it did not pass the {variant.gate.rule} gate; not published")


def _checked(check: Callable[[V], T], value: V) -> T:
    try:
        return check(value)
    except ValueError as error:
        raise StoreError(str(error)) from error
