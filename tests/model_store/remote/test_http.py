"""A store over HTTP: a web server's index of files, which is only read."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model_store.locations import StoreUnreachable, open_store
from model_store.remote import FETCHING_PREFIX, RemoteStore
from model_store.store import ModelStore, StoreError
from tests.model_store.stores import publish


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
