"""Stores at URLs: in memory, with failures; over HTTP; over S3's protocol."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from model_store import remote_files
from model_store.locations import StoreUnreachable, mirror_folder, open_store, parse_location
from model_store.manifest import MANIFEST_FILE
from model_store.remote import CLAIM_FILE, FETCHING_PREFIX, RemoteStore
from model_store.store import ModelStore, StoreError
from tests.s3 import BUCKET, S3Server, s3_server

from .flaky import URL, FlakyFileSystem, flaky
from .stores import publish, stage

ROOT = "/store/models"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FlakyFileSystem]]:
    monkeypatch.setattr(remote_files, "_PART_BYTES", 16)
    with flaky() as found:
        yield found


def a_store(cache: Path) -> RemoteStore:
    store = open_store(URL, cache)
    assert isinstance(store, RemoteStore)
    return store


@pytest.fixture
def store(files: type[FlakyFileSystem], tmp_path: Path) -> RemoteStore:
    """Empty."""
    return a_store(tmp_path / "here")


@pytest.fixture
def other(files: type[FlakyFileSystem], tmp_path: Path) -> RemoteStore:
    """The same store from another machine."""
    return a_store(tmp_path / "there")


def put(files: type[FlakyFileSystem], path: str, data: bytes) -> None:
    files(use_listings_cache=False).pipe_file(f"{ROOT}/{path}", data)


def paths(files: type[FlakyFileSystem]) -> list[str]:
    return sorted(path.removeprefix(f"{ROOT}/") for path in files.store)


def left_over(store: RemoteStore) -> list[str]:
    return [path.name for path in store.root.iterdir() if path.name.startswith((FETCHING_PREFIX, ".staging"))]


VERSION_1 = ["tiny/1/fp32.onnx", "tiny/1/labels.txt", "tiny/1/manifest.json"]

# As in a folder


def test_what_is_published_is_found_from_elsewhere(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    published = publish(store)
    assert published.folder == store.root / "tiny" / "1"
    assert paths(files) == VERSION_1
    found = other.resolve("tiny")
    assert (found.folder, found.manifest) == (other.root / "tiny" / "1", published.manifest)
    found.verify()
    assert (store.names(), store.versions("tiny"), store.next_version("tiny")) == (["tiny"], ["1"], "2")
    assert left_over(store) == left_over(other) == []


def test_the_manifest_comes_last(files: type[FlakyFileSystem], store: RemoteStore) -> None:
    publish(store)
    assert files.written[0] == f"{ROOT}/tiny/1/{CLAIM_FILE}"
    assert files.written[-1] == f"{ROOT}/tiny/1/{MANIFEST_FILE}"


def test_promotion_and_aliases(store: RemoteStore, other: RemoteStore) -> None:
    for version in ("1", "2", "3"):
        publish(store, version=version)
    assert store.promote("tiny", "1").manifest.version == "1"
    store.set_alias("tiny", "canary", "2")
    other.index()
    assert (other.promoted("tiny"), other.aliases("tiny")) == ("1", {"canary": "2"})
    assert other.resolve("tiny").manifest.version == "1"
    assert other.find("tiny@canary").manifest.version == "2"
    with pytest.raises(StoreError, match="version 1 is promoted"):
        other.remove("tiny", "1")
    with pytest.raises(StoreError, match="is its canary"):
        other.remove("tiny", "2")
    other.set_alias("tiny", "canary", None)
    assert other.promote("tiny", None).manifest.version == "3"
    store.index()
    assert (store.promoted("tiny"), store.aliases("tiny")) == (None, {})


def test_an_alias_is_in_the_store_or_nowhere(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    publish(store, version="1")
    publish(store, version="2")
    files.broken.add("PROMOTED")
    with pytest.raises(StoreUnreachable, match="the line is cut"):
        store.promote("tiny", "1")
    assert ModelStore(store.root).promoted("tiny") is None
    assert other.promoted("tiny") is None


def test_removing(files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore) -> None:
    publish(store, version="1")
    publish(store, version="2")
    store.promote("tiny", "1")
    other.remove("tiny", "2")
    assert paths(files) == [*VERSION_1, "tiny/PROMOTED"]
    other.remove("tiny", "1")
    assert paths(files) == []
    assert not (other.root / "tiny").exists()
    with pytest.raises(StoreError, match=rf"no model 'tiny' in {URL}"):
        other.resolve("tiny")


def test_a_list_reads_manifests_alone(files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore) -> None:
    publish(store)
    files.read.clear()
    assert other.manifest("tiny").version == "1"
    assert {path for path, _, _ in files.read} == {f"{ROOT}/tiny/1/{MANIFEST_FILE}"}
    assert not (other.root / "tiny").exists()


# Publishing


def test_of_two_publishers_one_wins(files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore) -> None:
    """The second is as far as it can be without having seen the first."""
    with store.staging() as staged, other.staging() as late:
        manifest, differing = stage(staged), stage(late, labels=b"".join(b"other %d\n" % i for i in range(10)))
        real = files.put_file

        def overtaken(self: FlakyFileSystem, lpath: str, rpath: str, **options: Any) -> None:
            files.put_file = real  # type: ignore[method-assign]
            with pytest.raises(StoreError, match=r"tiny version 1 is being published by another"):
                other.publish(late, differing)
            real(self, lpath, rpath, **options)

        files.put_file = overtaken  # type: ignore[method-assign]
        store.publish(staged, manifest)
    assert paths(files) == VERSION_1
    other.index()
    other.resolve("tiny").verify()
    with other.staging() as late, pytest.raises(StoreError, match=r"tiny version 1 is there already"):
        other.publish(late, stage(late))
    assert paths(files) == VERSION_1
    assert not list(other.root.glob("*/2"))


@pytest.mark.parametrize("broken", ["labels.txt", MANIFEST_FILE])
def test_a_publication_that_breaks_off_leaves_nothing(
    files: type[FlakyFileSystem], store: RemoteStore, broken: str
) -> None:
    files.broken.add(broken)
    with pytest.raises(StoreUnreachable):
        publish(store)
    files.broken.clear()
    assert paths(files) == []
    assert not (store.root / "tiny").exists()
    assert publish(store).manifest.version == "1"


def test_a_publisher_that_was_killed_is_in_nobodys_way(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    publish(store)
    put(files, f"tiny/2/{CLAIM_FILE}", b"whose")
    put(files, "tiny/2/fp32.onnx", b"wei")
    other.index()
    assert (other.versions("tiny"), other.next_version("tiny")) == (["1"], "3")
    with pytest.raises(StoreError, match="or that broke off; name another --version"):
        publish(other, version="2")
    assert publish(other, version="3").manifest.version == "3"


def test_an_answer_that_was_lost_is_no_failure(
    files: type[FlakyFileSystem], store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has what was sent, and the library sent it again."""
    real = files.pipe_file

    def twice(self: FlakyFileSystem, path: str, value: bytes, **options: Any) -> None:
        real(self, path, value, **options)
        real(self, path, value, **options)

    monkeypatch.setattr(files, "pipe_file", twice)
    assert publish(store).manifest.version == "1"
    assert paths(files) == VERSION_1


# Fetching


def test_a_fetch_goes_on_where_it_broke_off(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    published = publish(store)
    manifest_bytes = (published.folder / MANIFEST_FILE).stat().st_size
    files.read.clear()
    files.left = manifest_bytes + 7 + 40  # the weights, and half of the labels
    with pytest.raises(StoreUnreachable, match="the line is cut"):
        other.resolve("tiny")
    assert ModelStore(other.root).names() == [], "nobody sees a half"
    files.left = float("inf")
    a_store(other.root.parent).resolve("tiny").verify()
    fetched = [(path, start) for path, start, _ in files.read if not path.endswith(MANIFEST_FILE)]
    assert len(fetched) == len(set(fetched)), "nothing came twice"
    assert sum(size for path, _, size in files.read if path.endswith("labels.txt")) == 80
    assert left_over(other) == []


def test_what_is_in_the_mirror_is_not_fetched_again(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    publish(store)
    other.resolve("tiny")
    files.read.clear()
    other.index()
    other.resolve("tiny")
    assert files.read == []
    a_store(other.root.parent).resolve("tiny")
    assert {path for path, _, _ in files.read} == {f"{ROOT}/tiny/1/{MANIFEST_FILE}"}


def test_a_damaged_mirror_is_made_good(store: RemoteStore, other: RemoteStore, tmp_path: Path) -> None:
    publish(store)
    (other.resolve("tiny").folder / "fp32.onnx").write_bytes(b"WEIGHTS")
    a_store(tmp_path / "there").resolve("tiny").verify()


def test_a_number_that_is_published_anew_is_fetched_anew(store: RemoteStore, other: RemoteStore) -> None:
    publish(store)
    before = other.resolve("tiny").manifest
    store.index()
    store.remove("tiny", "1")
    again = publish(store, labels=b"".join(b"other %d\n" % i for i in range(10))).manifest
    other.index()
    found = other.resolve("tiny")
    found.verify()
    assert found.manifest == again != before


def change(files: type[FlakyFileSystem], **fields: Any) -> None:
    manifest = json.loads(files(use_listings_cache=False).cat_file(f"{ROOT}/tiny/1/{MANIFEST_FILE}"))
    put(files, f"tiny/1/{MANIFEST_FILE}", json.dumps(manifest | fields).encode())


def test_bytes_that_are_not_the_manifests_are_refused(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    publish(store)
    for wrong, message in ((b"WEIGHTS", "SHA-256"), (b"wei", "3 bytes, the manifest says 7")):
        put(files, "tiny/1/fp32.onnx", wrong)
        with pytest.raises(StoreError, match=message):
            other.resolve("tiny")
        assert not (other.root / "tiny").exists()
        assert left_over(other) == []
    put(files, "tiny/1/fp32.onnx", b"weights and more than that")
    other.resolve("tiny").verify()  # what is beyond the manifest's size is not asked for


def test_a_missing_file_is_told(files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore) -> None:
    publish(store)
    del files.store[f"{ROOT}/tiny/1/fp32.onnx"]
    with pytest.raises(StoreError, match=rf"{URL}/tiny/1/fp32.onnx: there is no such file"):
        other.resolve("tiny")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "another"}, "the manifest is of another version 1"),
        ({"version": "7"}, "the manifest is of tiny version 7"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_that_is_another_is_refused(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore, fields: dict[str, Any], message: str
) -> None:
    publish(store)
    change(files, **fields)
    with pytest.raises(StoreError, match=message):
        other.resolve("tiny")
    assert left_over(other) == []


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..", "a/b", ".hidden", "nul\0"])
def test_a_file_that_would_lie_elsewhere_is_refused(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore, name: str
) -> None:
    labels = publish(store).manifest.labels.model_dump()
    change(files, labels={**labels, "file": name})
    with pytest.raises(StoreError, match="is not a plain file name"):
        other.resolve("tiny")


def test_a_manifest_that_is_too_large_is_refused(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    monkeypatch.setattr("model_store.remote.MAX_MANIFEST_BYTES", 100)
    files.read.clear()
    with pytest.raises(StoreError, match="larger than 100 bytes"):
        other.resolve("tiny")
    assert sum(size for _, _, size in files.read) == 101, "no more than that was read"


def test_a_full_disk_keeps_no_part(store: RemoteStore, other: RemoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model_store.remote.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        other.resolve("tiny")
    assert left_over(other) == []


# What else lies there


def test_names_that_are_none_are_passed_over(files: type[FlakyFileSystem], store: RemoteStore) -> None:
    publish(store)
    for path in (
        "../evil/1/manifest.json", ".hidden/1/manifest.json", "Tiny/1/manifest.json", "tiny/0/manifest.json",
        "tiny/01/manifest.json", "tiny/4/deeper/manifest.json", "tiny/aliases/7", "tiny/aliases/stable",
        "tiny/aliases/.x", "manifest.json", "readme.txt",
    ):  # fmt: skip
        put(files, path, b"1")
    index = store.index()
    assert (list(index), list(index["tiny"].versions), index["tiny"].aliases) == (["tiny"], ["1"], {})


@pytest.mark.parametrize("text", [b"", b"one", b"1\n2", b"../1", b"\xff", b"9"])
def test_a_broken_alias_is_one_models_trouble(files: type[FlakyFileSystem], store: RemoteStore, text: bytes) -> None:
    publish(store)
    publish(store, "sound")
    put(files, "tiny/PROMOTED", text)
    store.index()
    with pytest.raises(StoreError, match=f"{URL}/tiny: .*(no version|not there)"):
        store.resolve("tiny")
    assert store.resolve("sound").manifest.name == "sound"


def test_a_store_that_cannot_be_listed_is_told(files: type[FlakyFileSystem], store: RemoteStore) -> None:
    files.broken.add("find")
    with pytest.raises(StoreUnreachable, match=rf"{URL}: the store cannot be used: the line is cut"):
        store.names()


def test_the_mirrors_own_folders_are_no_models(store: RemoteStore, other: RemoteStore) -> None:
    publish(store)
    other.resolve("tiny")
    (other.root / f"{FETCHING_PREFIX}tiny-2" / "1").mkdir(parents=True)
    (other.root / f"{FETCHING_PREFIX}tiny-2" / "1" / MANIFEST_FILE).write_text("{}")
    assert ModelStore(other.root).names() == ["tiny"]


# Where a store may be


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("models", Path("models")),
        ("/srv/models", Path("/srv/models")),
        ("file:///srv/my%20models", Path("/srv/my models")),
        ("file://localhost/srv", Path("/srv")),
        ("s3://bucket/models/", "s3://bucket/models"),
    ],
)
def test_locations(text: str, place: Path | str) -> None:
    assert parse_location(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "https://me:secret@host/models",
        "https://host/models?sig=secret",
        "s3://",
        "file://host/srv",
        "zip::s3://b/x.zip",
    ],
)
def test_locations_that_are_refused(text: str) -> None:
    with pytest.raises(StoreError, match="the model store: ") as refused:
        open_store(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("az", "adlfs")])
def test_what_is_not_installed_is_named(
    scheme: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StoreError, match=f"not installed: pip install {package}$"):
        open_store(f"{scheme}://bucket/models", tmp_path)


def test_a_protocol_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Protocol not known: gopher"):
        open_store("gopher://host/models", tmp_path)


def test_each_url_has_a_mirror_of_its_own(tmp_path: Path) -> None:
    folders = {mirror_folder(f"s3://bucket/{name}", tmp_path) for name in ("a", "b")}
    assert len(folders) == 2
    assert all(folder.parent == tmp_path for folder in folders)


def test_a_mirror_that_cannot_be_written_is_told(store: RemoteStore, tmp_path: Path) -> None:
    publish(store)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="fetched models cannot be kept here"):
        a_store(tmp_path / "file").resolve("tiny")


# Over HTTP


class _Ranged(SimpleHTTPRequestHandler):
    """Python's own server, as it is; with ``ranges`` it has those, too. ``asked`` are what was asked for."""

    ranges = False
    asked: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.asked.append((self.path, wanted))
        path = Path(self.translate_path(self.path))
        if not (self.ranges and wanted and path.is_file()):
            return super().do_GET()
        start, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
        data = path.read_bytes()
        if start >= len(data):
            return self.send_error(416)
        self.send_response(206)
        self.end_headers()
        self.wfile.write(data[start : end + 1])
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=[False, True], ids=["whole", "ranges"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, ModelStore]]:
    """A folder with a model, and its URL."""
    folder = ModelStore(tmp_path / "www" / "models")
    publish(folder, version="1")
    publish(folder, version="2")
    folder.promote("tiny", "1")
    folder.set_alias("tiny", "canary", "2")
    _Ranged.ranges = request.param
    _Ranged.asked.clear()
    handler = functools.partial(_Ranged, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/models", folder
        server.shutdown()
        thread.join()


def test_a_web_servers_index_is_a_store(site: tuple[str, ModelStore], tmp_path: Path) -> None:
    url, folder = site
    store = open_store(url, tmp_path / "cache")
    assert (store.names(), store.versions("tiny")) == (["tiny"], ["1", "2"])
    assert (store.promoted("tiny"), store.aliases("tiny")) == ("1", {"canary": "2"})
    store.resolve("tiny", "canary").verify()
    folder.promote("tiny", "2")
    assert isinstance(store, RemoteStore)
    store.index()
    assert store.promoted("tiny") == "2"


def test_a_web_servers_file_from_its_middle(site: tuple[str, ModelStore], tmp_path: Path) -> None:
    url, folder = site
    store = open_store(url, tmp_path / "cache")
    labels = folder.resolve("tiny", "1").manifest.labels
    partial = store.root / f"{FETCHING_PREFIX}tiny-1" / labels.file
    partial.parent.mkdir(parents=True)
    partial.write_bytes((folder.root / "tiny" / "1" / labels.file).read_bytes()[:50])
    store.resolve("tiny", "1").verify()
    assert (f"/models/tiny/1/{labels.file}", f"bytes=50-{labels.bytes - 1}") in _Ranged.asked


def test_a_web_server_is_not_written_to(site: tuple[str, ModelStore], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="http:// can only be read"):
        open_store(site[0], tmp_path, writing=True)
    missing = open_store(f"{site[0]}/nothing", tmp_path)
    with pytest.raises(StoreUnreachable, match="there is no such place"):
        missing.names()


# Over S3's protocol


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
