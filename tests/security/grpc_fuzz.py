"""Whatever comes to the gRPC port, the service answers it and goes on serving.

    python -m tests.security.grpc_fuzz --cases 20000

Messages: random bytes, and sound ones that are changed a little, to each method and to none there is. Frames: bytes
that are no HTTP/2, and HTTP/2 whose frames are changed. A case is wrong where the answer is one of the service's own
faults (INTERNAL, UNKNOWN, UNAVAILABLE), or none comes; after each hundred a sound request must have its answer.
"""

from __future__ import annotations

import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import click
import grpc

from benchmarks.report import Report, Target
from benchmarks.server import HOST, Server, free_port
from service.grpc import open_inference_pb2 as pb
from service.grpc.methods import SERVICE
from tests.reliability.harness import describe, none_of, program, serving
from tests.security.grpc_shapes import SOUND_INFER, Cases

FAULTS: Final = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)
FRAMES_SHARE: Final = 5  # one case in so many is of frames, which need a connection each
BETWEEN: Final = 100  # cases between two sound requests
TIMEOUT_S: Final = 60
SILENCE_S: Final = 0.25  # how long a broken connection is listened to

TIMES: Final = {"RESNET_DEADLINE_S": "60"}


@dataclass
class Found:
    """What came of the cases: answers by kind and status, and those that are wrong."""

    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, kind: str, answer: str, wrong: str = "") -> None:
        self.answers[f"{kind}: {answer}"] += 1
        if wrong:
            self.wrong.append(wrong)


class Fuzz:
    """Cases to the gRPC port of a running service."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._cases = Cases(seed)
        self._channel = grpc.insecure_channel(f"{HOST}:{port}", [("grpc.max_reconnect_backoff_ms", 200)])
        self.found = Found()

    def run(self, cases: int, told: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(8) as pool:
            for start in range(0, cases, BETWEEN):
                size = min(BETWEEN, cases - start)
                of_frames = [self._cases.frames() for _ in range(size // FRAMES_SHARE)]
                messages = [self._cases.message() for _ in range(size - len(of_frames))]
                list(pool.map(self._send_message, messages))
                list(pool.map(self._send_frames, of_frames))
                self._send_sound()
                told(start + size)
        self._channel.close()

    def _send_message(self, case: tuple[str, bytes, Any]) -> None:
        method, data, metadata = case
        shown = f"{method} {data[:200].hex()} {metadata}"
        try:
            self._channel.unary_unary(method)(data, timeout=TIMEOUT_S, metadata=metadata, wait_for_ready=True)
            self.found.note("messages", "OK")
        except grpc.RpcError as error:
            code = error.code()
            bad = code in FAULTS or code == grpc.StatusCode.DEADLINE_EXCEEDED
            self.found.note("messages", code.name, f"{shown}: {code.name} {error.details()}" if bad else "")
        except ValueError:
            self.found.note("messages", "refused by the client")  # metadata that gRPC itself does not send

    def _send_frames(self, data: bytes) -> None:
        with self._connection() as connection:
            answered = False
            with suppress(OSError):
                connection.sendall(data)
                connection.settimeout(SILENCE_S)
                while got := connection.recv(65536):
                    answered = answered or bool(got)
            self.found.note("frames", "answered" if answered else "closed")

    def _connection(self) -> socket.socket:
        """Once there is one: a request without a name makes the service put another gRPC server into the port."""
        for _ in range(200):
            with suppress(ConnectionError):
                return socket.create_connection((HOST, self._port), timeout=TIMEOUT_S)
            self.found.answers["frames: waited for a new server"] += 1
            time.sleep(0.05)
        raise ConnectionRefusedError("gRPC did not come back")

    def _send_sound(self) -> None:
        """A sound request has its answer; one that comes while the server is replaced is sent again, as clients do."""
        for left in (2, 1, 0):
            try:
                call = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")
                said = call(SOUND_INFER, timeout=TIMEOUT_S, wait_for_ready=True)
            except grpc.RpcError as error:
                passing = left and error.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
                wrong = "" if passing else f"a sound request: {error.code()} {error.details()}"
                self.found.note("sound requests", f"{error.code().name}, sent again", wrong)
            else:
                shape = list(pb.ModelInferResponse.FromString(said).outputs[0].shape)
                self.found.note("sound requests", "OK", "" if shape == [2, 2] else f"a sound request: {shape}")
                return


def fuzz(
    server: Server, port: int, cases: int, seed: int = 1, told: Callable[[int], None] = lambda done: None
) -> Found:
    """What came of ``cases`` to a service with gRPC at ``port``; fails in ``wrong``, not by itself."""
    workers = server.workers()
    attempt = Fuzz(port, seed)
    attempt.run(cases, told)
    if server.workers() != workers:
        attempt.found.wrong.append("a worker died")
    server.stop()
    attempt.found.wrong += [f"printed: {line}" for line in server.log.splitlines() if not is_sound(line)]
    return attempt.found


# What a request without a name makes of gRPC's server; the service says so, and goes on.
_KNOWN: Final = "its server ended and is started anew"


def is_sound(line: str) -> bool:
    """Whether it is to be expected: of the service's own form or BentoML's, and no failure."""
    if _KNOWN in line:
        return True
    return line.startswith(("{", "20")) and not any(bad in line for bad in ("Traceback", '"exception"', "\\x"))


def fill(report: Report, found: Found) -> None:
    """What came of the cases, and the promises."""
    report.table(
        "Answers", ["to: answer", "cases"], [[said, str(count)] for said, count in sorted(found.answers.items())]
    )
    report.notes += [f"wrong: {wrong[:500]}" for wrong in found.wrong[:20]]
    sound = Target("sound requests answered", found.answers["sound requests: OK"], 1, at_least=True)
    report.hold([sound, none_of("wrong answers, deaths and lines", len(found.wrong))])


@program
@click.option("--cases", type=click.IntRange(1), default=20_000, show_default=True, help="Messages and connections.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same cases for the same one.")
def main(settings: dict[str, str], cases: int, seed: int) -> Report:
    report, port = Report("security.grpc_fuzz"), free_port()
    with (
        serving(**{**TIMES, **settings, "RESNET_GRPC_PORT": str(port)}) as server,
        click.progressbar(length=cases, file=sys.stderr) as bar,
    ):
        describe(report, server)
        fill(report, fuzz(server, port, cases, seed, lambda done: bar.update(done - bar.pos)))
    return report


if __name__ == "__main__":
    main()
