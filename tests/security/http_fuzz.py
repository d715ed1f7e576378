"""Throws malformed HTTP at a running service.

    python -m tests.security.http_fuzz --cases 100000
    python -m tests.security.http_fuzz --cases 1 --first 4711

A case is what one connection sends, in pieces: requests that are whole, mutated, badly chunked, shaped for smuggling,
or random bytes. Each has its own request ids, so an answer that was meant for another case is known. No answer may be a
500, or no HTTP; the workers may not die, nor log a traceback; a good image has its answer all the while.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import Callable
from typing import Final

import click
import httpx

from benchmarks.report import Report, Target
from benchmarks.server import HOST, Server
from tests.end_to_end.conftest import picture
from tests.reliability.harness import describe, none_of, program, serving
from tests.security.http_shapes import HIDDEN, ONE_REQUEST, SMUGGLING, replies

TIMES: Final = {
    "RESNET_HEADER_TIMEOUT_S": "2",
    "RESNET_BODY_IDLE_S": "0.5",
    "RESNET_KEEP_ALIVE_S": "0.5",
    "RESNET_DEADLINE_S": "120",
}
"""Settings under which a case that leaves the service waiting soon comes to its end; on a busy machine, too."""

_ALLOWED: Final = {200, 204, 304, 400, 404, 405, 406, 408, 413, 414, 415, 422, 429, 431, 499}
_PATHS: Final = (
    "/v1/classify",
    "/v1/embed",
    "/v2",
    "/v1/models",
    "/",
    "/metrics",
    "/livez",
    "/readyz",
    "/nothing",
    "/web/%2e%2e/app.py",
)
_TOKENS: Final = (
    b"\0", b"\n", b"\r", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b",", b";", b"%00", b"/..", b"\xff", b"0", b"-1",
    b"ffffffffffffffff", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n",
    b"Connection: close\r\n", b"HTTP/1.1", b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"A" * 5000, b"X: y\r\n" * 60,
)  # fmt: skip
_LIMIT_S: Final = 180.0  # a connection that the service leaves open for so long is a failure
_AT_ONCE: Final = 300


class Failure(Exception):
    """What went wrong with a case."""


class Case:
    """What connection ``number`` sends; the same for the same seed."""

    def __init__(self, seed: int, number: int) -> None:
        self.number = number
        self.random = random.Random(f"{seed}/{number}")
        self.ids: list[str] = []
        self.only_hidden_is_wrong = True
        kinds: list[Callable[[], bytes]] = [self._whole, self._mutated, self._mutated, self._mutated]
        kinds += [self._chunked, self._smuggling, self._noise]
        make = self.random.choice(kinds)
        self.kind = make.__name__.strip("_")
        self.data = make()
        cuts = sorted(self.random.randrange(len(self.data) + 1) for _ in range(self.random.choice((0, 0, 1, 3, 8))))
        self.pieces = [self.data[a:b] for a, b in zip([0, *cuts], [*cuts, len(self.data)], strict=True)]

    def _request(self) -> bytes:
        pick = self.random
        self.ids.append(f"fuzz-{self.number}-{len(self.ids)}")
        method = pick.choice((b"GET", b"GET", b"POST", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))
        body = pick.choice(
            (b"", b"", pick.randbytes(pick.randrange(400)), HIDDEN, _IMAGE, b'{"images": []}', b"--b--\r\n")
        )
        head = b"%s %s HTTP/1.1\r\nHost: a\r\nX-Request-ID: %s\r\n" % (
            method,
            pick.choice(_PATHS).encode(),
            self.ids[-1].encode(),
        )
        if pick.random() < 0.3:
            head += b"Content-Type: %s\r\n" % pick.choice((b"application/json", b"multipart/form-data; boundary=b"))
        if not body:
            return head + b"\r\n"
        if pick.random() < 0.5:
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + self._chunks(body)

    def _chunks(self, body: bytes) -> bytes:
        encoded = b""
        while body:
            size = self.random.randrange(1, len(body) + 1)
            encoded += b"%x\r\n%s\r\n" % (size, body[:size])
            body = body[size:]
        return encoded + b"0\r\n\r\n"

    def _whole(self) -> bytes:
        return b"".join(self._request() for _ in range(self.random.choice((1, 1, 2, 4))))

    def _mutated(self) -> bytes:
        data = bytearray(self._whole())
        pick = self.random
        for _ in range(pick.randint(1, 6)):
            at = pick.randrange(len(data) + 1)
            match pick.randrange(6):
                case 0 if at < len(data):
                    data[at] ^= 1 << pick.randrange(8)
                case 1:
                    del data[at : at + pick.randint(1, 20)]
                case 2:
                    data[at:at] = pick.choice(_TOKENS)
                case 3:
                    data[at:at] = data[at : at + pick.randint(1, 200)]
                case 4:
                    data[at:at] = pick.randbytes(pick.randint(1, 8))
                case _:
                    del data[at:]
        return bytes(data)

    def _chunked(self) -> bytes:
        pick = self.random
        self.ids.append(f"fuzz-{self.number}-0")
        head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nX-Request-ID: %s\r\n" % self.ids[0].encode()
        size = pick.choice((b"", b"5", b"05", b"0x5", b"5 ", b" 5", b"g", b"-5", b"+5", b"5;a=b", b"5;" + b"x" * 40000,
                            b"f" * pick.randint(1, 40), b"0" * 50000 + b"5", b"5\n", b"5\r"))  # fmt: skip
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + size + pick.choice((b"\r\n", b"\n", b"")) + HIDDEN

    def _smuggling(self) -> bytes:
        shapes = [*SMUGGLING.values(), *(data for _, data in ONE_REQUEST.values())]
        return self.random.choice(shapes)

    def _noise(self) -> bytes:
        return self.random.randbytes(self.random.choice((1, 10, 100, 1000, 50_000)))

    def check(self, data: bytes) -> list[int]:
        """The statuses of the answers in ``data``; ``Failure`` where one may not be."""
        try:
            found, _ = replies(data)
        except ValueError as error:
            raise Failure(f"an answer is no HTTP: {error}") from error
        for reply in found:
            if reply.status not in _ALLOWED:
                raise Failure(f"status {reply.status}: {reply.body[:200]!r}")
            known = reply.request_id in self.ids or not reply.request_id.startswith(("fuzz-", "hidden"))
            # A mutated head may end before its hidden request does; then that is one, and is this connection's.
            if not known and not (self.kind in ("mutated", "chunked") and reply.request_id in self._variants()):
                raise Failure(f"an answer for {reply.request_id!r}")
        if self.kind == "smuggling" and len(found) > 1:
            raise Failure(f"{len(found)} answers to one request")
        if self.kind == "whole" and [reply.request_id for reply in found if reply.request_id in self.ids] != [
            name for name in self.ids if any(reply.request_id == name for reply in found)
        ]:
            raise Failure("answers out of their order")
        return [reply.status for reply in found]

    def _variants(self) -> set[str]:
        """Request ids that the mutated bytes may be read to hold."""
        found = re.findall(rb"x-request-id:[ \t]*([^\r\n]*)", self.data, re.IGNORECASE)
        return {name.decode("latin-1").strip(" \t") for name in found}


_IMAGE: Final = picture(1, (32, 32), "PNG")


async def _exchange(case: Case, port: int) -> bytes:
    """Send ``case``, and everything that came until the service closed the connection."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        with contextlib.suppress(ConnectionError):
            for piece in case.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        data = b""
        try:
            async with asyncio.timeout(_LIMIT_S):
                while more := await reader.read(2**16):
                    data += more
        except ConnectionError:
            pass  # closed with something of ours unread
        except TimeoutError:
            raise Failure("the connection was left open") from None
        return data
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class Fuzzer:
    """Runs cases against ``server`` and keeps what came of them."""

    def __init__(self, server: Server, seed: int) -> None:
        self._port = server.port
        self._url = server.url
        self._seed = seed
        self.statuses: dict[str, Counter[str]] = {}
        self.failures: list[str] = []
        self.good = 0

    async def run(self, first: int, cases: int) -> None:
        numbers = iter(range(first, first + cases))
        done = asyncio.Event()

        async def work() -> None:
            for number in numbers:
                case = Case(self._seed, number)
                counts = self.statuses.setdefault(case.kind, Counter())
                try:
                    statuses = case.check(await _exchange(case, self._port))
                except Failure as error:
                    self.failures.append(f"case {number} ({case.kind}): {error}\n    {case.data[:300]!r}")
                else:
                    counts.update(map(str, statuses) if statuses else ["closed"])

        async def healthy() -> None:
            while not done.is_set():
                if (status := await self._good_image()) != 200:
                    self.failures.append(f"a good image got {status}")
                self.good += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), 0.2)

        watching = asyncio.create_task(healthy())
        await asyncio.gather(*(work() for _ in range(min(_AT_ONCE, cases))))
        done.set()
        await watching

    async def _good_image(self) -> int:
        """Its status, on a connection of its own; 0 where three of them break."""
        # This loop has hundreds of connections, so it may itself be too late with a good image's header or body.
        status = 0
        for _ in range(3):
            async with httpx.AsyncClient(base_url=self._url, timeout=_LIMIT_S) as client:
                with contextlib.suppress(httpx.TransportError):
                    status = (await client.post("/v1/classify", content=_IMAGE)).status_code
            if status not in (0, 408):
                break
        return status


def fuzz(server: Server, cases: int, seed: int, first: int = 0) -> Fuzzer:
    """``cases`` cases against ``server``, which is stopped then; all that may not be is among its ``failures``."""
    workers = server.workers()
    fuzzer = Fuzzer(server, seed)
    asyncio.run(fuzzer.run(first, cases))
    if httpx.post(server.classify, content=_IMAGE, timeout=30).status_code != 200:
        fuzzer.failures.append("no good image is answered any more")
    if server.workers() != workers or server.process.poll() is not None:
        fuzzer.failures.append("a process died")
    server.stop()
    fuzzer.failures += sorted({line for line in server.log.splitlines() if "Traceback" in line or "Exception" in line})
    return fuzzer


def fill(report: Report, found: Fuzzer) -> None:
    """What came of the cases, and the promises."""
    rows = [
        [kind, str(sum(counts.values())), "  ".join(f"{status} {count}" for status, count in sorted(counts.items()))]
        for kind, counts in sorted(found.statuses.items())
    ]
    report.table("Answers", ["kind", "answers", "by status"], rows)
    report.notes += found.failures[:20]
    good = Target("good images meanwhile", found.good, 1, at_least=True)
    report.hold([good, none_of("failures", len(found.failures))])


@program
@click.option("--cases", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="The same cases for the same one.")
@click.option("--first", type=int, default=0, help="Number of the first case, to repeat one that failed.")
def main(settings: dict[str, str], cases: int, seed: int, first: int) -> Report:
    report = Report("security.http_fuzz")
    with serving(**{**TIMES, **settings}) as server:
        describe(report, server)
        fill(report, fuzz(server, cases, seed, first))
    return report


if __name__ == "__main__":
    main()
