"""What can go wrong with a request, and the HTTP status each maps to.

    ServiceError                500 internal
    |-- BadRequest              400 bad_request
    |-- Unauthorized            401 unauthorized, with WWW-Authenticate
    |-- Forbidden               403 forbidden
    |-- UnknownModel            404 unknown_model
    |-- UnknownRoute            404 not_found
    |-- UnknownJob              404 unknown_job
    |-- MethodNotAllowed        405 method_not_allowed
    |-- NotAcceptable           406 not_acceptable
    |-- SlowClient              408 slow_client
    |-- JobNotDone              409 job_not_done
    |-- JobFailed               409 job_failed
    |-- BodyTooLarge            413 body_too_large
    |-- TooManyImages           413 too_many_images
    |-- UriTooLong              414 uri_too_long
    |-- UnsupportedEncoding     415 unsupported_encoding
    |-- ImageError              (one image's fault; in a request of many it fails alone)
    |   |-- ImageTooLarge       413 image_too_large
    |   |-- NotAnImage          415 not_an_image
    |   |-- BadImage            422 bad_image
    |   |-- ImageTooCostly      422 image_too_costly
    |   |-- DecoderCrashed      422 decoder_crashed
    |   |-- BadEntry            422 bad_entry
    |   `-- NoHeatmap           422 no_heatmap
    |-- MissingOutput           422 missing_output
    |-- LoadFailed              422 load_failed
    |-- Overloaded              429 overloaded, with Retry-After
    |-- KeyRate                 429 key_rate, with Retry-After
    |-- KeyBusy                 429 key_concurrency, with Retry-After
    |-- TooManyJobs             429 too_many_jobs, with Retry-After
    |-- HeadTooLarge            431 head_too_large
    |-- NotReady                503 not_ready, with Retry-After
    |-- ShuttingDown            503 shutting_down, with Retry-After
    |-- TooManyConnections      503 too_many_connections, with Retry-After
    |-- InferenceFailed         500 inference_failed
    |-- DeadlineExceeded        504 deadline_exceeded
    `-- StorageFull             507 storage_full

A class's docstring says in the OpenAPI document when there is this error.
``answers.error_answer`` is the one place that turns them into a response. The
message is for the client: it never holds a path, a stack trace or other
clients' data.
"""

from __future__ import annotations

from typing import ClassVar, Final, TypeVar

CLIENT_GONE: Final = 499
"""What a request whose client left is counted as; nginx's number, seen in metrics and logs alone."""


_CLOSE: Final = ((b"connection", b"close"),)


class ServiceError(Exception):
    """An error that a client may see."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retry_after_s: int | None = None
    headers: ClassVar[tuple[tuple[bytes, bytes], ...]] = ()

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def as_json(self) -> dict[str, dict[str, str]]:
        return {"error": {"code": self.code, "message": self.message}}


class BadRequest(ServiceError):
    """The query, the headers or the form of the body are wrong; the message says what."""

    status, code = 400, "bad_request"


class Unauthorized(ServiceError):
    """A key is needed, and it is missing or wrong."""

    status, code, headers = 401, "unauthorized", ((b"www-authenticate", b"Bearer"),)


class Forbidden(ServiceError):
    """No admin key is configured, so nobody may."""

    status, code = 403, "forbidden"


class UnknownModel(ServiceError):
    """No such model, or no such version of it, is served."""

    status, code = 404, "unknown_model"


class UnknownRoute(ServiceError):
    """Nothing is at this path."""

    status, code = 404, "not_found"


class UnknownJob(ServiceError):
    """No such job, or not any more."""

    status, code = 404, "unknown_job"


class MethodNotAllowed(ServiceError):
    """The path takes other methods, named in Allow."""

    status, code = 405, "method_not_allowed"


class NotAcceptable(ServiceError):
    """None of the media types that the client takes can be had."""

    status, code = 406, "not_acceptable"


class SlowClient(ServiceError):
    """The request did not come, or came to a halt, within the time that it may take."""

    status, code, headers = 408, "slow_client", _CLOSE


class JobNotDone(ServiceError):
    """Its results are not all there yet."""

    status, code = 409, "job_not_done"


class JobFailed(ServiceError):
    """Its results never will be all there."""

    status, code = 409, "job_failed"


class BodyTooLarge(ServiceError):
    """The body is larger than RESNET_MAX_BODY_BYTES."""

    status, code = 413, "body_too_large"


class TooManyImages(ServiceError):
    """The request holds more images than RESNET_MAX_IMAGES."""

    status, code = 413, "too_many_images"


class UriTooLong(ServiceError):
    """The request's target is too long."""

    status, code = 414, "uri_too_long"


class UnsupportedEncoding(ServiceError):
    """The body has a Content-Encoding; bodies are taken as they are."""

    status, code = 415, "unsupported_encoding"


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


class ImageTooCostly(ImageError):
    """Decoding the image takes more than RESNET_DECODE_CPU_S or RESNET_DECODE_MEMORY_BYTES."""

    status, code = 422, "image_too_costly"


class DecoderCrashed(ImageError):
    """The image ended the process that decoded it."""

    status, code = 422, "decoder_crashed"


class BadEntry(ImageError):
    """An archive's entry that cannot be unpacked."""

    status, code = 422, "bad_entry"


class NoHeatmap(ImageError):
    """The class is not among the best ones of this image, of which alone the graph has maps."""

    status, code = 422, "no_heatmap"


class MissingOutput(ServiceError):
    """The model's graph has not what is asked for, whatever the image."""

    status, code = 422, "missing_output"


class LoadFailed(ServiceError):
    """The model cannot be loaded from the store."""

    status, code = 422, "load_failed"


class Overloaded(ServiceError):
    """RESNET_MAX_QUEUE images are in work already, or so many that RESNET_DEADLINE_S would be half over, or
    RESNET_MAX_HELD_BYTES of bodies are held.
    """

    status, code, retry_after_s = 429, "overloaded", 1


class KeyRate(ServiceError):
    """The holder of this key sends more images a second than it may."""

    status, code, retry_after_s = 429, "key_rate", 1

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class KeyBusy(ServiceError):
    """The holder of this key has as many images in work as it may."""

    status, code, retry_after_s = 429, "key_concurrency", 1


class TooManyJobs(ServiceError):
    """The jobs that are held leave no room for another."""

    status, code, retry_after_s = 429, "too_many_jobs", 30


class HeadTooLarge(ServiceError):
    """The request's headers are too many, or too large."""

    status, code = 431, "head_too_large"


class NotReady(ServiceError):
    """The models are loading."""

    status, code, retry_after_s = 503, "not_ready", 1


class ShuttingDown(ServiceError):
    """The service stops."""

    status, code, retry_after_s = 503, "shutting_down", 1


class TooManyConnections(ServiceError):
    """RESNET_MAX_CONNECTIONS are open already, and all of them in use."""

    status, code, retry_after_s, headers = 503, "too_many_connections", 1, _CLOSE


class InferenceFailed(ServiceError):
    """The model failed on an image, through no fault of the image's sender."""

    status, code = 500, "inference_failed"


class DeadlineExceeded(ServiceError):
    """There was no answer within RESNET_DEADLINE_S."""

    status, code = 504, "deadline_exceeded"


class StorageFull(ServiceError):
    """The disk has no room for what is to be kept."""

    status, code = 507, "storage_full"


E = TypeVar("E", bound=Exception)


def bare(error: E) -> E:
    """``error`` without what it went through, for one that is kept as a value.

    Its traceback has the frames, those their variables, and these the request's body and the error itself: a cycle that
    only the garbage collector would free.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
