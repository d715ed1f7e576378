"""The files below a URL, by fsspec; whatever a store's own library raises becomes ``StoreUnreachable``."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import fsspec

from model_store.locations import READ_ONLY, StoreUnreachable
from model_store.store import StoreError

_PART_BYTES: Final = 8 * 2**20
_PACKAGES: Final = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}
_UNCACHED: Final = {"use_listings_cache": False, "skip_instance_cache": True}
_DEPTH: Final = 3  # NAME/VERSION/FILE
_CONNECT_S, _READ_S = 5, 30


class FileMissing(StoreError):
    """There is no such file in the store."""


class RemoteFiles:
    """Reads and writes by paths relative to ``url``. ``StoreError`` where nothing here can ask such a URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = urlsplit(url).scheme in READ_ONLY
        with self._asking():
            try:
                self._files, path = fsspec.core.url_to_fs(url, **_UNCACHED, **self._options())
            except ValueError as error:
                raise StoreError(f"{url}: {error}") from error
        self._root = str(path).rstrip("/")

    def _options(self) -> dict[str, Any]:
        """Libraries wait for minutes by default, and HTTP's knows neither proxies nor ~/.netrc."""
        scheme = urlsplit(self.url).scheme
        if self._http:
            from aiohttp import ClientTimeout

            limits = ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
            return {"client_kwargs": {"trust_env": True, "timeout": limits}}
        if _PACKAGES.get(scheme) == "s3fs":
            tries = {"max_attempts": 1}  # s3fs tries again itself
            return {"config_kwargs": {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": tries}}
        return {}

    def list(self) -> Mapping[str, str | None]:
        """Every file, with a text that differs where its content does; None where the store tells nothing of it."""
        with self._asking():
            self._files.invalidate_cache()
            # Flat: one request for a thousand objects. A web server has no such thing, and its errors are passed over
            # unless one asks for them.
            how = {"maxdepth": _DEPTH, "on_error": "raise"} if self._http else {}
            found = self._files.find(self._root, detail=True, **how)
        start = len(self._root) + 1
        return {
            path[start:]: None if entry.get("size") is None else repr(sorted(entry.items()))
            for path, entry in found.items()
            if path.startswith(f"{self._root}/")
        }

    def read(self, path: str, most_bytes: int) -> bytes | None:
        """A small file; None where there is none, ``StoreError`` where it is larger."""
        try:
            data = b"".join(self.parts(path, 0, most_bytes + 1))
        except FileMissing:
            return None
        if len(data) > most_bytes:
            raise StoreError(f"{self.url}/{path}: larger than {most_bytes} bytes")
        return data

    def parts(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end``, or to where the file ends; ``FileMissing`` where there is none."""
        with self._asking():
            try:
                yield from self._stream(path, start, end) if self._http else self._ranges(path, start, end)
            except FileNotFoundError as error:
                raise FileMissing(f"{self.url}/{path}: there is no such file") from error
            except Exception as error:
                if not _beyond_the_end(error):
                    raise

    def _ranges(self, path: str, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            part_end = min(start + _PART_BYTES, end)
            data = bytes(self._files.cat_file(self._at(path), start=start, end=part_end))
            yield data
            if start + len(data) < part_end:
                return  # the file ends there; what is asked beyond it some stores take for a mistake
            start = part_end

    def _stream(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """For web servers, not all of which have ranges: some send the whole file."""
        ranged = {"headers": {"Range": f"bytes={start}-{end - 1}"}}
        with self._files.open(self._at(path), "rb", block_size=0, size=end, **ranged) as stream:
            skipped = start if stream.r.status == HTTPStatus.PARTIAL_CONTENT else 0
            while skipped < end and (data := stream.read(min(_PART_BYTES, end - skipped))):
                if fresh := data[max(0, start - skipped) :]:
                    yield fresh
                skipped += len(data)

    def write(self, path: str, data: bytes) -> None:
        """Put ``data`` there in one step, over what is there."""
        with self._asking():
            self._files.pipe_file(self._at(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Put ``data`` where nothing is, in one step; False where there is something else."""
        with self._asking():
            try:
                self._files.pipe_file(self._at(path), data, mode="create")
            except FileExistsError:
                # Also what is said where a first try came through and its answer was lost.
                return self.read(path, len(data) + 1) == data
        return True

    def upload(self, source: Path, path: str) -> None:
        with self._asking():
            self._files.put_file(str(source), self._at(path))

    def delete(self, path: str) -> None:
        with self._asking(), suppress(FileNotFoundError):
            self._files.rm_file(self._at(path))

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except ImportError as error:
            scheme = urlsplit(self.url).scheme
            package = _PACKAGES.get(scheme)
            how = f"pip install {package}" if package else " ".join(str(error).split())
            raise StoreError(f"{self.url}: {scheme}:// needs a package that is not installed: {how}") from error
        except FileNotFoundError as error:
            raise StoreUnreachable(f"{self.url}: there is no such place: {' '.join(str(error).split())}") from error
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StoreUnreachable(f"{self.url}: the store cannot be used: {reason}") from error


def _beyond_the_end(error: Exception) -> bool:
    """Whether it says that a range begins where the file has ended.

    That is HTTP's 416, as aiohttp, gcsfs and Azure's library call it, and what s3fs makes of it.
    """
    statuses = {getattr(error, name, None) for name in ("status", "code", "status_code")}
    if HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE in statuses:
        return True
    return isinstance(error, OSError) and error.errno == errno.EINVAL and "range" in str(error).lower()
