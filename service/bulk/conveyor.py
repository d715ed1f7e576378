"""Images through a scorer: read ahead by some threads, computed by a thread a slot, given back in order."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Self, TypeVar

from service.bulk.parts import Item
from service.bulk.scorer import Row, Scorer
from service.errors import BadEntry, ServiceError
from service.inference.session import Images

T = TypeVar("T")

READERS: Final = 16
"""Images that are read at once; for a remote store it is the round trips that take the time."""

_BATCHES_AHEAD: Final = 4  # a slot: what it computes, what is read for it, and what waits to be given back


class Conveyor:
    """Holds no more than a few batches of images for each slot, however many pass."""

    def __init__(self, scorer: Scorer, readers: int = READERS) -> None:
        self._scorer = scorer
        self._reading = ThreadPoolExecutor(readers, thread_name_prefix="read")
        self._computing = ThreadPoolExecutor(scorer.slots, thread_name_prefix="slot")
        self._own = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reading.shutdown(cancel_futures=True)
        self._computing.shutdown(cancel_futures=True)

    def run(self, items: Iterable[tuple[T, Item]]) -> Iterator[tuple[T, Row]]:
        """A row for each of ``items``, with what came beside it, in their order.

        What is wrong with one image is in its row; what else ``items`` or the model raises ends the run.
        """
        iterator = iter(items)
        ahead: deque[tuple[list[T], Future[list[Row]]]] = deque()
        while batch := list(itertools.islice(iterator, self._scorer.batch)):
            reads = [(item.key, self._reading.submit(_read, item)) for _, item in batch]
            ahead.append(([tag for tag, _ in batch], self._computing.submit(self._compute, reads)))
            while len(ahead) >= _BATCHES_AHEAD * self._scorer.slots:
                yield from _first(ahead)
        while ahead:
            yield from _first(ahead)

    def _compute(self, reads: Sequence[tuple[str, Future[bytes | ServiceError]]]) -> list[Row]:
        return self._scorer.score([(key, read.result()) for key, read in reads], self._buffer())

    def _buffer(self) -> Images:
        try:
            return self._own.buffer  # type: ignore[no-any-return]
        except AttributeError:
            self._own.buffer = self._scorer.buffer()
            return self._own.buffer  # type: ignore[no-any-return]


def _first(ahead: deque[tuple[list[T], Future[list[Row]]]]) -> Iterator[tuple[T, Row]]:
    tags, rows = ahead.popleft()
    yield from zip(tags, rows.result(), strict=True)


def _read(item: Item) -> bytes | ServiceError:
    try:
        return item.read()
    except ServiceError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a path, a web server or a store may fail in any way; the others go on
        said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        return BadEntry(f"it cannot be read: {' '.join(said.split())}")
