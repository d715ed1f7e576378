"""Messages, metadata and frames as no gRPC client should send them, and the sound ones that they are made of."""

from __future__ import annotations

import random
import struct
from typing import Final

from service.grpc import open_inference_pb2 as pb
from service.grpc.methods import SERVICE
from service.inference_protocol.tensors import join_strings
from tests.end_to_end.conftest import picture

METHODS: Final = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MODEL: Final = "cifar10-resnet16"


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


def _sound_infer() -> bytes:
    request = sound_request()
    del request.inputs[0].parameters["binary_data_size"]
    return request.SerializeToString()


SOUND_INFER: Final = _sound_infer()


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
