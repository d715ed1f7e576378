"""What can go wrong with a request, and the HTTP status each maps to.

    ServiceError                500 internal
    |-- BadRequest              400 bad_request
    |-- Unauthorized            401 unauthorized, with WWW-Authenticate
    |-- Forbidden               403 forbidden
    |-- UnknownModel            404 unknown_model
    |-- UnknownRoute            404 not_found
    |-- MethodNotAllowed        405 method_not_allowed
    |-- BodyTooLarge            413 body_too_large
    |-- TooManyImages           413 too_many_images
    |-- ImageError              (one image's fault; in a request of many it fails alone)
    |   |-- ImageTooLarge       413 image_too_large
    |   |-- NotAnImage          415 not_an_image
    |   `-- BadImage            422 bad_image
    |-- LoadFailed              422 load_failed
    |-- Overloaded              429 overloaded, with Retry-After
    |-- NotReady                503 not_ready, with Retry-After
    |-- ShuttingDown            503 shutting_down, with Retry-After
    |-- InferenceFailed         500 inference_failed
    `-- DeadlineExceeded        504 deadline_exceeded

``answers.error_answer`` is the one place that turns them into a response. The
message is for the client: it never holds a path, a stack trace or other
clients' data.
"""

from __future__ import annotations

from typing import ClassVar


class ServiceError(Exception):
    """An error that a client may see."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retry_after_s: ClassVar[int | None] = None
    headers: ClassVar[tuple[tuple[bytes, bytes], ...]] = ()

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def as_json(self) -> dict[str, dict[str, str]]:
        return {"error": {"code": self.code, "message": self.message}}


class BadRequest(ServiceError):
    status, code = 400, "bad_request"


class Unauthorized(ServiceError):
    status, code, headers = 401, "unauthorized", ((b"www-authenticate", b"Bearer"),)


class Forbidden(ServiceError):
    status, code = 403, "forbidden"


class UnknownModel(ServiceError):
    status, code = 404, "unknown_model"


class UnknownRoute(ServiceError):
    status, code = 404, "not_found"


class MethodNotAllowed(ServiceError):
    status, code = 405, "method_not_allowed"


class BodyTooLarge(ServiceError):
    status, code = 413, "body_too_large"


class TooManyImages(ServiceError):
    status, code = 413, "too_many_images"


class ImageError(ServiceError):
    """One image cannot be used; its neighbours can."""


class ImageTooLarge(ImageError):
    status, code = 413, "image_too_large"


class NotAnImage(ImageError):
    status, code = 415, "not_an_image"


class BadImage(ImageError):
    status, code = 422, "bad_image"


class LoadFailed(ServiceError):
    status, code = 422, "load_failed"


class Overloaded(ServiceError):
    status, code, retry_after_s = 429, "overloaded", 1


class NotReady(ServiceError):
    status, code, retry_after_s = 503, "not_ready", 1


class ShuttingDown(ServiceError):
    status, code, retry_after_s = 503, "shutting_down", 1


class InferenceFailed(ServiceError):
    status, code = 500, "inference_failed"


class DeadlineExceeded(ServiceError):
    status, code = 504, "deadline_exceeded"
