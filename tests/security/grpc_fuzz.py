"""``python -m tests.security.grpc_fuzz``: whatever comes to the gRPC port, the service answers it and goes on serving.

Messages: random bytes, and sound ones that are changed a little, to each method and to none there is. Frames: bytes
that are no HTTP/2, and HTTP/2 whose frames are changed. A case is wrong where the answer is one of the service's own
faults (INTERNAL, UNKNOWN, UNAVAILABLE), or none comes; after each hundred a sound request must have its answer.
"""

from __future__ import annotations

import random
import socket
import struct
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
import psutil

from service.grpc import open_inference_pb2 as pb
from service.grpc.methods import SERVICE
from service.inference_protocol.tensors import join_strings
from tests.end_to_end.conftest import Server, free_port, picture, running

HOST: Final = "127.0.0.1"
METHODS: Final = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
FAULTS: Final = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)
FRAMES_SHARE: Final = 5  # one case in so many is of frames, which need a connection each
BETWEEN: Final = 100  # cases between two sound requests
TIMEOUT_S: Final = 60
SILENCE_S: Final = 0.25  # how long a broken connection is listened to

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MODEL: Final = "cifar10-resnet16"


@dataclass
class Found:
    """What came of the cases: answers by kind and status, and those that are wrong."""

    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, kind: str, answer: str, wrong: str = "") -> None:
        self.answers[f"{kind}: {answer}"] += 1
        if wrong:
            self.wrong.append(wrong)


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """An HTTP/2 frame (RFC 9113, 4.1); ``length`` where it should lie about that."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size & 0xFFFFFF)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that is in no table (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name) & 0x7F]) + name + bytes([len(value) & 0x7F]) + value


def sound_request() -> pb.ModelInferRequest:
    images = [picture(7, (24, 24), "PNG"), picture(8, (32, 20), "JPEG")]
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[len(images)])
    tensor.parameters["binary_data_size"].int64_param = 7
    wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name="probabilities")
    wanted.parameters["classification"].int64_param = 2
    return pb.ModelInferRequest(
        model_name=MODEL, id="an-id", inputs=[tensor], outputs=[wanted], raw_input_contents=[join_strings(images)]
    )


def pixels_request() -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 4, 4, 3])
    tensor.contents.uint_contents.extend(range(48))
    return pb.ModelInferRequest(model_name=MODEL, inputs=[tensor])


SOUND: Final = (
    sound_request().SerializeToString(),
    pixels_request().SerializeToString(),
    pb.ModelReadyRequest(name=MODEL, version="3").SerializeToString(),
    b"",
)


class Cases:
    """Cases by chance; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def message(self) -> tuple[str, bytes, tuple[tuple[str, str | bytes], ...]]:
        """A method, a message and metadata."""
        chance = self._chance
        method = f"/{SERVICE}/{chance.choice(METHODS)}"
        if chance.random() < 0.02:
            method = (
                f"/{chance.choice(('x', SERVICE, 'grpc.reflection.v1.ServerReflection'))}/{chance.randbytes(4).hex()}"
            )
        data = chance.randbytes(chance.randrange(200)) if chance.random() < 0.3 else self.changed(chance.choice(SOUND))
        metadata: list[tuple[str, str | bytes]] = []
        if chance.random() < 0.1:
            printable = "".join(chance.choices([chr(c) for c in range(0x20, 0x7F)], k=chance.randrange(300)))
            metadata.append((chance.choice(("x-api-key", "authorization", "traceparent", "x-request-id")), printable))
            metadata.append(("any-bin", chance.randbytes(40)))
        return method, data, tuple(metadata)

    def changed(self, data: bytes) -> bytes:
        """``data`` with a few mistakes: bytes flipped, cut, doubled, put in, or a length that lies."""
        chance, made = self._chance, bytearray(data)
        for _ in range(chance.randint(0, 6)):
            where = chance.randrange(len(made) + 1)
            match chance.randrange(6):
                case 0 if where < len(made):
                    made[where] ^= 1 << chance.randrange(8)
                case 1:
                    del made[where : where + chance.randrange(20)]
                case 2:
                    made[where:where] = chance.randbytes(chance.randrange(20))
                case 3:
                    made += made[where : where + 200]
                case 4 if where < len(made):
                    made[where] = 0xFF  # a number that goes on, or a length beyond the end
                case _:
                    made = made[: len(made) // 2] if chance.random() < 0.2 else made
        return bytes(made[:100_000])

    def frames(self) -> bytes:
        """What a connection begins with: no HTTP/2, half of it, or frames as no client sends them."""
        chance = self._chance
        match chance.randrange(4):
            case 0:
                return chance.randbytes(chance.randrange(1, 400))
            case 1:
                return self.changed(PREFACE + self._call())
            case 2:
                return PREFACE + b"".join(self._frame() for _ in range(chance.randint(1, 12)))
            case _:
                return PREFACE + frame(4, 0, 0, b"") + self._call() + b"".join(self._frame() for _ in range(4))

    def _frame(self) -> bytes:
        chance = self._chance
        payload = chance.randbytes(chance.choice((0, 1, 4, 5, 6, 8, 100)))
        lie = chance.randrange(2**24) if chance.random() < 0.1 else None
        return frame(chance.randrange(14), chance.randrange(256), chance.choice((0, 1, 2, 3, 2**31 - 1)), payload, lie)

    def _call(self) -> bytes:
        """A whole call, whose message is changed."""
        headers = b"".join(
            literal(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", f"/{SERVICE}/ServerLive".encode()),
                (b":authority", b"localhost"),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
            )
        )
        message = self.changed(b"")
        data = bytes([self._chance.randrange(3)]) + struct.pack(">I", len(message)) + message
        return frame(4, 0, 0, b"") + frame(1, 4, 1, self.changed(headers)) + frame(0, 1, 1, data)


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


def _sound_infer() -> bytes:
    request = sound_request()
    del request.inputs[0].parameters["binary_data_size"]
    return request.SerializeToString()


SOUND_INFER: Final = _sound_infer()


def fuzz(cases: int, seed: int = 1, told: Callable[[int], None] = lambda done: None) -> Found:
    """What came of ``cases`` to a service that is started for them; fails in ``wrong``, not by itself."""
    port = free_port()
    with running(RESNET_GRPC_PORT=str(port), RESNET_DEADLINE_S="60") as server:
        workers = children(server)
        attempt = Fuzz(port, seed)
        attempt.run(cases, told)
        if children(server) != workers:
            attempt.found.wrong.append("a worker died")
    attempt.found.wrong += [f"printed: {line}" for line in printed(server) if not is_sound(line)]
    return attempt.found


def printed(server: Server) -> list[str]:
    """The lines of a service that has ended."""
    lines = []
    while (line := server._lines.get(timeout=TIMEOUT_S)) is not None:
        lines.append(line)
    return lines


# What a request without a name makes of gRPC's server; the service says so, and goes on.
_KNOWN: Final = "its server ended and is started anew"


def is_sound(line: str) -> bool:
    """Whether it is to be expected: of the service's own form or BentoML's, and no failure."""
    if _KNOWN in line:
        return True
    return line.startswith(("{", "20")) and not any(bad in line for bad in ("Traceback", '"exception"', "\\x"))


def children(server: Server) -> set[int]:
    return {process.pid for process in psutil.Process(server.process.pid).children(recursive=True)}


@click.command()
@click.option("--cases", type=click.IntRange(1), default=20_000, show_default=True, help="Messages and connections.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same cases for the same one.")
def main(cases: int, seed: int) -> None:
    """Send what nobody should to the gRPC port of a service that is started here; print what came of it."""
    told = (lambda done: print(f"\r{done} of {cases}", end="", file=sys.stderr)) if sys.stderr.isatty() else None
    found = fuzz(cases, seed, *([told] if told else []))
    for answer, count in sorted(found.answers.items()):
        print(f"{answer}: {count}")
    print(f"wrong: {len(found.wrong)}")
    for wrong in found.wrong[:20]:
        print(f"  {wrong[:500]}")
    sys.exit(bool(found.wrong))


if __name__ == "__main__":
    main(prog_name="python -m tests.security.grpc_fuzz")
