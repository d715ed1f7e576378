"""What can go wrong with a request, and the HTTP status each maps to.

    ServiceError                500 internal
    |-- BadRequest              400 bad_request
    |-- UnknownModel            404 unknown_model
    |-- UnknownRoute            404 not_found
    |-- MethodNotAllowed        405 method_not_allowed
    |-- NotAcceptable           406 not_acceptable
    |-- BodyTooLarge            413 body_too_large
    |-- TooManyImages           413 too_many_images
    |-- ImageError              (one image's fault; in a request of many it fails alone)
    |   |-- ImageTooLarge       413 image_too_large
    |   |-- NotAnImage          415 not_an_image
    |   |-- BadImage            422 bad_image
    |   `-- NoHeatmap           422 no_heatmap
    |-- MissingOutput           422 missing_output
    |-- Overloaded              429 overloaded, with Retry-After
    |-- NotReady                503 not_ready, with Retry-After
    |-- ShuttingDown            503 shutting_down, with Retry-After
    |-- InferenceFailed         500 inference_failed
    `-- DeadlineExceeded        504 deadline_exceeded

A class's docstring says in the OpenAPI document when there is this error.
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

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def as_json(self) -> dict[str, dict[str, str]]:
        return {"error": {"code": self.code, "message": self.message}}


class BadRequest(ServiceError):
    """The query, the headers or the form of the body are wrong; the message says what."""

    status, code = 400, "bad_request"


class UnknownModel(ServiceError):
    """No such model, or no such version of it, is served."""

    status, code = 404, "unknown_model"


class UnknownRoute(ServiceError):
    """Nothing is at this path."""

    status, code = 404, "not_found"


class MethodNotAllowed(ServiceError):
    """The path takes other methods, named in Allow."""

    status, code = 405, "method_not_allowed"


class NotAcceptable(ServiceError):
    """None of the media types that the client takes can be had."""

    status, code = 406, "not_acceptable"


class BodyTooLarge(ServiceError):
    """The body is larger than RESNET_MAX_BODY_BYTES."""

    status, code = 413, "body_too_large"


class TooManyImages(ServiceError):
    """The request holds more images than RESNET_MAX_IMAGES."""

    status, code = 413, "too_many_images"


class ImageError(ServiceError):
    """One image cannot be used; its neighbours can."""


class ImageTooLarge(ImageError):
    """The image has more pixels than RESNET_MAX_PIXELS."""

    status, code = 413, "image_too_large"


class NotAnImage(ImageError):
    """The bytes are no image, or of a format that is not taken."""

    status, code = 415, "not_an_image"


class BadImage(ImageError):
    """The image is truncated or broken."""

    status, code = 422, "bad_image"


class NoHeatmap(ImageError):
    """The class is not among the best ones of this image, of which alone the graph has maps."""

    status, code = 422, "no_heatmap"


class MissingOutput(ServiceError):
    """The model's graph has not what is asked for, whatever the image."""

    status, code = 422, "missing_output"


class Overloaded(ServiceError):
    """RESNET_MAX_QUEUE images are in work already."""

    status, code, retry_after_s = 429, "overloaded", 1


class NotReady(ServiceError):
    """The models are loading."""

    status, code, retry_after_s = 503, "not_ready", 1


class ShuttingDown(ServiceError):
    """The service stops."""

    status, code, retry_after_s = 503, "shutting_down", 1


class InferenceFailed(ServiceError):
    """The model failed on an image, through no fault of the image's sender."""

    status, code = 500, "inference_failed"


class DeadlineExceeded(ServiceError):
    """There was no answer within RESNET_DEADLINE_S."""

    status, code = 504, "deadline_exceeded"
