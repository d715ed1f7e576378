"""A request to the service and how its answer is read, without any I/O: shared by both clients."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Generic, TypeAlias, TypeVar

import httpx
from pydantic import ValidationError

from service.client.errors import BadAnswer, ClientError, Refused
from service.client.results import Answer, Classification, Embedding, ErrorAnswer, Explanation, Problem, R
from service.client.retry import retry_after_s

Image: TypeAlias = bytes | str | os.PathLike[str]
"""An encoded image, or the path of its file."""

MAX_ANSWER_BYTES: Final = 64 * 2**20
MAX_PNG_BYTES: Final = 512 * 2**20
_JSON: Final = "application/json"
_PNG: Final = "image/png"
_MESSAGE_LENGTH: Final = 300

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """``images`` go to ``path``; ``read`` makes the result of the answer's body, ``on_refusal`` of an error.

    Both raise ``ClientError``. An answer is at most ``max_answer_bytes`` long.
    """

    path: str
    query: Mapping[str, str]
    images: Sequence[bytes]
    accept: str
    max_answer_bytes: int
    read: Callable[[bytes], T]
    on_refusal: Callable[[Refused], T]

    def arguments(self) -> dict[str, Any]:
        """What httpx's ``build_request`` takes: one image as the body, several as a form."""
        # Without compression, so that a short answer cannot grow.
        headers = {"accept": self.accept, "accept-encoding": "identity"}
        common = {"method": "POST", "url": self.path, "params": self.query, "headers": headers}
        if len(self.images) == 1:
            headers["content-type"] = "application/octet-stream"
            return common | {"content": self.images[0]}
        return common | {"files": [("image", ("image", image, "application/octet-stream")) for image in self.images]}

    def result(self, response: httpx.Response, body: bytes) -> T:
        """What ``response`` with this body says; its ``ClientError`` where it is none."""
        if response.status_code != HTTPStatus.OK:
            return self.on_refusal(_refusal(response, body))
        said = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if said != self.accept:
            raise BadAnswer(f"{_where(response)} answers {said[:60]!r} instead of {self.accept}; is it the service?")
        return self.read(body)


def classify(images: Sequence[bytes], query: Mapping[str, str]) -> Call[list[Classification]]:
    return _json_call("/v1/classify", query, images, Classification)


def embed(images: Sequence[bytes], query: Mapping[str, str]) -> Call[list[Embedding]]:
    return _json_call("/v1/embed", query, images, Embedding)


def explain(image: bytes, query: Mapping[str, str]) -> Call[list[Explanation]]:
    return _json_call("/v1/explain", query, [image], Explanation)


def explain_png(image: bytes, query: Mapping[str, str]) -> Call[bytes]:
    return Call("/v1/explain", query, [image], _PNG, MAX_PNG_BYTES, _png, _raised)


def query_of(**options: object) -> dict[str, str]:
    """A query of the options that are given: not None, not empty."""
    return {name.rstrip("_"): _text(value) for name, value in options.items() if value not in (None, (), "")}


def read_image(image: Image) -> bytes:
    """The encoded bytes of ``image``; ``OSError`` where its file cannot be read."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    return Path(image).read_bytes()


def checked(images: Sequence[Image]) -> Sequence[Image]:
    """``images``; ``TypeError`` for one alone, which is a sequence, too, of letters or numbers."""
    if isinstance(images, str | bytes | bytearray | memoryview | os.PathLike):
        raise TypeError("images: a list of images is wanted; put the one into [ ]")
    return images


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple | list) else str(value)


def _json_call(path: str, query: Mapping[str, str], images: Sequence[bytes], kind: type[R]) -> Call[list[R]]:
    wire = Answer[kind]  # type: ignore[valid-type]  # made at run time, as pydantic means it to be

    def read(body: bytes) -> list[R]:
        try:
            answer: Answer[R] = wire.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the body"
            raise BadAnswer(f"the answer is not the API's: {place}: {first['msg'][:_MESSAGE_LENGTH]}") from error
        if len(answer.results) != len(images):
            raise BadAnswer(f"the answer has {len(answer.results)} results for {len(images)} images")
        return [result.model_copy(update={"model": answer.model}) for result in answer.results]

    def on_refusal(refusal: Refused) -> list[R]:
        return [_at_fault(refusal, kind)] if len(images) == 1 else _raised(refusal)

    return Call(path, query, images, _JSON, MAX_ANSWER_BYTES, read, on_refusal)


def _at_fault(refusal: Refused, kind: type[R]) -> R:
    """An image sent alone has its error where it would have it among others."""
    if not refusal.of_the_image:
        raise refusal
    return kind(error=Problem(code=refusal.code, message=refusal.message))


def _raised(error: ClientError) -> Any:
    raise error


def _png(body: bytes) -> bytes:
    if not body.startswith(b"\x89PNG\r\n\x1a\n"):
        raise BadAnswer("the answer is no PNG")
    return body


def _refusal(response: httpx.Response, body: bytes) -> Refused:
    status = response.status_code
    try:
        said = ErrorAnswer.model_validate_json(body)
        code, message = said.error.code[:60], said.error.message[:_MESSAGE_LENGTH]
        refusal = Refused(status, code, message, said.request_id[:200])
    except ValidationError:
        refusal = Refused(status, f"http_{status}", f"{_where(response)} answers {_reason(status)}")
    refusal.retry_after_s = retry_after_s(response.headers.get("retry-after"))
    return refusal


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"


def _where(response: httpx.Response) -> str:
    return shown(response.request.url)


def shown(url: httpx.URL) -> str:
    """``url`` for messages: without a password and a query."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))
