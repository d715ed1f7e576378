"""A store over S3's protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_store.locations import StoreUnreachable, open_store
from model_store.remote import RemoteStore
from model_store.store import StoreError
from tests.model_store.stores import publish
from tests.s3 import BUCKET, S3Server, s3_server

from .conftest import VERSION_1


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as started:
        yield started


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """With an empty bucket."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.clear()


@pytest.mark.slow
def test_a_store_on_s3(s3: S3Server, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/models"
    store, other = open_store(url, tmp_path / "here"), open_store(url, tmp_path / "there")
    assert store.names() == []
    publish(store, version="1")
    publish(store, version="2")
    with pytest.raises(StoreError, match="tiny version 2 is there already"):
        publish(other, version="2")
    store.promote("tiny", "1")
    store.set_alias("tiny", "canary", "2")
    assert isinstance(other, RemoteStore)
    other.index()
    assert other.resolve("tiny").manifest.version == "1"
    other.find("tiny@canary").verify()
    s3.client().put_object(Bucket=BUCKET, Key="models/tiny/1/fp32.onnx", Body=b"WEIGHTS")
    third = open_store(url, tmp_path / "third")
    with pytest.raises(StoreError, match="SHA-256"):
        third.resolve("tiny")
    s3.client().put_object(Bucket=BUCKET, Key="models/tiny/1/fp32.onnx", Body=b"")
    with pytest.raises(StoreError, match="0 bytes, the manifest says 7"):
        third.resolve("tiny")
    other.set_alias("tiny", "canary", None)
    other.remove("tiny", "2")
    left = [found["Key"] for found in s3.client().list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert left == [f"models/{path}" for path in (*VERSION_1, "tiny/PROMOTED")]


@pytest.mark.slow
def test_one_request_tells_whether_anything_changed(s3: S3Server, tmp_path: Path) -> None:
    store = open_store(f"s3://{BUCKET}/models", tmp_path)
    assert isinstance(store, RemoteStore)
    publish(store)
    store.promote("tiny", "1")
    calls: list[str] = []
    store.index()
    call = store._files._files._call_s3

    async def counted(method: str, *arguments: Any, **options: Any) -> Any:
        calls.append(method)
        return await call(method, *arguments, **options)

    store._files._files._call_s3 = counted
    store.index()
    store.fetch("tiny", "1")
    assert calls == ["list_objects_v2"]


@pytest.mark.slow
def test_a_bucket_that_is_not_there(s3: S3Server, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/models", tmp_path)
    with pytest.raises(StoreUnreachable, match="The specified bucket does not exist"):
        store.names()
    with pytest.raises(StoreUnreachable, match="The specified bucket does not exist"):
        publish(store)


@pytest.mark.slow
def test_a_server_that_is_away(s3: S3Server, tmp_path: Path) -> None:
    store = open_store(f"s3://{BUCKET}/models", tmp_path)
    publish(store)
    s3.stop()
    try:
        assert isinstance(store, RemoteStore)
        with pytest.raises(StoreUnreachable, match="Could not connect") as told:
            store.index()
        assert "\n" not in str(told.value)
    finally:
        s3.start()
    assert hashlib.sha256(store.resolve("tiny").folder.joinpath("fp32.onnx").read_bytes()).hexdigest()
