"""What is known of a peer: how it is started, how it takes an image, how its answer is read."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_BOUNDARY: Final = b"----resnet-serving-benchmark"

Form = Callable[[bytes], tuple[str, bytes]]
"""An encoded image as a request's content type and body."""


def raw(image: bytes) -> tuple[str, bytes]:
    """The image is the body."""
    return "application/octet-stream", image


def multipart(field_name: str) -> Form:
    """The image is a file of a form."""

    def form(image: bytes) -> tuple[str, bytes]:
        head = (
            b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="photo.jpg"\r\n'
            b"Content-Type: image/jpeg\r\n\r\n" % (_BOUNDARY, field_name.encode())
        )
        return f"multipart/form-data; boundary={_BOUNDARY.decode()}", head + image + b"\r\n--%s--\r\n" % _BOUNDARY

    return form


def base64_json(key: str) -> Form:
    """The image is a string of JSON."""

    def form(image: bytes) -> tuple[str, bytes]:
        return "application/json", json.dumps({key: base64.b64encode(image).decode()}).encode()

    return form


def own_label(answer: Any) -> str:
    """The label as our own applications of peers answer it."""
    return str(answer["label"])


def first_key(answer: Any) -> str:
    """The label of the most probable class where an answer maps labels to probabilities."""
    return str(max(answer, key=answer.get))


@dataclass(frozen=True)
class Peer:
    """``command`` follows the environment's Python; ``{port}`` in it is where it listens."""

    name: str
    environment: str
    command: tuple[str, ...]
    path: str
    ready: str
    form: Form
    label: Callable[[Any], str] = own_label
    settings: Mapping[str, str] = field(default_factory=dict)
    needs_checkpoint: bool = False
    needs_program: str = ""
