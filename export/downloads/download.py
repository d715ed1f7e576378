"""Downloads files that were published with a hash, and trusts nothing else about the server.

A file grows as ``NAME.part`` beside its place and is renamed into it only when
its length and its hash are right. A connection that breaks off is taken up again
where it ended, in the same run or the next: ``Range`` with ``If-Range``, RFC 9110,
sections 13.1.5 and 14. What the server says of lengths and positions is checked;
the hash has the last word.

Needs ``fcntl``, so Linux or macOS.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from export.downloads.http_client import Again, DownloadError, body, check_status, get, number, persist, shown
from model_store.verified import sha256_of

MAX_BYTES: Final = 4 * 2**30
_HEX: Final = re.compile(r"[0-9a-f]{8,64}")
# A weak one ("W/...") does not promise the same bytes, so it is of no use for If-Range.
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{1,256}"')
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_UNSATISFIED: Final = re.compile(r"bytes \*/([0-9]{1,18})")

Report = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Remote:
    """A file on a server, and what its publisher says of it.

    sha256    -- all of its hexadecimal digits or the leading ones, 8 at least.
    git_sha1  -- git's name of the content, where there is no ``sha256``.
    size      -- bytes, where known.
    max_bytes -- what is longer is refused.
    """

    url: str
    sha256: str | None = None
    git_sha1: str | None = None
    size: int | None = None
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.sha256 or self.git_sha1 or ""):
            raise DownloadError(f"{shown(self.url)}: there is no hash to check it with")
        if self.size is not None:
            self.check_size(self.size)

    def check_size(self, size: int) -> None:
        """``DownloadError`` where a whole file of ``size`` bytes cannot be it."""
        if self.size is not None and size != self.size:
            raise DownloadError(f"{shown(self.url)}: the server has {size} bytes, {self.size} were published")
        if size > self.max_bytes:
            raise DownloadError(f"{shown(self.url)}: {size} bytes; {self.max_bytes} is the most that is taken")

    def problem(self, path: Path) -> str | None:
        """What is wrong with ``path``; None where it is the published file."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size} bytes, not {self.size}"
        if self.sha256:
            kind, expected, found = "SHA-256", self.sha256, sha256_of(path)
        else:
            kind, expected, found = "git SHA-1", self.git_sha1 or "", git_sha1_of(path)
        if found.startswith(expected):
            return None
        return f"its {kind} is {found}, not {expected}{'...' if len(expected) < len(found) else ''}"


def git_sha1_of(path: Path) -> str:
    """Git's name of the content: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects."""
    head = f"blob {path.stat().st_size}\0".encode()
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(head, usedforsecurity=False)).hexdigest()


class _Part:
    """The piece of ``target`` that is there so far, and the ETag of what it is a piece of."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._etag = target.with_name(f"{target.name}.part.etag")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def etag(self) -> str | None:
        """None where the piece cannot be taken up again."""
        try:
            etag = self._etag.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None
        return etag if self.size and _STRONG_ETAG.fullmatch(etag) else None

    def begin(self, etag: str) -> None:
        """Empty it; what follows is a piece of the content called ``etag``."""
        self.path.write_bytes(b"")
        self._etag.write_text(etag if _STRONG_ETAG.fullmatch(etag) else "", encoding="ascii")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._etag.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        self.path.replace(target)
        self._etag.unlink(missing_ok=True)


@dataclass(frozen=True)
class Downloader:
    """Fetches through ``client``, with progress on ``console``; ``sleep`` waits between attempts, in seconds."""

    client: httpx.Client
    console: Console
    sleep: Callable[[float], None] = time.sleep

    def fetch(self, remote: Remote, target: Path) -> Path:
        """``remote`` at ``target``: what lies there if it is whole, else downloaded.

        ``DownloadError`` where the server has not got it or gives something else;
        that is removed. Processes that want the same file wait for one another.
        """
        # A whole file needs no lock, so a cache may be read-only.
        if target.is_file() and remote.problem(target) is None:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target, self.console):
            # Another process may have brought it meanwhile.
            problem = remote.problem(target) if target.is_file() else "missing"
            if problem is None:
                return target
            if problem != "missing":
                self.console.print(f"{target} is damaged: {problem}; downloading it again", markup=False)
            part = _Part(target)
            self._download(remote, part, target.name)
            problem = remote.problem(part.path)
            if problem:
                part.discard()
                raise DownloadError(f"{shown(remote.url)}: not the published file, so it was removed: {problem}")
            part.finish(target)
        return target

    def read(self, url: str, max_bytes: int) -> bytes:
        """The body of ``url``; ``DownloadError`` where it is longer than ``max_bytes``."""

        def attempt() -> bytes:
            with get(self.client, url, {}) as response:
                check_status(response, url)
                return b"".join(body(response, max_bytes, url))

        return persist(attempt, url, self.console, self.sleep)

    def _download(self, remote: Remote, part: _Part, name: str) -> None:
        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        with Progress(TextColumn("{task.description}"), *columns, console=self.console) as progress:
            task = progress.add_task(escape(name), total=remote.size, completed=part.size)

            def report(done: int, total: int | None) -> None:
                progress.update(task, completed=done, total=total)

            def attempt() -> None:
                _transfer(self.client, remote, part, report)

            persist(attempt, remote.url, self.console, self.sleep, lambda: part.size)


def _transfer(client: httpx.Client, remote: Remote, part: _Part, report: Report) -> None:
    """One request: what it brings goes to the end of ``part``. ``Again`` where that is not all of it."""
    etag = part.etag()
    start = part.size if etag else 0
    headers = {"Range": f"bytes={start}-", "If-Range": etag} if etag else {}
    with get(client, remote.url, headers) as response:
        total = _total(response, remote, part, start)
        expected = remote.size if total is None else total
        try:
            if total is not None:
                remote.check_size(total)
            if part.size != total:
                _append(response, remote, part, expected, report)
        except DownloadError:
            part.discard()
            raise
    if expected is not None and part.size < expected:
        raise Again(f"the answer ends after {part.size} of {expected} bytes")


def _append(response: httpx.Response, remote: Remote, part: _Part, expected: int | None, report: Report) -> None:
    done = part.size
    limit = (remote.max_bytes if expected is None else expected) - done
    with part.path.open("ab") as file:
        for chunk in body(response, limit, remote.url):
            file.write(chunk)
            done += len(chunk)
            report(done, expected)


def _total(response: httpx.Response, remote: Remote, part: _Part, start: int) -> int | None:
    """Bytes of the whole file by the server's words, None where it says nothing.

    On return ``part`` ends where the body begins. ``Again`` where the body does
    not go on from ``start``; ``part`` is then gone.
    """
    if response.status_code == HTTPStatus.OK:
        # The first request, a server that knows no ranges, or another content than before.
        part.begin(response.headers.get("ETag", ""))
        return number(response.headers.get("Content-Length"))
    said = response.headers.get("Content-Range", "")
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
        unsatisfied = _UNSATISFIED.fullmatch(said)
        if unsatisfied and int(unsatisfied[1]) == start:
            return start  # all of it was there already
        part.discard()
        raise Again(f"the server has nothing after byte {start}")
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        ranged = _CONTENT_RANGE.fullmatch(said)
        same = response.headers.get("ETag", part.etag()) == part.etag()
        total = number(ranged[3]) if ranged else None
        if start and ranged and int(ranged[1]) == start and same and (total is None or total > start):
            return total
        part.discard()
        raise Again(f"the server sends {said or 'some part'!r} instead of all from byte {start}")
    check_status(response, remote.url)
    raise DownloadError(f"{shown(remote.url)}: the server answers {response.status_code} to a GET")


@contextmanager
def _locked(target: Path, console: Console) -> Iterator[None]:
    """One process at a time; the lock goes with the process, and its file may stay."""
    with target.with_name(f"{target.name}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"waiting for another process that downloads {target.name}", markup=False)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
