"""What can go wrong between a program and the service.

    ClientError
    |-- Unreachable     no connection, or it broke before the answer was whole
    |-- TimedOut        no whole answer in time
    |-- BadAnswer       an answer that the API does not have: another server, or a broken one
    `-- Refused         the service answers with an error; ``status`` and ``code`` say which

No error of httpx travels further. The message is one line, and never holds a password of the URL.
"""

from __future__ import annotations

from typing import Final

# Too large; not of a format that is taken; broken, or without a map of the class.
_IMAGE_FAULTS: Final = (413, 415, 422)
# Also 422: the model lacks what is asked for.
_MODEL_FAULT: Final = "missing_output"


class ClientError(Exception):
    """Why there is no result; ``retry_after_s`` is the pause in seconds that the service asks for, if any."""

    code = "client_error"
    may_pass = False
    retry_after_s: float | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Unreachable(ClientError):
    code, may_pass = "unreachable", True


class TimedOut(ClientError):
    code, may_pass = "timed_out", True


class BadAnswer(ClientError):
    code = "bad_answer"


class Refused(ClientError):
    """``code`` and ``message`` are the service's; ``http_STATUS`` where another server in between answers."""

    def __init__(self, status: int, code: str, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id
        # 502 is a proxy's word for no connection.
        self.may_pass = status in (429, 502, 503)

    @property
    def of_the_image(self) -> bool:
        """Whether the image is at fault, and not the request, where it holds no other."""
        return self.status in _IMAGE_FAULTS and self.code != _MODEL_FAULT

    def __str__(self) -> str:
        return f"{self.message} ({self.status} {self.code})"
