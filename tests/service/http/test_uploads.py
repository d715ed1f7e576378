from __future__ import annotations

import asyncio
import errno
import math
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from service.errors import (
    BadRequest,
    BodyTooLarge,
    ServiceError,
    StorageFull,
    TooManyImages,
    UnsupportedEncoding,
)
from service.http import uploads
from service.http.disconnect import ClientGone
from service.http.routing import Call
from service.http.uploads import receive_images
from service.jobs.inputs import Input
from service.jobs.record import Contents
from service.settings import JobSettings
from tests.service.jobs.conftest import a_zip

PNG = b"\x89PNG\r\n\x1a\n"


def asked(headers: dict[str, str], receive: Any) -> Call:
    return Call("POST", Headers(headers), b"", receive, math.inf, "")


def received(
    path: Path, chunks: Sequence[bytes], headers: dict[str, str], leave: bool = False, **settings: Any
) -> Contents:
    inbox = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    inbox.append({"type": "http.disconnect"} if leave else {"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return inbox.pop(0)

    counted: list[int] = []
    path.write_bytes(b"\0" * 10_000)  # room was taken for more than comes
    contents = asyncio.run(
        receive_images(asked(headers, receive), path, JobSettings(**settings), 10**6, 60, counted.append)
    )
    assert sum(counted) == sum(map(len, chunks))
    return contents


def images(path: Path, contents: Contents) -> list[tuple[str | None, bytes]]:
    with Input(path, contents, 100, 10**9) as opened:
        found = opened.read(0, 100, 10**9)
    assert all(isinstance(data, bytes) for data in found)
    return [(image.name, data) for image, data in zip(contents.images, found, strict=True) if isinstance(data, bytes)]


def form(files: Sequence[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    request = httpx.Request("POST", "http://test", files=[("image", file) for file in files])
    return request.read(), {"content-type": request.headers["content-type"]}


def test_one_image(tmp_path: Path) -> None:
    path = tmp_path / "input"
    contents = received(path, [PNG[:2], PNG[2:]], {"content-type": "image/png"})
    assert images(path, contents) == [(None, PNG)]
    assert path.read_bytes() == PNG, "the room that was not needed is given back"


@given(
    files=st.lists(
        st.tuples(st.from_regex(r"[a-z]{1,5}\.png", fullmatch=True), st.binary(max_size=50)), min_size=1, max_size=4
    ),
    size=st.integers(1, 200),
)
def test_a_form_is_taken_apart_however_it_comes(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]], size: int
) -> None:
    path = tmp_path_factory.mktemp("form") / "input"
    body, headers = form(files)
    uploads_block, uploads._BLOCK = uploads._BLOCK, size
    try:
        contents = received(path, [body[i : i + size] for i in range(0, len(body), size)], headers)
    finally:
        uploads._BLOCK = uploads_block
    assert images(path, contents) == files
    assert path.read_bytes() == b"".join(data for _, data in files)


def test_names_in_a_form_are_cleaned(tmp_path: Path) -> None:
    body, headers = form([("../../etc/passwd", b"1")])
    assert received(tmp_path / "input", [body], headers).images[0].name == "etc/passwd"


@pytest.mark.parametrize("kind", ["application/zip", "application/octet-stream", "image/png"])
def test_an_archive_is_known_by_its_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "input"
    body = a_zip({"a.png": PNG, "b": b"2"})
    contents = received(path, [body[:1], body[1:2], body[2:]], {"content-type": kind})
    assert contents.kind == "zip"
    assert images(path, contents) == [("a.png", PNG), ("b", b"2")]


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "input"
    contents = received(path, [b'{"images":["AA', b'==","AQ=="]}'], {"content-type": "application/json; charset=utf-8"})
    assert images(path, contents) == [(None, b"\0"), (None, b"\1")]


def test_an_empty_body(tmp_path: Path) -> None:
    for kind in ("image/png", "application/zip", "application/json"):
        with pytest.raises(BadRequest, match="empty"):
            received(tmp_path / "input", [], {"content-type": kind})


@pytest.mark.parametrize("declared", [{}, {"content-length": "2000"}])
def test_a_body_that_is_too_large(tmp_path: Path, declared: dict[str, str]) -> None:
    with pytest.raises(BodyTooLarge, match="1024"):
        received(tmp_path / "input", [b"x" * 500] * 4, declared, jobs_max_body_bytes=1024)


def test_a_form_of_too_many(tmp_path: Path) -> None:
    body, headers = form([("a", b"1")] * 4)
    with pytest.raises(TooManyImages):
        received(tmp_path / "input", [body], headers, jobs_max_images=3)


@pytest.mark.parametrize("end", [-3, -10, 30, 60])
def test_a_form_that_breaks_off(tmp_path: Path, end: int) -> None:
    body, headers = form([("a", b"1" * 100)])
    with pytest.raises(BadRequest):
        received(tmp_path / "input", [body[:end]], headers)


def test_a_client_that_leaves(tmp_path: Path) -> None:
    with pytest.raises(ClientGone):
        received(tmp_path / "input", [b"x"], {}, leave=True)


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_an_encoded_body(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding):
        received(tmp_path / "input", [b"x"], {"content-encoding": encoding})


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data; boundary=b", "application/json"])
def test_a_large_body_is_not_held_in_memory(tmp_path: Path, kind: str) -> None:
    size = 20 * 2**20
    image = b"A" * 2**20
    starts = {
        "multipart/form-data; boundary=b": b'--b\r\nContent-Disposition: form-data; name="i"; filename="f"\r\n\r\n'
    }
    between = {"multipart/form-data; boundary=b": b"\r\n" + starts.get(kind, b""), "application/json": b'","'}
    ends = {"multipart/form-data; boundary=b": b"\r\n--b--\r\n", "application/json": b'"]}'}
    sent = 0

    async def receive() -> Any:
        nonlocal sent
        start = (starts | {"application/json": b'{"images":["'}).get(kind, b"") if not sent else between.get(kind, b"")
        sent += len(image)
        end = ends.get(kind, b"") if sent >= size else b""
        return {"type": "http.request", "body": start + image + end, "more_body": sent < size}

    path = tmp_path / "input"
    path.touch()
    tracemalloc.start()
    try:
        contents = asyncio.run(
            receive_images(asked({"content-type": kind}, receive), path, JobSettings(), 10**7, 60, lambda _: None)
        )
        assert tracemalloc.get_traced_memory()[1] < size / 2
    finally:
        tracemalloc.stop()
    assert sum(found.length for found in contents.images) >= size * 3 // 4


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "no space")

        def close(self) -> None: ...

    real = uploads._File.__init__

    def init(file: Any, path: Path) -> None:
        real(file, path)
        file._file.close()
        file._file = Full()

    monkeypatch.setattr(uploads._File, "__init__", init)
    with pytest.raises(StorageFull):
        received(tmp_path / "input", [b"x"], {})


@given(body=st.binary(max_size=300), kind=st.sampled_from(["", "application/json", "multipart/form-data; boundary=b"]))
def test_whatever_comes_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, body: bytes, kind: str) -> None:
    path = tmp_path_factory.mktemp("any") / "input"
    try:
        contents = received(path, [body], {"content-type": kind})
    except ServiceError:
        return
    assert contents.images
