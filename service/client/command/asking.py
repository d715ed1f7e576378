"""All images of the command line asked about, several at once, results in the order of the files.

What is held does not grow with their number: the paths, a window of requests, and their results.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from service.client.command.files import Source, read
from service.client.command.pace import Pace
from service.client.errors import BadAnswer, ClientError, Refused, Unreachable
from service.client.results import Problem, Result

# Requests that may be finished behind one that is not, for each that may be under way.
_WINDOW: Final = 4
# Too slow or too much now; of other statuses from 400 to 499 those not of the image mean that no image will do.
_FOR_NOW: Final = (408, 429)
_TOO_MUCH: Final = 413


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an image: ``result``, whose ``error`` says what is wrong with it; ``more`` are further columns."""

    source: Source
    result: Result
    more: dict[str, Any]


Ask: TypeAlias = Callable[[Sequence[Source], Sequence[bytes]], Awaitable[Sequence[Outcome]]]
"""Asks the service about images; raises ``ClientError``."""

Write: TypeAlias = Callable[[Sequence[Outcome]], None]
"""Writes outcomes away; called in a thread, once at a time."""


def hopeless(error: ClientError) -> bool:
    """Whether no other image will fare better: nothing answers, or not the service, or it refuses the request."""
    if isinstance(error, Refused):
        return error.status < 500 and not error.of_the_image and error.status not in _FOR_NOW
    return isinstance(error, Unreachable | BadAnswer)


async def ask_all(sources: Sequence[Source], ask: Ask, write: Write, pace: Pace, batch: int = 1) -> None:
    """Gives ``write`` the outcome of each of ``sources``, in order; raises the first hopeless ``ClientError``."""
    pending: deque[asyncio.Task[list[Outcome]]] = deque()
    try:
        for group in _groups(sources, batch):
            # The place is taken here, so that no more files are read than can be sent.
            await pace.enter()
            pending.append(asyncio.create_task(_in_place(group, ask, pace)))
            if len(pending) >= _WINDOW * pace.most:
                await asyncio.wait([pending[0]])
            await _write_finished(pending, write)
        while pending:
            await asyncio.wait([pending[0]])
            await _write_finished(pending, write)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _write_finished(pending: deque[asyncio.Task[list[Outcome]]], write: Write) -> None:
    """Writes the finished ones at the head, in a thread: who reads slowly holds up no answer."""
    finished: list[Outcome] = []
    failure: ClientError | None = None
    while pending and pending[0].done() and failure is None:
        try:
            finished += pending.popleft().result()
        except ClientError as error:
            failure = error
    if finished:
        await asyncio.to_thread(write, finished)
    if failure is not None:
        raise failure


async def _in_place(group: Sequence[Source], ask: Ask, pace: Pace) -> list[Outcome]:
    try:
        return await _outcomes(group, ask)
    finally:
        pace.leave()


async def _outcomes(group: Sequence[Source], ask: Ask) -> list[Outcome]:
    contents = await asyncio.to_thread(lambda: [read(source) for source in group])
    good = [(source, data) for source, data in zip(group, contents, strict=True) if isinstance(data, bytes)]
    answered = iter(await _asked([source for source, _ in good], [data for _, data in good], ask))
    return [
        failed(source, data) if isinstance(data, Problem) else next(answered)
        for source, data in zip(group, contents, strict=True)
    ]


async def _asked(sources: Sequence[Source], images: Sequence[bytes], ask: Ask) -> Sequence[Outcome]:
    if not sources:
        return []
    try:
        return await ask(sources, images)
    except ClientError as error:
        if hopeless(error):
            raise
        if isinstance(error, Refused) and error.status == _TOO_MUCH and len(sources) > 1:
            # Too many at once, or too many bytes: each half for itself.
            half = len(sources) // 2
            first = await _asked(sources[:half], images[:half], ask)
            return [*first, *await _asked(sources[half:], images[half:], ask)]
        problem = Problem(code=error.code, message=error.message)
        return [failed(source, problem) for source in sources]


def failed(source: Source, problem: Problem) -> Outcome:
    return Outcome(source, Result(error=problem), {})


def _groups(sources: Sequence[Source], size: int) -> Iterator[list[Source]]:
    rest = iter(sources)
    while group := list(islice(rest, size)):
        yield group
