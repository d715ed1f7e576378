"""A server of weights on this machine: honest by default, and by script as bad as networks are.

``publish`` puts content at a path; ``script`` says how the next requests for it go
wrong, one behaviour each, after which it is honest again. Everything goes over
real sockets. ``publish_torchvision`` and ``publish_repository`` make it a mirror of
torchvision's weights and a Hugging Face hub.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from torch import Tensor

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True)
class Resource:
    """What lies at a path: content and ETag, or a redirect."""

    content: bytes = b""
    etag: str | None = None
    location: str | None = None


@dataclass(frozen=True)
class Seen:
    """A request as it came; header names in lower case."""

    path: str
    headers: Mapping[str, str]


class Handler(BaseHTTPRequestHandler):
    """One connection; the behaviours answer through ``send`` and ``wfile``."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        owner = self.server.owner
        path = urlsplit(self.path).path  # of a proxy's absolute URI too
        owner.requests.append(Seen(self.path, {k.lower(): v for k, v in self.headers.items()}))
        resource = owner.resources.get(path)
        script = owner.scripts[path]
        if script:
            script.pop(0)(self, resource or Resource())
        elif resource is None:
            self.send(404, b"not here")
        else:
            honest(self, resource)

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """An answer whose Content-Length is true, unless ``headers`` say otherwise; ``_`` stands for ``-``."""
        self.head(status, **{"Content_Length": str(len(body)), **headers})
        self.wfile.write(body)

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


Behaviour = Callable[[Handler, Resource], None]


class _Server(ThreadingHTTPServer):
    owner: WeightsServer
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news here."""


@dataclass
class WeightsServer:
    """``url`` is its address; ``requests`` all that came."""

    url: str
    resources: dict[str, Resource] = field(default_factory=dict)
    scripts: dict[str, list[Behaviour]] = field(default_factory=lambda: defaultdict(list))
    requests: list[Seen] = field(default_factory=list)

    def publish(self, path: str, content: bytes, etag: str | None = "auto") -> str:
        """Put ``content`` at ``path``, by default with a strong ETag; its URL."""
        if etag == "auto":
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        self.resources[path] = Resource(content, etag)
        return self.url + path

    def redirect(self, path: str, location: str) -> str:
        self.resources[path] = Resource(location=location)
        return self.url + path

    def script(self, path: str, *behaviours: Behaviour) -> None:
        self.scripts[path] += behaviours

    def paths(self) -> list[str]:
        """Of the requests so far, without their queries."""
        return [urlsplit(seen.path).path for seen in self.requests]


@contextmanager
def serving() -> Iterator[WeightsServer]:
    """A server on a free port of this machine."""
    with _Server(("127.0.0.1", 0), Handler) as server:
        server.owner = WeightsServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield server.owner
        finally:
            server.shutdown()
            thread.join()


def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go straight to the server, whatever this machine's environment says."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# What a server can do.


def honest(handler: Handler, resource: Resource) -> None:
    """As RFC 9110 says: 206, 416 or all of it."""
    if resource.location is not None:
        handler.send(302, Location=resource.location)
        return
    tag = {"ETag": resource.etag} if resource.etag else {}
    size = len(resource.content)
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if not asked or handler.headers.get("If-Range", resource.etag) != resource.etag:
        handler.send(200, resource.content, **tag)
    elif int(asked[1]) >= size:
        handler.send(416, Content_Range=f"bytes */{size}")
    else:
        start = int(asked[1])
        handler.send(206, resource.content[start:], Content_Range=f"bytes {start}-{size - 1}/{size}", **tag)


def answer(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """This, whatever was asked."""
    return lambda handler, _: handler.send(status, body, **headers)


def break_off(after: int) -> Behaviour:
    """The honest answer, but the connection ends ``after`` bytes of its body."""

    def behave(handler: Handler, resource: Resource) -> None:
        sink = handler.wfile
        kept = io.BytesIO()
        handler.wfile = kept
        honest(handler, resource)
        handler.wfile = sink
        head, body = kept.getvalue().split(b"\r\n\r\n", 1)
        sink.write(head + b"\r\n\r\n" + body[:after])
        handler.close_connection = True

    return behave


def hang_up(handler: Handler, _: Resource) -> None:
    """No answer at all."""
    handler.close_connection = True


def ignore_range(handler: Handler, resource: Resource) -> None:
    """200 and everything, though a part was asked."""
    del handler.headers["Range"]
    honest(handler, resource)


def without_length(extra: bytes = b"", cut: int | None = None) -> Behaviour:
    """The content up to ``cut``, then ``extra``, its end only the connection's."""

    def behave(handler: Handler, resource: Resource) -> None:
        handler.head(200, Connection="close")
        handler.wfile.write(resource.content[:cut] + extra)

    return behave


def endless(handler: Handler, _: Resource) -> None:
    """Zeros, until the client has had enough."""
    handler.head(200, Connection="close")
    with suppress(OSError):
        while True:
            handler.wfile.write(bytes(65536))


def held(reached: threading.Event, go_on: threading.Event) -> Behaviour:
    """The honest answer, once ``go_on`` is set."""

    def behave(handler: Handler, resource: Resource) -> None:
        reached.set()
        go_on.wait(60)
        with suppress(OSError):
            honest(handler, resource)

    return behave


# torchvision's weights.


def publish_torchvision(server: WeightsServer, state: Mapping[str, Tensor], name: str = "resnet50") -> str:
    """Publish ``state`` as torchvision publishes weights; what torchvision's table would have as their URL.

    The real table has the hash of the real weights in its URL, which no others
    have. So a test says what the table holds, with ``table_says`` or, for a
    process of its own, ``tests.exports.export``, and gives ``server.url`` as mirror.
    """
    import torch

    file = io.BytesIO()
    torch.save(dict(state), file)
    content = file.getvalue()
    path = f"/models/{name}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.publish(path, content)
    return f"https://download.pytorch.org{path}"


def table_says(monkeypatch: pytest.MonkeyPatch, name: str, url: str, weights: str = "DEFAULT") -> None:
    """From now on torchvision's table has ``url`` for these weights, in this process."""
    from torchvision.models import get_model_weights

    monkeypatch.setattr(get_model_weights(name)[weights].value, "url", url)


# A Hugging Face hub.


def cdn_path(content: bytes) -> str:
    """Where ``publish_repository`` puts a file of LFS."""
    return f"/cdn/{hashlib.sha256(content).hexdigest()}"


def publish_repository(server: WeightsServer, name: str, files: Mapping[str, bytes], revision: str = "main") -> str:
    """Publish ``files`` as the model ``name`` (``owner/name``); the commit, made of their content.

    As on the real hub, weights are in LFS and come from another address, by a redirect.
    """
    commit = hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()
    siblings = []
    for file, content in files.items():
        git_sha1 = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
        sibling: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": git_sha1}
        path = f"/{name}/resolve/{commit}/{file}"
        if file.endswith((".safetensors", ".bin")):
            elsewhere = cdn_path(content)
            sibling["lfs"] = {"sha256": Path(elsewhere).name, "size": len(content), "pointerSize": 134}
            server.publish(elsewhere, content)
            server.redirect(path, elsewhere)
        else:
            server.publish(path, content)
        siblings.append(sibling)
    listing = {"_id": "0", "id": name, "sha": commit, "private": False, "tags": [], "siblings": siblings}
    for known_as in (revision, commit):
        server.publish(f"/api/models/{name}/revision/{known_as}", json.dumps(listing).encode())
    return commit
