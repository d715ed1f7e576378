"""Candidates measured against each other: the service's own runtime for each, loaded in turns.

All of a stage are open at the same time and take turns, round by round, so that
what else the machine does meets them all alike. Requests reach the pipelines as
from the routes, without HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from model_store.stored_model import StoredModel
from service.config import Settings
from service.inference.pipeline import Pipeline
from service.metrics import Metrics
from service.process.workers import Workers
from service.runtime import Runtime
from service.tuning.applied import with_choice
from service.tuning.candidates import Trial
from service.tuning.images import Images
from service.tuning.profile import Choice, Figures

WARM_UP: Final = 0.2
"""Of a measurement's seconds, how many more come before them and do not count."""

_TOP_K: Final = 5

Tell = Callable[[str, float], None]
"""Hears what is done now, and how many of the planned seconds were just measured."""


@dataclass(frozen=True)
class Plan:
    """How much is measured: ``seconds`` for a load, in each of ``rounds``; ``goal_ms`` is for p99."""

    seconds: float
    rounds: int
    goal_ms: float

    @property
    def load_s(self) -> float:
        """How long one load takes in one round."""
        return (1 + WARM_UP) * self.seconds


@dataclass(frozen=True)
class Subject:
    """The model that is tuned, as a worker of ``workers`` serves it, and the images that it is measured with."""

    stored: StoredModel
    settings: Settings
    workers: int
    images: Images


@dataclass
class _Open:
    """A candidate that is open, and what was seen of it under each load, a value a round."""

    choice: Choice
    pipeline: Pipeline | None
    loads: tuple[int, ...]
    failure: str | None = None
    seen: dict[int, list[Figures]] = field(default_factory=dict)


async def measure(
    stage: str,
    choices: Sequence[Choice],
    subject: Subject,
    loads: Callable[[Choice], tuple[int, ...]],
    plan: Plan,
    tell: Tell,
) -> list[Trial]:
    """A trial for each of ``choices``, in their order; what cannot be opened or run says why.

    The loads of a choice ascend: behind one under which half the images miss the goal, the heavier are left out.
    """
    async with AsyncExitStack() as runtimes:
        opened = []
        for choice in choices:
            tell(f"opening {_words(choice)}", 0.0)
            opened.append(await _open(choice, subject, loads(choice), runtimes))
        images = itertools.cycle(subject.images.bodies)
        for number, candidate in itertools.product(range(plan.rounds), opened):
            tell(f"round {number + 1} of {plan.rounds}: {_words(candidate.choice)}", 0.0)
            await _round(candidate, images, plan)
            tell("", plan.load_s * len(loads(candidate.choice)))
    return [_trial(stage, candidate) for candidate in opened]


def _words(choice: Choice) -> str:
    return f"{choice.provider} {choice.precision}, {choice.slots} slots, batches of {choice.max_batch}"


async def _open(choice: Choice, subject: Subject, loads: tuple[int, ...], runtimes: AsyncExitStack) -> _Open:
    manifest = subject.stored.manifest
    settings = with_choice(subject.settings, choice)
    store = settings.store.model_copy(
        update={"models": ((manifest.name, manifest.version),), "profiles": "off", "watch_s": 0.0}
    )
    runtime = Runtime(settings.model_copy(update={"store": store}), Metrics(None), Workers(None, subject.workers))
    runtimes.push_async_callback(runtime.stop)
    try:
        await runtime.start()
        await asyncio.to_thread(runtime.models[0].session.spread)
    except Exception as error:  # noqa: BLE001 - whatever a provider raises; the others may do
        return _Open(choice, None, loads, failure=_line(error))
    return _Open(choice, runtime.models[0], loads)


async def _round(candidate: _Open, images: Iterator[bytes], plan: Plan) -> None:
    """Each load once; a candidate that fails under one is out."""
    pipeline = candidate.pipeline
    if pipeline is None:
        return
    try:
        for clients in candidate.loads:
            figures = await drive(pipeline, images, clients, plan.seconds)
            candidate.seen.setdefault(clients, []).append(figures)
            if len(candidate.seen[clients]) == 1 and figures.p50_ms > plan.goal_ms:
                candidate.loads = tuple(n for n in candidate.loads if n <= clients)
                break
    except Exception as error:  # noqa: BLE001 - as above
        candidate.failure, candidate.pipeline = _line(error), None


async def drive(pipeline: Pipeline, images: Iterator[bytes], clients: int, seconds: float) -> Figures:
    """What ``clients`` see that each send the next of ``images`` when they have the last answer."""
    start = time.perf_counter() + WARM_UP * seconds
    end = start + seconds
    top_k = min(_TOP_K, len(pipeline.labels))
    answers: list[tuple[float, float]] = []

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            await pipeline.run(next(images), pipeline.top(top_k), math.inf)
            answers.append((began, time.perf_counter()))

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return figures(answers, clients, start, end)


def figures(answers: Sequence[tuple[float, float]], clients: int, start: float, end: float) -> Figures:
    """Of ``answers``, when each began and came: the rate within ``start`` and ``end``, the latency of those begun then.

    Where an image takes longer than that, all answers count, over all the time they took.
    """
    answered = sum(start <= came < end for _, came in answers)
    latencies = sorted(came - began for began, came in answers if start <= began)
    rate = answered / (end - start)
    if not answered or not latencies:
        latencies = sorted(came - began for began, came in answers)
        rate = len(answers) / (max(came for _, came in answers) - min(began for began, _ in answers))
    return Figures(
        clients=clients,
        images_per_second=rate,
        p50_ms=1000 * _percentile(latencies, 0.5),
        p99_ms=1000 * _percentile(latencies, 0.99),
    )


def _percentile(ordered: Sequence[float], share: float) -> float:
    """By the nearest rank: a latency that was seen."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _trial(stage: str, candidate: _Open) -> Trial:
    if candidate.failure is not None:
        return Trial(stage, candidate.choice, failure=candidate.failure)
    medians = tuple(
        Figures(
            clients=clients,
            images_per_second=statistics.median(one.images_per_second for one in seen),
            p50_ms=statistics.median(one.p50_ms for one in seen),
            p99_ms=statistics.median(one.p99_ms for one in seen),
        )
        for clients, seen in sorted(candidate.seen.items())
    )
    return Trial(stage, candidate.choice, medians, unrest=statistics.median(map(_unrest, candidate.seen.values())))


def _unrest(rounds: Sequence[Figures]) -> float:
    rates = [one.images_per_second for one in rounds]
    return (max(rates) - min(rates)) / statistics.median(rates)


def _line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split()) or type(error).__name__
