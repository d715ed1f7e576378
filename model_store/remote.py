"""Stores that are no folder: any that fsspec knows (``s3://``, ``gs://``, ``az://``, ``https://``), by way of a mirror.

    URL/NAME/VERSION/{manifest.json, ...}, URL/NAME/PROMOTED, URL/NAME/aliases/ALIAS

as in a folder. Versions come into the mirror whole and verified, and are models like any others from then on. A
version is in the store when its manifest is, which is written last. Who publishes one claims its number first, so that
two never write the same files.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from model_store.aliases import ALIASES_FOLDER, PROMOTED_FILE, list_aliases, read_alias, write_alias
from model_store.durable import sync, sync_files
from model_store.locations import StoreUnreachable
from model_store.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, File, Manifest, ManifestError, parse_manifest
from model_store.names import STABLE, check_name, check_version
from model_store.remote_files import RemoteFiles
from model_store.remote_index import Listed, Lister, is_name
from model_store.store import ModelStore, StoreError
from model_store.stored_model import StoredModel

# No model's name begins with a dot.
LOCK_FILE: Final = ".lock"
FETCHING_PREFIX: Final = ".fetching-"
CLAIM_FILE: Final = ".publishing"


class RemoteStore(ModelStore):
    """The store at ``url``, mirrored in the folder ``root``; the methods are ``ModelStore``'s. Not for two threads.

    What is asked for is fetched. All raise ``StoreUnreachable`` where the store cannot be asked.
    """

    def __init__(self, url: str, root: Path) -> None:
        super().__init__(root)
        self._files = RemoteFiles(url)
        self._lister = Lister(self._files)
        self._index: Mapping[str, Listed] | None = None
        self._current: dict[tuple[str, str], str | None] = {}
        self._locked = False

    def __str__(self) -> str:
        return self._files.url

    def index(self) -> Mapping[str, Listed]:
        """The models with at least one version, looked up now."""
        self._index = self._lister.look()
        return {name: listed for name, listed in self._index.items() if listed.versions}

    def names(self) -> list[str]:
        return sorted(name for name, listed in self._known().items() if listed.versions)

    def versions(self, name: str) -> list[str]:
        return sorted(self._of(name).versions, key=int)

    def next_version(self, name: str) -> str:
        """Numbers of versions that were never finished are passed over."""
        self.index()
        return _checked(check_version, str(max(self._of(name).numbers, default=0) + 1))

    def _alias_names(self, name: str) -> list[str]:
        return sorted(self._of(name).aliases.keys() - {STABLE})

    def _read_alias(self, name: str, alias: str) -> str | None:
        text = self._of(name).aliases.get(alias)
        if text is not None and not is_name(check_version, text):
            raise StoreError(f"{self}/{name}: {alias} is {text!r}, which is no version")
        return text

    def _write_alias(self, name: str, alias: str, version: str | None) -> None:
        path = f"{name}/{PROMOTED_FILE}" if alias == STABLE else f"{name}/{ALIASES_FOLDER}/{alias}"
        if version is None:
            self._files.delete(path)
        else:
            self._files.write(path, f"{version}\n".encode())
        self._index = None

    def _known(self) -> Mapping[str, Listed]:
        if self._index is None:
            self.index()
        return self._index or {}

    def _of(self, name: str) -> Listed:
        return self._known().get(_checked(check_name, name)) or Listed()

    # Fetching

    def manifest(self, name: str, version: str | None = None) -> Manifest:
        version = self.choose(name, version)
        return self._parse(name, version, self._read_manifest(name, version))

    def resolve(self, name: str, version: str | None = None) -> StoredModel:
        version = self.choose(name, version)
        self.fetch(name, version)
        return super().resolve(name, version)

    def fetch(self, name: str, version: str) -> None:
        """Bring a version into the mirror, unless it is there as the store has it; goes on where a try broke off.

        ``StoreError`` where a file is not what the manifest says.
        """
        with self.alone():
            stamp = self._of(name).versions.get(version)
            if stamp is not None and self._current.get((name, version)) == stamp:
                return
            data = self._read_manifest(name, version)
            if not self._is_mirrored(name, version, data):
                self._fetch(name, version, data)
            self._current[name, version] = stamp

    def _read_manifest(self, name: str, version: str) -> bytes:
        data = self._files.read(f"{name}/{version}/{MANIFEST_FILE}", MAX_MANIFEST_BYTES)
        if data is None:
            raise StoreError(f"{self}: {name} version {version} is not there any more")
        return data

    def _parse(self, name: str, version: str, data: bytes) -> Manifest:
        try:
            manifest = parse_manifest(data, f"{self}/{name}/{version}/{MANIFEST_FILE}")
        except ManifestError as error:
            raise StoreError(str(error)) from error
        if (manifest.name, manifest.version) != (name, version):
            raise StoreError(f"{self}/{name}/{version}: the manifest is of {manifest.name} version {manifest.version}")
        return manifest

    def _is_mirrored(self, name: str, version: str, data: bytes) -> bool:
        """Whether the version in the mirror is that of the manifest ``data``, every file of it."""
        folder = self.root / name / version
        try:
            if (folder / MANIFEST_FILE).read_bytes() != data:
                return False
            StoredModel(folder, self._parse(name, version, data)).verify()
        except (OSError, StoreError):
            return False
        return True

    def _fetch(self, name: str, version: str, data: bytes) -> None:
        manifest = self._parse(name, version, data)
        target, folder = self.root / name / version, self.root / f"{FETCHING_PREFIX}{name}-{version}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for file in manifest.files:
                self._fetch_file(f"{name}/{version}/{file.file}", file, folder / file.file)
            StoredModel(folder, manifest).verify()
            (folder / MANIFEST_FILE).write_bytes(data)
        except StoreUnreachable:
            raise  # the rest another time
        except (StoreError, OSError):  # the disk may be full
            shutil.rmtree(folder, ignore_errors=True)
            raise
        folder.chmod(0o755)
        sync_files(folder)
        target.parent.mkdir(exist_ok=True)
        with self.staging() as old:
            with suppress(FileNotFoundError):
                target.replace(old / version)
            folder.replace(target)
        sync(target.parent)
        sync(self.root)

    def _fetch_file(self, path: str, file: File, target: Path) -> None:
        """Append what is missing of ``file``."""
        with target.open("ab") as into:
            for part in self._files.parts(path, into.tell(), file.bytes):
                into.write(part)
            into.flush()
            os.fsync(into.fileno())

    def follow(self, name: str) -> None:
        """Let the mirror's aliases name what the store's do, and forget versions that the store has no more.

        To be called when what they name is fetched: who reads the mirror never finds a name without its version.
        """
        listed, folder = self._of(name), self.root / name
        if listed.versions:
            folder.mkdir(parents=True, exist_ok=True)
            for alias in {*list_aliases(folder), STABLE, *listed.aliases}:
                if _or_none(read_alias, folder, alias) != (version := self._read_alias(name, alias)):
                    write_alias(folder, alias, version)
        if not listed.versions and folder.exists():
            self._drop(folder)
        for version in ModelStore.versions(self, name):
            if version not in listed.versions:
                self._drop(folder / version)
        for gone in [key for key in self._current if key[0] == name and key[1] not in listed.versions]:
            del self._current[gone]  # it may come back as it was
        for path in self.root.glob(f"{FETCHING_PREFIX}{name}-*"):
            owner, _, version = path.name.removeprefix(FETCHING_PREFIX).rpartition("-")
            if owner == name and version not in listed.versions:
                shutil.rmtree(path, ignore_errors=True)

    def _drop(self, folder: Path) -> None:
        """In one step for whoever looks at the mirror."""
        with self.staging() as gone:
            folder.replace(gone / folder.name)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While it lasts no other process writes to the mirror; waits for one that does."""
        if self._locked:
            yield
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / LOCK_FILE).open("w")
        except OSError as error:
            raise StoreError(f"{self.root}: fetched models cannot be kept here: {error.strerror}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    # Publishing

    def publish(self, staged: Path, manifest: Manifest) -> StoredModel:
        """As in a folder: the version is there with all its files, or it is not. ``StoreError`` where it is taken."""
        with self.staging() as outbox:
            stored = ModelStore(outbox).publish(staged, manifest)
            self._upload(stored)
            target = self.root / manifest.name / manifest.version
            with self.alone():
                target.parent.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):
                    target.replace(outbox / ".old")
                stored.folder.replace(target)
        self._index = None
        return StoredModel(target, manifest)

    def _upload(self, stored: StoredModel) -> None:
        """All files, the manifest last: with it the version is there. What is left unfinished is taken away."""
        name, version = stored.manifest.name, stored.manifest.version
        folder = f"{name}/{version}"
        claim, last = f"{folder}/{CLAIM_FILE}", f"{folder}/{MANIFEST_FILE}"
        if not self._files.create(claim, secrets.token_hex(16).encode()):
            raise StoreError(
                f"{self}: {name} version {version} is being published by another, or that broke off; "
                "name another --version"
            )
        written: list[str] = []
        try:
            if self._files.read(last, MAX_MANIFEST_BYTES) is not None:
                raise StoreError(f"{self}: {name} version {version} is there already; name another --version")
            for path in sorted(stored.folder.iterdir()):
                if path.name != MANIFEST_FILE:
                    written.append(f"{folder}/{path.name}")
                    self._files.upload(path, written[-1])
            written.insert(0, last)
            if not self._files.create(last, (stored.folder / MANIFEST_FILE).read_bytes()):
                written.clear()  # whoever claimed nothing has written it; it is theirs
                raise StoreError(f"{self}: {name} version {version} is there already; name another --version")
        except BaseException:
            with suppress(StoreUnreachable):
                for file in written:
                    self._files.delete(file)
            raise
        finally:
            with suppress(StoreUnreachable):
                self._files.delete(claim)

    def remove(self, name: str, version: str) -> None:
        self.index()
        version, last = self.removable(name, version)
        folder, promoted, files = f"{name}/{version}/", f"{name}/{PROMOTED_FILE}", self._files.list()
        manifest = f"{folder}{MANIFEST_FILE}"
        if last and promoted in files:
            self._files.delete(promoted)  # first: it must never name what is not there
        self._files.delete(manifest)  # from here on it is no version
        for path in files:
            if path.startswith(folder) and path != manifest:
                self._files.delete(path)
        self.index()
        with self.alone():
            self.follow(name)


def _checked(check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except ValueError as error:
        raise StoreError(str(error)) from error


def _or_none(read: Callable[[Path, str], str | None], folder: Path, alias: str) -> str | None:
    """What a broken file holds is not asked: it is written anew."""
    try:
        return read(folder, alias)
    except ValueError:
        return ""
