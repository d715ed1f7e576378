"""The search: provider and precision, then setting by setting, then what was found against the defaults."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from model_store.manifest import Precision
from service.inference.precision import choose_variant
from service.providers import candidates
from service.settings import Provider
from service.tuning.candidates import FIELDS, SPREAD, Trial, best, loads, pairs, quickest, start, variations
from service.tuning.images import TuneError
from service.tuning.measure import Plan, Subject, Tell, measure
from service.tuning.profile import Choice, Figures


@dataclass(frozen=True)
class Outcome:
    """All that was measured, what was chosen of it, and what that reached; ``defaults`` is the same without tuning."""

    trials: tuple[Trial, ...]
    passed_over: tuple[str, ...]
    choice: Choice
    figures: Figures
    defaults: Figures | None

    @property
    def unrest(self) -> float:
        """By how much the rounds of a candidate differ in images a second, as a share: the median of all."""
        return statistics.median(trial.unrest for trial in self.trials if trial.figures)


class Search:
    """Measures ``subject`` on ``cores`` cores; ``tell`` hears what is measured now."""

    def __init__(self, subject: Subject, cores: int, plan: Plan, tell: Tell) -> None:
        self._subject = subject
        self._cores = cores
        self._plan = plan
        self._tell = tell
        self._trials: list[Trial] = []
        providers, self._passed_over = candidates(subject.settings.inference.provider)
        found = pairs(subject.stored, providers, subject.settings)
        if not found:
            raise TuneError(f"no provider here computes in {subject.settings.inference.precision}")
        self._first = [start(provider, precision, subject.settings, cores) for provider, precision in found]
        self._default = self._by_default(found)

    def _by_default(self, found: Sequence[tuple[Provider, Precision]]) -> Choice:
        """What the service would run by itself."""
        provider, precision = found[0]
        if (wanted := self._subject.settings.inference.precision) == "auto":
            precision = choose_variant(self._subject.stored, "auto", provider).precision
        else:
            precision = wanted
        return start(provider, precision, self._subject.settings, self._cores)

    @property
    def longest_s(self) -> float:
        """About how long it measures at most; opening the models comes on top."""
        settings, widest = self._subject.settings, self._first[0]
        varied = {field: len(variations(field, widest, settings, self._cores)) for field in FIELDS}
        alone = varied.pop(SPREAD)
        loaded = len(self._first) + sum(varied.values()) + 2
        return self._plan.load_s * self._plan.rounds * (loaded * len(loads(widest.provider, self._cores)) + alone)

    async def run(self) -> Outcome:
        """Measure it all; ``TuneError`` where nothing can be measured."""
        trials = await self._stage("provider", self._first)
        if not any(trial.figures for trial in trials):
            raise TuneError("; ".join(f"{trial.choice.provider}: {trial.failure}" for trial in trials))
        chosen = best(trials, self._plan.goal_ms)
        default = next(trial for trial in trials if trial.choice == self._default)
        for field in [field for field in FIELDS if field != SPREAD]:
            chosen = await self._vary(field, chosen)
        if chosen.choice != self._default and default.figures:
            default, last = await self._stage("defaults", [self._default, chosen.choice])
            if default.figures and last.figures:
                chosen = best([default, last], self._plan.goal_ms)
        # Last, as it changes what one image takes, and no throughput that was compared.
        chosen = await self._vary(SPREAD, chosen)
        goal = self._plan.goal_ms
        return Outcome(
            trials=tuple(self._trials),
            passed_over=tuple(self._passed_over.values()),
            choice=chosen.choice,
            figures=chosen.at(goal),
            defaults=default.at(goal) if default.figures else None,
        )

    async def _vary(self, field: str, chosen: Trial) -> Trial:
        """The best of ``chosen`` and those that differ from it in ``field``."""
        choices = variations(field, chosen.choice, self._subject.settings, self._cores)
        if not choices:
            return chosen
        trials = await self._stage(field, choices)
        if not any(trial.figures for trial in trials):
            return chosen
        if field != SPREAD:
            return best(trials, self._plan.goal_ms)
        # One image at a time says nothing of throughput: that stays what it was measured to be.
        return Trial(chosen.stage, quickest(trials).choice, chosen.figures)

    async def _stage(self, stage: str, choices: Sequence[Choice]) -> list[Trial]:
        lone = stage == SPREAD

        def clients(choice: Choice) -> tuple[int, ...]:
            return (1,) if lone else loads(choice.provider, self._cores)

        trials = await measure(stage, choices, self._subject, clients, self._plan, self._tell)
        self._trials += trials
        return trials
