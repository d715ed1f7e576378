"""Traffic as a public service gets it: good, bad, oversized and unknown requests, and clients that leave."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import orjson
import uvloop

from benchmarks.connection import request_bytes
from benchmarks.traffic import Closed
from tests.end_to_end.conftest import picture

MAX_BODY_BYTES: Final = 2**18
"""What the service is told to take, so that a body beyond it can be sent whole a thousand times."""

EXPECTED: Final = frozenset({200, 400, 404, 405, 413, 415, 422, 429})
"""What may be answered to this traffic; 429 where there is more of it than the service can do."""

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, as a client that was killed


def _get(url: str, target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n\r\n".encode()


def _form(*images: bytes) -> tuple[bytes, str]:
    parts = [
        b'--limit\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + image + b"\r\n"
        for image in images
    ]
    return b"".join(parts) + b"--limit--\r\n", "multipart/form-data; boundary=limit"


def _json(*images: bytes) -> tuple[bytes, str]:
    return orjson.dumps({"images": [base64.b64encode(image).decode() for image in images]}), "application/json"


def _chunked(url: str, body: bytes) -> bytes:
    """A body that does not say how long it is."""
    head = f"POST /v1/classify HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [body[start : start + 2**15] for start in range(0, len(body), 2**15)]
    return head.encode() + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


class Mix:
    """Requests for one service, each kind with its share; ``answered`` ones and ``refused`` ones apart."""

    def __init__(self, url: str, seed: int = 0) -> None:
        self._url = url
        self._random = random.Random(seed)
        sizes = [(32, 32), (320, 240), (500, 375), (640, 480), (200, 900)]
        self._photos = [picture(number, sizes[number % len(sizes)]) for number in range(20)]
        self._odd = [picture(1, (64, 64), "PNG"), picture(2, (300, 200), "WEBP"), picture(3, (31, 33), "PNG")]

    def _post(self, route: str, body: bytes, kind: str = "image/jpeg") -> bytes:
        return request_bytes(f"{self._url}{route}", body, kind)

    def _name(self) -> str:
        """One that was never there before."""
        return f"{self._random.getrandbits(64):x}"

    def _photo(self) -> bytes:
        return self._random.choice(self._photos)

    def _answered(self) -> list[Callable[[], bytes]]:
        return [
            *[lambda: self._post("/v1/classify", self._photo())] * 8,
            lambda: self._post(
                "/v1/classify?top_k=10&include=predictions,scores,timings", self._random.choice(self._odd)
            ),
            lambda: self._post("/v1/classify", *_form(*[self._photo() for _ in range(4)])),
            lambda: self._post("/v1/classify", *_form(self._photo(), b"no image", self._photo()[:900])),
            lambda: self._post("/v1/classify", *_json(self._photo(), self._photo())),
            lambda: self._post("/v1/embed", self._photo()),
            lambda: self._post("/v1/explain", self._photo()),
            lambda: _get(self._url, self._random.choice(["/v1/models", "/metrics", "/", "/readyz", "/openapi.json"])),
        ]

    def _refused(self) -> list[Callable[[], bytes]]:
        return [
            lambda: self._post("/v1/classify", self._photo()[:700]),
            lambda: self._post("/v1/classify", self._random.randbytes(5000)),
            lambda: self._post("/v1/classify", b""),
            lambda: self._post("/v1/classify", bytes(MAX_BODY_BYTES + 5000)),
            lambda: _chunked(self._url, bytes(MAX_BODY_BYTES + 5000)),
            lambda: self._post("/v1/classify", b'{"images": [', "application/json"),
            lambda: self._post("/v1/classify", _form(self._photo())[0], "multipart/form-data"),
            lambda: self._post(f"/v1/classify?model={self._name()}", self._photo()),
            lambda: self._post(f"/v1/classify?{self._name()}=1", self._photo()),
            lambda: self._post(f"/{self._name()}/{self._name()}", self._photo()),
            lambda: _get(self._url, f"/{self._name()}"),
            lambda: _get(self._url, "/v1/classify"),
        ]

    def requests(self, count: int) -> list[bytes]:
        """Two answered for one refused."""
        return [self._one(self._refused() if number % 3 == 2 else self._answered()) for number in range(count)]

    def refused(self, count: int) -> list[bytes]:
        """Those alone that get an error."""
        return [self._one(self._refused()) for _ in range(count)]

    def _one(self, kinds: list[Callable[[], bytes]]) -> bytes:
        return self._random.choice(kinds)()

    def started(self) -> Iterator[tuple[bytes, float]]:
        """Whole or cut requests for clients that then leave, and how long they wait before they do, seconds."""
        while True:
            request = self._post("/v1/classify", self._photo())
            cut = self._random.choice([len(request), len(request), self._random.randrange(1, len(request))])
            yield request[:cut], self._random.choice([0.0, 0.002, 0.03, 0.1])


@dataclass
class Seen:
    """What came of the traffic: answers by status, 0 for none, and how many clients left."""

    statuses: Counter[int] = field(default_factory=Counter)
    left: int = 0

    @property
    def requests(self) -> int:
        return self.statuses.total() + self.left

    @property
    def unexpected(self) -> dict[int, int]:
        return {status: count for status, count in self.statuses.items() if status not in EXPECTED}

    def add(self, other: Seen) -> None:
        self.statuses += other.statuses
        self.left += other.left


def send(url: str, mix: Mix, requests: list[bytes], clients: int, seconds: float, leaving_per_s: float = 0.0) -> Seen:
    """``clients`` in a closed loop for ``seconds``; beside them some a second that are killed mid-request."""

    async def run() -> Seen:
        traffic = Closed(url, requests, seconds, 0.0)
        leaving = asyncio.create_task(_leave(url, mix, seconds, leaving_per_s))
        await traffic.run(clients)
        return Seen(Counter(traffic.load().statuses), await leaving)

    return uvloop.run(run())


async def _leave(url: str, mix: Mix, seconds: float, per_s: float) -> int:
    """How many clients left; each resets its connection."""
    if not per_s:
        return 0
    parts = urlsplit(url)
    clients: set[asyncio.Task[None]] = set()
    end = asyncio.get_running_loop().time() + seconds
    left = 0
    for request, patience_s in mix.started():
        if asyncio.get_running_loop().time() >= end:
            break
        clients.add(asyncio.create_task(_client(parts.hostname or "", parts.port or 80, request, patience_s)))
        left += 1
        await asyncio.sleep(1 / per_s)
    await asyncio.gather(*clients)
    return left


async def _client(host: str, port: int, request: bytes, patience_s: float) -> None:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(host, port)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.write(request)
        await asyncio.sleep(patience_s)
        writer.transport.abort()
