"""Models of a Hugging Face hub: asks which files a revision has, and brings those that an export needs.

The hub says of every file how long it is and what its hash is: SHA-256 for
those in LFS, git's SHA-1 for small ones
(https://huggingface.co/docs/hub/api, ``GET /api/models/OWNER/NAME/revision/REVISION?blobs=true``).
A folder of the cache holds the files of one commit, and beside them the record
of what the hub said, so that a commit named in full needs no network any more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from export.downloads.download import MAX_BYTES, Downloader, Remote
from export.downloads.http_client import DownloadError, Refused, Unreachable, checked_url, shown

ENDPOINT: Final = "https://huggingface.co"
RECORD_FILE: Final = "snapshot.json"
_WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
_BESIDE: Final = ("config.json", "preprocessor_config.json")
_MAX_JSON_BYTES: Final = 4 * 2**20
_MAX_LISTING_BYTES: Final = 16 * 2**20
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_REVISION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,127}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")

_Sha1 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Size = Annotated[int, Field(ge=0)]
_Model = TypeVar("_Model", bound=BaseModel)


class _Said(BaseModel):
    """What a hub says; it may say more than is read here."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Lfs(_Said):
    sha256: _Sha256
    size: _Size


class _Sibling(_Said):
    rfilename: str
    size: _Size | None = None
    blobId: _Sha1 | None = None  # noqa: N815 - the hub's own name
    lfs: _Lfs | None = None


class _Listing(_Said):
    sha: _Sha1
    siblings: list[_Sibling]


class _File(BaseModel):
    """One file of a snapshot: its length in bytes and the hash that the hub gave."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Literal["model.safetensors", "pytorch_model.bin", "config.json", "preprocessor_config.json"]
    size: _Size | None
    sha256: _Sha256 | None = None
    git_sha1: _Sha1 | None = None


class _Record(BaseModel):
    """``snapshot.json``: which hub said what of a commit. The weights are the first file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    endpoint: str
    commit: _Sha1
    files: list[_File] = Field(min_length=1)


@dataclass(frozen=True)
class Repository:
    """A model's place on a hub; ``DownloadError`` where the names are not such as hubs give."""

    owner: str
    name: str
    revision: str = "main"

    def __post_init__(self) -> None:
        for part in (self.owner, self.name):
            if not _NAME.fullmatch(part) or ".." in part:
                raise DownloadError(f"{part!r} is no name on a hub: letters, digits, '.', '_' and '-', at most 96")
        if not _REVISION.fullmatch(self.revision) or ".." in self.revision:
            raise DownloadError(f"{self.revision!r} is no revision: a branch, a tag or a commit")

    @property
    def pinned(self) -> bool:
        """Whether the revision is a whole commit hash, which names the same files for ever."""
        return _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> str:
        return f"hf://{self.owner}/{self.name}@{commit}"

    def __str__(self) -> str:
        return self.at(self.revision)


@dataclass(frozen=True)
class Snapshot:
    """The files of one commit, whole and checked: ``folder`` with ``weights`` and, if there, config.json and so on."""

    commit: str
    folder: Path
    weights: Path
    url: str


def fetch_snapshot(repository: Repository, cache: Path, downloader: Downloader, endpoint: str = ENDPOINT) -> Snapshot:
    """The files of ``repository`` from the hub at ``endpoint``, kept under ``cache``.

    ``DownloadError`` where they cannot be had or the hub's answer cannot be believed.
    """
    endpoint = _base(endpoint)
    versions = cache / "huggingface" / repository.owner / repository.name
    record = _recorded(versions / repository.revision, endpoint) if repository.pinned else None
    if record is None:
        record = _ask(repository, versions, downloader, endpoint)
    folder = versions / record.commit
    base = f"{endpoint}/{repository.owner}/{repository.name}/resolve/{record.commit}"
    for file in record.files:
        limit = MAX_BYTES if file.name in _WEIGHTS else _MAX_JSON_BYTES
        remote = Remote(f"{base}/{file.name}", file.sha256, file.git_sha1, file.size, limit)
        try:
            downloader.fetch(remote, folder / file.name)
        except Refused as error:
            raise _explained(error, repository) from error
    _write(record, folder)
    weights = record.files[0].name
    return Snapshot(record.commit, folder, folder / weights, shown(f"{base}/{weights}"))


def _base(endpoint: str) -> str:
    url = checked_url(endpoint)
    if url.query or url.fragment:
        raise DownloadError(f"{shown(endpoint)}: the address of a hub has no '?' and no '#'")
    return endpoint.rstrip("/")


def _ask(repository: Repository, versions: Path, downloader: Downloader, endpoint: str) -> _Record:
    """What the hub says of the revision."""
    revision = quote(repository.revision, safe="")
    url = f"{endpoint}/api/models/{repository.owner}/{repository.name}/revision/{revision}?blobs=true"
    try:
        data = downloader.read(url, _MAX_LISTING_BYTES)
    except Refused as error:
        raise _explained(error, repository) from error
    except Unreachable as error:
        cached = [p.name for p in _folders(versions) if _recorded(p, endpoint)]
        hint = f"; without a network there is {', '.join(map(repository.at, cached))}" if cached else ""
        raise Unreachable(f"{error}{hint}") from error
    listing = _parsed(_Listing, data, url)
    if repository.pinned and listing.sha != repository.revision:
        raise DownloadError(f"{shown(url)}: asked for {repository.revision}, the hub answers {listing.sha}")
    return _Record(endpoint=shown(endpoint), commit=listing.sha, files=_wanted(listing, repository))


def _explained(error: Refused, repository: Repository) -> DownloadError:
    if error.status in (401, 403, 404):
        why = "there is no such model or revision, or it is private or gated and needs a token (HF_TOKEN)"
        return DownloadError(f"{repository}: {why}; {error}")
    return error


def _parsed(model: type[_Model], data: bytes, url: str) -> _Model:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the answer"
        raise DownloadError(f"{shown(url)}: not what a hub answers: {where}: {first['msg']}") from error


def _wanted(listing: _Listing, repository: Repository) -> list[_File]:
    """The weights first, then what says how to use them."""
    there = {sibling.rfilename: sibling for sibling in listing.siblings}
    weights = next((name for name in _WEIGHTS if name in there), None)
    if weights is None:
        if any(f"{name}.index.json" in there for name in _WEIGHTS):
            raise DownloadError(f"{repository}: the weights are in several files; only whole ones are read")
        raise DownloadError(f"{repository}: neither {' nor '.join(_WEIGHTS)} is there")
    return [_described(there[name], repository) for name in (weights, *_BESIDE) if name in there]


def _described(sibling: _Sibling, repository: Repository) -> _File:
    if sibling.lfs is not None:
        return _File.model_validate({"name": sibling.rfilename, **sibling.lfs.model_dump()})
    if sibling.blobId is None:
        raise DownloadError(f"{repository}: the hub gives no hash of {sibling.rfilename}")
    return _File.model_validate({"name": sibling.rfilename, "size": sibling.size, "git_sha1": sibling.blobId})


def _folders(versions: Path) -> list[Path]:
    return sorted(p for p in versions.iterdir() if _COMMIT.fullmatch(p.name)) if versions.is_dir() else []


def _recorded(folder: Path, endpoint: str) -> _Record | None:
    """What ``endpoint`` said of the commit; another hub's word is not taken for it."""
    try:
        record = _Record.model_validate_json((folder / RECORD_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return record if (record.endpoint, record.commit) == (shown(endpoint), folder.name) else None


def _write(record: _Record, folder: Path) -> None:
    if _recorded(folder, record.endpoint) == record:
        return  # so that a cache may be read-only
    temporary = folder / f"{RECORD_FILE}.new"
    temporary.write_text(record.model_dump_json(indent=1), encoding="utf-8")
    temporary.replace(folder / RECORD_FILE)
