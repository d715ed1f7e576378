"""Stores that are no folder: any that fsspec knows (``s3://``, ``gs://``, ``az://``, ``https://``), by way of a mirror.

    URL/NAME/VERSION/{manifest.json, ...}, URL/NAME/PROMOTED, URL/NAME/aliases/ALIAS

as in a folder. Versions come into the mirror whole and verified, and are models like any others from then on. A
version is in the store when its manifest is, which is written last and never over another.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import fsspec

from model_store.aliases import ALIASES_FOLDER, PROMOTED_FILE, list_aliases, read_alias, write_alias
from model_store.manifest import MANIFEST_FILE, File, Manifest, ManifestError, load_manifest
from model_store.names import STABLE, check_alias, check_name, check_version
from model_store.store import ModelStore, StoredModel, StoreError, StoreUnreachable, verify_file

FETCHING_PREFIX: Final = ".fetching-"

_CHUNK_BYTES: Final = 8 * 2**20
_MANIFEST_BYTES: Final = 2**20
_ALIAS_BYTES: Final = 64


@dataclass(frozen=True)
class Listed:
    """One model as the store lists it: versions, oldest first, and by alias, ``stable`` included."""

    versions: tuple[str, ...]
    aliases: Mapping[str, str]


class RemoteStore(ModelStore):
    """The store at ``url``, mirrored in the folder ``root``; the methods are ``ModelStore``'s.

    What is asked for is fetched; what is published goes to the mirror and from there to the store. All raise
    ``StoreUnreachable`` where the store cannot be asked.
    """

    def __init__(self, url: str, root: Path) -> None:
        super().__init__(root)
        self.url = url
        with self._asking():
            self._files, path = fsspec.core.url_to_fs(url)
        self._path = str(path).rstrip("/")
        self._index: Mapping[str, Listed] | None = None

    def index(self) -> Mapping[str, Listed]:
        """The models with at least one version, looked up now."""
        with self._asking():
            self._files.invalidate_cache()
            found = {name: self._listed(name) for name in self._folders(self._path, check_name)}
        self._index = {name: listed for name, listed in found.items() if listed.versions}
        return self._index

    def names(self) -> list[str]:
        return sorted(self._known())

    def versions(self, name: str) -> list[str]:
        return list(self._of(name).versions)

    def promoted(self, name: str) -> str | None:
        return self._of(name).aliases.get(STABLE)

    def aliases(self, name: str) -> dict[str, str]:
        return {alias: version for alias, version in self._of(name).aliases.items() if alias != STABLE}

    def resolve(self, name: str, version: str | None = None) -> StoredModel:
        self.fetch(name, self.choose(name, version))
        return super().resolve(name, version)

    def fetch(self, name: str, version: str) -> None:
        """Bring a version into the mirror, unless it is there; goes on where an earlier try broke off.

        ``StoreError`` where a file is not what the manifest says.
        """
        target = self.root / name / version
        if target.is_dir():
            return
        folder = self.root / f"{FETCHING_PREFIX}{name}-{version}"
        folder.mkdir(parents=True, exist_ok=True)
        manifest = self._fetch_manifest(name, version, folder)
        try:
            for file in manifest.files:
                self._fetch_file(name, version, file, folder / file.file)
        except StoreUnreachable:
            raise  # the rest another time
        except StoreError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        target.parent.mkdir(exist_ok=True)
        folder.chmod(0o755)
        with suppress(FileExistsError):  # another process was as quick
            folder.replace(target)

    def follow(self, name: str) -> None:
        """Let the mirror's aliases name what the store's do, and forget versions that the store has no more.

        To be called when what they name is fetched: who reads the mirror never finds a name without its version.
        """
        listed, folder = self._of(name), self.root / name
        if listed.versions:
            folder.mkdir(parents=True, exist_ok=True)
            for alias in {*list_aliases(folder), STABLE, *listed.aliases}:
                if read_alias(folder, alias) != listed.aliases.get(alias):
                    write_alias(folder, alias, listed.aliases.get(alias))
        for version in self._versions(folder):
            if version not in listed.versions:
                shutil.rmtree(folder / version, ignore_errors=True)

    def publish(self, staged: Path, manifest: Manifest) -> StoredModel:
        stored = super().publish(staged, manifest)
        try:
            self._upload(stored)
        except BaseException:
            shutil.rmtree(stored.folder, ignore_errors=True)
            raise
        self._index = None
        return stored

    def promote(self, name: str, version: str | None) -> StoredModel:
        promoted = super().promote(name, version)
        self._upload_alias(name, STABLE, None if version is None else promoted.manifest.version)
        return promoted

    def set_alias(self, name: str, alias: str, version: str | None) -> None:
        super().set_alias(name, alias, version)
        self._upload_alias(name, alias, self.aliases(name).get(alias))

    def remove(self, name: str, version: str) -> None:
        version = self.resolve(name, version).manifest.version
        last = self.versions(name) == [version]
        super().remove(name, version)
        with self._asking():
            folder = f"{self._path}/{name}/{version}"
            self._files.rm_file(f"{folder}/{MANIFEST_FILE}")  # from here on it is no version
            self._files.rm(f"{self._path}/{name}" if last else folder, recursive=True)
        self._index = None

    def _known(self) -> Mapping[str, Listed]:
        return self.index() if self._index is None else self._index

    def _of(self, name: str) -> Listed:
        return self._known().get(name, Listed((), {}))

    def _folders(self, path: str, check: Callable[[str], str]) -> list[str]:
        """Names of folders below ``path`` that ``check`` takes."""
        try:
            entries = self._files.ls(path, detail=True)
        except FileNotFoundError:
            return []
        found = []
        for entry in entries:
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            with suppress(ValueError):
                if entry["type"] == "directory" or str(entry["name"]).endswith("/"):
                    found.append(check(name))
        return found

    def _listed(self, name: str) -> Listed:
        folder = f"{self._path}/{name}"
        versions = [
            v for v in self._folders(folder, check_version) if self._files.exists(f"{folder}/{v}/{MANIFEST_FILE}")
        ]
        aliases = {alias: self._alias(f"{folder}/{ALIASES_FOLDER}/{alias}") for alias in self._alias_names(folder)}
        aliases[STABLE] = self._alias(f"{folder}/{PROMOTED_FILE}")
        named = {alias: version for alias, version in aliases.items() if version is not None}
        return Listed(tuple(sorted(versions, key=int)), named)

    def _alias_names(self, folder: str) -> Iterator[str]:
        with suppress(FileNotFoundError):
            for entry in self._files.ls(f"{folder}/{ALIASES_FOLDER}", detail=True):
                with suppress(ValueError):
                    yield check_alias(str(entry["name"]).rpartition("/")[2])

    def _alias(self, path: str) -> str | None:
        try:
            return check_version(self._files.cat_file(path, start=0, end=_ALIAS_BYTES).decode("ascii").strip())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError(f"{path}: names no version") from error

    def _fetch_manifest(self, name: str, version: str, folder: Path) -> Manifest:
        with self._asking():
            data = self._files.cat_file(
                f"{self._path}/{name}/{version}/{MANIFEST_FILE}", start=0, end=_MANIFEST_BYTES + 1
            )
        if len(data) > _MANIFEST_BYTES:
            raise StoreError(f"{name} version {version}: its manifest is larger than any is")
        (folder / MANIFEST_FILE).write_bytes(data)
        try:
            manifest = load_manifest(folder / MANIFEST_FILE)
        except ManifestError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise StoreError(str(error)) from error
        if (manifest.name, manifest.version) != (name, version):
            shutil.rmtree(folder, ignore_errors=True)
            raise StoreError(f"{name} version {version}: its manifest is of {manifest.name} {manifest.version}")
        return manifest

    def _fetch_file(self, name: str, version: str, file: File, target: Path) -> None:
        """Append what is missing of ``file``, then compare it with its hash."""
        target.parent.mkdir(exist_ok=True)
        with target.open("ab") as into:
            held = into.tell()
            while held < file.bytes:
                with self._asking():
                    data = self._files.cat_file(
                        f"{self._path}/{name}/{version}/{file.file}",
                        start=held,
                        end=min(held + _CHUNK_BYTES, file.bytes),
                    )
                if not data:
                    break  # shorter than the manifest says
                into.write(data)
                held += len(data)
            into.flush()
            os.fsync(into.fileno())
        verify_file(target, file)

    def _upload(self, stored: StoredModel) -> None:
        """All files, the manifest last: with it the version is there."""
        manifest = stored.manifest
        folder = f"{self._path}/{manifest.name}/{manifest.version}"
        last = stored.folder / MANIFEST_FILE
        with self._asking():
            if self._files.exists(f"{folder}/{MANIFEST_FILE}"):
                raise StoreError(f"{self.url}: {manifest.name} version {manifest.version} is there already")
            for path in sorted(stored.folder.rglob("*")):
                if path.is_file() and path != last:
                    self._files.put_file(str(path), f"{folder}/{path.relative_to(stored.folder).as_posix()}")
            try:
                self._files.pipe_file(f"{folder}/{MANIFEST_FILE}", last.read_bytes(), mode="create")
            except FileExistsError as error:
                raise StoreError(f"{self.url}: {manifest.name} version {manifest.version} is there already") from error

    def _upload_alias(self, name: str, alias: str, version: str | None) -> None:
        rest = PROMOTED_FILE if alias == STABLE else f"{ALIASES_FOLDER}/{alias}"
        path = f"{self._path}/{name}/{rest}"
        with self._asking():
            if version is not None:
                self._files.pipe_file(path, f"{version}\n".encode())
            else:
                with suppress(FileNotFoundError):
                    self._files.rm_file(path)
        self._index = None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Whatever a store's own library raises, as ``StoreUnreachable``; each has errors of its own."""
        try:
            yield
        except (StoreError, ManifestError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StoreUnreachable(f"{self.url}: the store cannot be used: {reason}") from error
