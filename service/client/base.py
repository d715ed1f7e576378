"""What both clients are told and keep: where the service is, which model answers, how patiently it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from service.client import calls
from service.client.calls import Image
from service.client.errors import ClientError
from service.client.exchange import checked_url, timeouts
from service.client.retry import Retry

DEFAULT_URL: Final = "http://127.0.0.1:3000"
DEFAULT_TIMEOUT_S: Final = 30.0
DEFAULT_BATCH: Final = 16
DEFAULT_RETRY: Final = Retry()


def _nothing(error: ClientError, pause_s: float) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the service is asked.

    ``model``, ``version``: which model answers; the service's default one if None.

    ``api_key``: where the service asks for one. ``timeout_s``: of one attempt, in seconds. ``batch``: most images in a
    request. ``headers``: sent with each request, such as a proxy's ``Authorization``. ``on_retry``: told of each
    failure after which another attempt follows, and the pause before it in seconds.
    """

    model: str | None = None
    version: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S
    retry: Retry = DEFAULT_RETRY
    batch: int = DEFAULT_BATCH
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    on_retry: Callable[[ClientError, float], None] = _nothing


DEFAULT_OPTIONS: Final = Options()


class Base:
    """The part of a client that does no I/O. Raises ``ValueError`` for a URL that is not http's or https's."""

    def __init__(self, url: str, options: Options) -> None:
        self.url = checked_url(url)
        self._options = options
        self._model = calls.query_of(model=options.model, version=options.version)

    def _http_arguments(self) -> dict[str, Any]:
        options = self._options
        return {"base_url": self.url, "timeout": timeouts(options.timeout_s), "headers": self._headers()}

    def _headers(self) -> dict[str, str]:
        """The key in a header of its own, as a proxy may want ``Authorization`` for itself."""
        key = self._options.api_key
        return ({} if key is None else {"x-api-key": key}) | dict(self._options.headers or {})

    def _groups(self, images: Sequence[Image]) -> Iterator[Sequence[Image]]:
        """``images``, a request's at a time."""
        images = calls.checked(images)
        return (images[i : i + self._options.batch] for i in range(0, len(images), self._options.batch))

    def _query(self, **options: object) -> dict[str, str]:
        return calls.query_of(**options) | self._model

    def _pause_s(self, error: ClientError, failures: int) -> float:
        """How long to wait before the next attempt; raises ``error`` where there is none."""
        pause_s = self._options.retry.pause_s(error, failures)
        if pause_s is None:
            raise error
        self._options.on_retry(error, pause_s)
        return pause_s
