"""A command from its options to its exit status: files, connection, progress, output, summary."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from model_store.command_line.program import SOME_FAILED, Interrupted
from model_store.command_line.progress import ImagesBar
from service.client.base import Options
from service.client.command.asking import Ask, Outcome, ask_all
from service.client.command.files import NoImages, Source, find
from service.client.command.output import Failed, Format, check_parquet, form, opened
from service.client.command.pace import Pace
from service.client.command.plain import plain
from service.client.command.records import Layout
from service.client.concurrent import AsyncClient
from service.client.errors import ClientError, Refused
from service.client.retry import Retry

_OVERLOADED: Final = 429


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The options that all commands have."""

    files: tuple[str, ...]
    url: str
    model: str | None
    version: str | None
    header: tuple[tuple[str, str], ...] = field(repr=False)
    api_key: str | None = field(repr=False)
    concurrency: int
    batch: int = 1
    timeout: float
    retries: int
    output: Path | None
    format: Format | None


@dataclass(frozen=True)
class Command:
    """``ask`` makes the question of a client; ``layout`` its results' rows; ``piped`` their form off a terminal."""

    layout: Layout
    piped: Format
    ask: Callable[[AsyncClient, Sequence[Source]], Ask]


class _Told:
    """What standard error sees: a bar on a terminal, the first failure that is tried again, a summary of failures."""

    def __init__(self, total: int) -> None:
        self._console = Console(stderr=True)
        self.bar = ImagesBar(total, self._console, stays=True)
        self._retried: set[str] = set()
        self._failures: Counter[str] = Counter()

    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        codes = [outcome.result.error.code for outcome in outcomes if outcome.result.error is not None]
        self._failures.update(codes)
        self.bar.add(len(outcomes), len(codes))

    def retry(self, error: ClientError) -> None:
        """A line for the first failure of each kind: a crowd of them says no more."""
        if error.code not in self._retried:
            self._retried.add(error.code)
            self._line(f"{error}; trying again")

    def _line(self, text: str) -> None:
        self._console.print(plain(text), soft_wrap=True, markup=False, highlight=False)

    def summary(self) -> None:
        total = self.bar.total
        if 0 < self.bar.done < total:
            self._line(f"{total - self.bar.done} of {total} images were not asked about")
        if self._failures:
            codes = ", ".join(f"{code} {count}" for code, count in self._failures.most_common())
            self._line(f"{self.bar.failed} of {total} images failed: {codes}")


def run(shared: Shared, command: Command) -> int:
    """The exit status: 0, or 1 where images failed; raises ``click.ClickException`` and ``Interrupted`` for others."""
    chosen = form(shared.format, shared.output, command.piped)
    if chosen == "parquet":
        check_parquet()
    try:
        sources = find(shared.files)
    except NoImages as error:
        raise Failed(str(error)) from error
    told = _Told(len(sources))
    try:
        with opened(shared.output, chosen, command.layout, [source.name for source in sources]) as writer:

            def write(outcomes: Sequence[Outcome]) -> None:
                writer.write(outcomes)
                told.outcomes(outcomes)

            with told.bar:
                asyncio.run(_ask(shared, command, sources, write, told))
    except KeyboardInterrupt as error:
        told.summary()
        raise Interrupted("what was written is whole") from error
    except ClientError as error:
        told.summary()
        raise Failed(str(error)) from error
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # click ends quietly where nobody reads any more
        raise Failed(f"the results cannot be written: {error.strerror}") from error
    told.summary()
    return SOME_FAILED if told.bar.failed else 0


async def _ask(
    shared: Shared,
    command: Command,
    sources: Sequence[Source],
    write: Callable[[Sequence[Outcome]], None],
    told: _Told,
) -> None:
    pace = Pace(shared.concurrency)

    def on_retry(error: ClientError, _: float) -> None:
        if isinstance(error, Refused) and error.status == _OVERLOADED:
            pace.refused()
        told.retry(error)

    options = Options(
        model=shared.model,
        version=shared.version,
        api_key=shared.api_key,
        timeout_s=shared.timeout,
        retry=Retry(shared.retries),
        batch=shared.batch,
        headers=dict(shared.header),
        on_retry=on_retry,
    )
    async with _client(shared, options) as client:
        ask = command.ask(client, sources)

        async def paced(group: Sequence[Source], images: Sequence[bytes]) -> Sequence[Outcome]:
            outcomes = await ask(group, images)
            pace.answered()
            return outcomes

        await ask_all(sources, paced, write, pace, shared.batch)


def _client(shared: Shared, options: Options) -> AsyncClient:
    try:
        return AsyncClient(shared.url, options, connections=shared.concurrency)
    except ValueError as error:
        raise click.UsageError(f"--url: {error}") from error
