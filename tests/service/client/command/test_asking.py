from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.client.command.asking import Ask, Outcome, ask_all, hopeless
from service.client.command.files import Source
from service.client.command.pace import Pace
from service.client.errors import BadAnswer, ClientError, Refused, TimedOut, Unreachable
from service.client.results import Result


def sources(count: int) -> list[Source]:
    """Images over standard input, as those need no files."""
    return [Source(str(i), str(i), b"%d" % i) for i in range(count)]


def outcomes(sources: Sequence[Source]) -> list[Outcome]:
    return [Outcome(source, Result(), {}) for source in sources]


class Written:
    """Takes what is written, and looks whether one thread at a time does."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._alone = threading.Lock()

    def __call__(self, outcomes: Sequence[Outcome]) -> None:
        assert self._alone.acquire(blocking=False)
        self.outcomes += outcomes
        self._alone.release()

    @property
    def paths(self) -> list[str]:
        return [outcome.source.path for outcome in self.outcomes]


def run(sources: Sequence[Source], ask: Ask, places: int = 4, batch: int = 1) -> Written:
    written = Written()
    asyncio.run(ask_all(sources, ask, written, Pace(places), batch))
    return written


def test_results_keep_the_order_of_the_files_whatever_comes_first() -> None:
    async def ask(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
        # Later ones pass earlier ones.
        for _ in range(50 - int(images[0]) % 50):
            await asyncio.sleep(0)
        return outcomes(sources)

    assert run(sources(300), ask, places=16).paths == [str(i) for i in range(300)]


def test_several_at_once_and_no_more_than_places() -> None:
    under_way, most = 0, 0

    async def main() -> None:
        full = asyncio.Event()

        async def ask(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            if under_way == 5:
                full.set()
            await full.wait()
            for _ in range(10):
                await asyncio.sleep(0)
            under_way -= 1
            return outcomes(sources)

        await ask_all(sources(100), ask, Written(), Pace(5))

    asyncio.run(main())
    assert most == 5


def test_what_is_held_is_bounded_while_the_first_is_slow() -> None:
    """None is written before the first; behind it no more than the window is asked about."""
    asked: list[int] = []

    async def main() -> None:
        release = asyncio.Event()

        async def ask(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
            asked.append(int(images[0]))
            if images[0] == b"0":
                await release.wait()
            if len(asked) == 16:  # the window of 4 places
                release.set()
            return outcomes(sources)

        written = Written()
        task = asyncio.create_task(ask_all(sources(1000), ask, written, Pace(4)))
        await release.wait()
        assert len(asked) == 16
        assert not written.outcomes
        await task
        assert len(written.outcomes) == 1000

    asyncio.run(main())


def test_batches() -> None:
    sizes: list[int] = []

    async def ask(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
        sizes.append(len(images))
        return outcomes(sources)

    assert run(sources(10), ask, batch=4).paths == [str(i) for i in range(10)]
    assert sizes == [4, 4, 2]


def test_a_file_that_cannot_be_read_is_left_out_of_its_batch(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def ask(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
        asked.extend(images)
        return outcomes(sources)

    first, last = sources(2)
    written = run([first, Source(str(tmp_path / "none"), "none"), last], ask, batch=3)
    assert asked == [b"0", b"1"]
    errors = [outcome.result.error for outcome in written.outcomes]
    assert [error and error.code for error in errors] == [None, "unreadable", None]


def test_a_request_that_is_too_much_is_halved() -> None:
    async def ask(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
        if len(images) > 2:
            raise Refused(413, "body_too_large", "too large")
        if b"5" in images:
            raise Refused(413, "body_too_large", "too large")
        return outcomes(sources)

    written = run(sources(8), ask, batch=8)
    assert written.paths == [str(i) for i in range(8)]
    assert [bool(outcome.result.error) for outcome in written.outcomes] == [i == 5 for i in range(8)]


@pytest.mark.parametrize("error", [Refused(500, "inference_failed", ""), Refused(429, "overloaded", ""), TimedOut("")])
def test_an_image_fails_alone(error: ClientError) -> None:
    async def ask(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
        if images[0] == b"3":
            raise error
        return outcomes(sources)

    written = run(sources(6), ask)
    codes = [outcome.result.error and outcome.result.error.code for outcome in written.outcomes]
    assert codes == [None, None, None, error.code, None, None]


def test_nothing_goes_on_where_there_is_no_hope() -> None:
    asked = 0

    async def ask(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
        nonlocal asked
        asked += 1
        if int(images[0]) >= 3:
            raise Unreachable("gone")
        return outcomes(sources)

    written = Written()
    with pytest.raises(Unreachable):
        asyncio.run(ask_all(sources(10_000), ask, written, Pace(4)))
    assert written.paths == ["0", "1", "2"]
    assert asked < 50


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unreachable(""), True),
        (BadAnswer(""), True),
        (TimedOut(""), False),
        (Refused(400, "bad_request", ""), True),
        (Refused(401, "http_401", ""), True),
        (Refused(404, "unknown_model", ""), True),
        (Refused(422, "missing_output", ""), True),
        (Refused(307, "http_307", ""), True),
        (Refused(413, "image_too_large", ""), False),
        (Refused(415, "not_an_image", ""), False),
        (Refused(422, "no_heatmap", ""), False),
        (Refused(408, "http_408", ""), False),
        (Refused(429, "overloaded", ""), False),
        (Refused(500, "internal", ""), False),
        (Refused(503, "shutting_down", ""), False),
        (Refused(504, "deadline_exceeded", ""), False),
    ],
)
def test_hopeless(error: ClientError, expected: bool) -> None:
    assert hopeless(error) is expected


def test_an_interruption_ends_what_is_under_way() -> None:
    ended: list[bytes] = []

    async def main() -> None:
        begun = asyncio.Event()

        async def ask(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.extend(images)
            return []

        task = asyncio.create_task(ask_all(sources(1), ask, Written(), Pace(4)))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ended == [b"0"]
