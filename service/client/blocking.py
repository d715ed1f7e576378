"""The client for ordinary programs: each method returns when the answer is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import httpx

from service.client import calls
from service.client.base import DEFAULT_OPTIONS, DEFAULT_URL, Base, Options
from service.client.calls import Call, Image, T
from service.client.errors import ClientError
from service.client.exchange import CONNECTIONS, Gathered, translated
from service.client.results import Classification, Embedding, Explanation


class Client(Base):
    """The service at ``url``, over connections that are kept; close it, or use it in a ``with``.

    ``options``: which model, how patiently. ``transport`` is httpx's, for tests and unusual ways.

    Methods raise ``ClientError``, and ``OSError`` for a file that cannot be read. A bad image is no exception: its
    result has an ``error``.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        options: Options = DEFAULT_OPTIONS,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, options)
        self._places = threading.Semaphore(CONNECTIONS)
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        self._http = httpx.Client(transport=transport, limits=limits, **self._http_arguments())

    def classify(
        self,
        images: Sequence[Image],
        *,
        top_k: int | None = None,
        min_probability: float | None = None,
        include: Sequence[str] = (),
    ) -> list[Classification]:
        """The best ``top_k`` classes of each image, in order; ``include`` names a result's parts, as the API does."""
        query = self._query(top_k=top_k, min_probability=min_probability, include=tuple(include))
        groups = (list(map(calls.read_image, group)) for group in self._groups(images))
        return [one for group in groups for one in self._send(calls.classify(group, query))]

    def embed(self, images: Sequence[Image], *, normalize: bool | None = None) -> list[Embedding]:
        """The embedding of each image, in order; of length 1 with ``normalize``."""
        query = self._query(normalize=normalize)
        groups = (list(map(calls.read_image, group)) for group in self._groups(images))
        return [one for group in groups for one in self._send(calls.embed(group, query))]

    def explain(self, image: Image, *, class_: str | int | None = None) -> Explanation:
        """Where the network saw ``class_``, a label or an index; the best class if None."""
        return self._send(calls.explain(calls.read_image(image), self._query(class_=class_)))[0]

    def explain_png(
        self,
        image: Image,
        *,
        class_: str | int | None = None,
        style: str | None = None,
        opacity: float | None = None,
        colormap: str | None = None,
    ) -> bytes:
        """The same as a PNG: ``style`` is heatmap or overlay, ``opacity`` from 0 to 1."""
        query = self._query(class_=class_, style=style, opacity=opacity, colormap=colormap)
        return self._send(calls.explain_png(calls.read_image(image), query))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: Call[T]) -> T:
        failures = 0
        while True:
            try:
                return self._attempt(call)
            except ClientError as error:
                failures += 1
                pause_s = self._pause_s(error, failures)
            time.sleep(pause_s)

    def _attempt(self, call: Call[T]) -> T:
        with self._places:  # its time begins when it has a connection, however many threads there are
            return self._exchange(call)

    def _exchange(self, call: Call[T]) -> T:
        deadline = time.monotonic() + self._options.timeout_s
        request = self._http.build_request(**call.arguments())
        with translated(self.url):
            response = self._http.send(request, stream=True)
            try:
                gathered = Gathered(response, call.max_answer_bytes, deadline)
                for chunk in response.iter_bytes():
                    gathered.add(chunk)
            finally:
                response.close()
        return call.result(response, gathered.body)
