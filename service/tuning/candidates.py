"""Which settings are measured, under which loads, and which of them is best: pure functions.

The search goes setting by setting, each from the best that was found so far. The
full grid would take hours, and most of it nobody would run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from model_store.manifest import Precision
from model_store.stored_model import StoredModel
from service.config import ConfigError, Settings
from service.inference.precision import admitted, choose_variant
from service.providers import Share, kind
from service.settings import Provider
from service.tuning.fixed import given
from service.tuning.profile import Choice, Figures

SPREAD: Final = "spread_lone_image"

NOISE: Final = 0.03
"""Two measurements this near to each other, as a share, are the same one."""

_MOST: Final = 256  # of slots and of images in a batch, as in the settings
_LARGEST_BATCH: Final = 64
_BATCHES: Final = (1, 4, 8, 16, 32, _LARGEST_BATCH)


def loads(provider: Provider, cores: int) -> tuple[int, ...]:
    """Requests at a time, ascending: from where nothing waits to where all does."""
    base = cores if kind(provider) == "CPU" else 8
    return tuple(base * times for times in ((1, 2, 4, 8) if kind(provider) == "CPU" else (1, 4, 16, 32)))


def pairs(stored: StoredModel, providers: Iterable[Provider], settings: Settings) -> list[tuple[Provider, Precision]]:
    """The providers, each with what may run on it: all that passed its gate, or what the operator named."""
    named = settings.inference.precision
    found: list[tuple[Provider, Precision]] = []
    for provider in providers:
        if named == "auto":
            found += [(provider, precision) for precision in admitted(stored, provider)]
            continue
        try:
            choose_variant(stored, named, provider)
        except ConfigError:  # this provider does not compute in it
            continue
        found.append((provider, named))
    return found


def start(provider: Provider, precision: Precision, settings: Settings, cores: int) -> Choice:
    """What the service would do on ``provider`` by itself, but for the precision."""
    inference = settings.inference
    wanted = None if inference.slots == "auto" else inference.slots
    return Choice(
        provider=provider,
        precision=precision,
        slots=min(_MOST, Share(cores, wanted).slots(provider)),
        max_batch=inference.max_batch,
        decode_threads=settings.decode.threads(cores, kind(provider) == "CPU"),
        spread_lone_image=inference.spread_lone_image,
    )


def _slots(base: Choice, cores: int) -> list[Choice]:
    """All cores on one batch, a core for each, and on large machines what is between; batches as large as may come."""
    if kind(base.provider) == "CPU":
        between = [2**n for n in range(1, 8) if 2**n < cores] if cores >= 8 else []
        counts = {base.slots, 1, *between, min(_MOST, cores)}
    else:
        counts = {base.slots, 1, 2, 4}
    most = loads(base.provider, cores)[-1]
    return [base.model_copy(update={"slots": n, "max_batch": _roomy(base, n, most)}) for n in sorted(counts)]


def _roomy(base: Choice, slots: int, clients: int) -> int:
    """The size that does not cut what so many clients queue: a share for each slot and one that stays."""
    share = math.ceil(clients / (slots + 1))
    return max(base.max_batch, next((size for size in _BATCHES if size >= share), _LARGEST_BATCH))


def _max_batch(base: Choice, cores: int) -> list[Choice]:
    del cores
    return [base.model_copy(update={"max_batch": n}) for n in _BATCHES if n < base.max_batch]


def _decode_threads(base: Choice, cores: int) -> list[Choice]:
    return [base.model_copy(update={"decode_threads": n}) for n in (0, min(_MOST, cores))]


def _spread(base: Choice, cores: int) -> list[Choice]:
    """Without first: holding the model twice must pay."""
    del cores
    if kind(base.provider) == "GPU" or base.slots == 1:
        return []
    return [base.model_copy(update={"spread_lone_image": spread}) for spread in (False, True)]


_VARIATIONS: Final[Mapping[str, Callable[[Choice, int], list[Choice]]]] = MappingProxyType(
    {"slots": _slots, "max_batch": _max_batch, "decode_threads": _decode_threads, SPREAD: _spread}
)
FIELDS: Final = tuple(_VARIATIONS)
"""The settings that are varied, in this order."""


def variations(field: str, base: Choice, settings: Settings, cores: int) -> list[Choice]:
    """``base`` and others that differ in ``field``, ``base`` first; empty where the operator fixed it or none differ.

    ``spread_lone_image`` is the exception to that order, as its cost is memory.
    """
    fixed = given(settings)
    if settings.inference.preferred_batches:
        fixed |= {"max_batch"}
    if field in fixed:
        return []
    found = _VARIATIONS[field](base, cores)
    if "max_batch" in fixed:
        found = [choice.model_copy(update={"max_batch": base.max_batch}) for choice in found]
    others = [choice for choice in found if choice != base]
    if field == SPREAD or not others:
        return found if others else []
    return [base, *others]


@dataclass(frozen=True)
class Trial:
    """One candidate: under each load what it did, or why it could not be measured.

    ``unrest`` is by how much its rounds differ in images a second, as a share: the median of its loads.
    """

    stage: str
    choice: Choice
    figures: tuple[Figures, ...] = ()
    failure: str | None = None
    unrest: float = 0.0

    def at(self, goal_ms: float) -> Figures:
        """The most images a second within ``goal_ms`` at p99; where no load is within, that of the lowest p99."""
        within = [figures for figures in self.figures if figures.p99_ms <= goal_ms]
        if within:
            return max(within, key=lambda figures: figures.images_per_second)
        return min(self.figures, key=lambda figures: figures.p99_ms)


def best(trials: Sequence[Trial], goal_ms: float) -> Trial:
    """The most images a second within ``goal_ms`` at p99; where nothing is within, the lowest p99.

    Of those that differ by noise alone the first. ``trials`` has at least one that was measured.
    """
    measured = [trial for trial in trials if trial.figures]
    within = [trial for trial in measured if trial.at(goal_ms).p99_ms <= goal_ms]
    if within:
        most = max(trial.at(goal_ms).images_per_second for trial in within)
        return next(trial for trial in within if trial.at(goal_ms).images_per_second >= (1 - NOISE) * most)
    least = min(trial.at(goal_ms).p99_ms for trial in measured)
    return next(trial for trial in measured if trial.at(goal_ms).p99_ms <= (1 + NOISE) * least)


def quickest(trials: Sequence[Trial]) -> Trial:
    """The lowest median latency under the lightest load; the first of those that differ by noise alone."""
    measured = [trial for trial in trials if trial.figures]
    least = min(trial.figures[0].p50_ms for trial in measured)
    return next(trial for trial in measured if trial.figures[0].p50_ms <= (1 + NOISE) * least)
