"""What is served now: names to versions to pipelines. Event loop only, so a change is whole for whoever looks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from service.errors import UnknownModel
from service.inference.pipeline import Pipeline
from service.models.served import Served, ServedModel
from service.models.shadow import Shadows
from service.settings import CanarySettings

CANARY: Final = "canary"


class Registry:
    """The models served, and which of them a request gets."""

    def __init__(self, canary: CanarySettings, shadows: Shadows, chance: Callable[[], float] = random.random) -> None:
        self._canary = canary
        self._shadows = shadows
        self._chance = chance
        self._models: dict[str, ServedModel] = {}
        self._order: list[str] = []

    @property
    def default(self) -> str | None:
        """The model that answers where a request names none, served or not."""
        return self._order[0] if self._order else None

    def get(self, name: str) -> ServedModel | None:
        return self._models.get(name)

    @property
    def names(self) -> list[str]:
        """Of the models served, the default one first."""
        return [name for name in self._order if name in self._models]

    @property
    def served(self) -> list[Served]:
        """All versions, the one that answers by default first."""
        return [served for name in self.names for served in self._models[name].versions.values()]

    def order(self, names: Sequence[str]) -> None:
        """The names that may be served, the default one first."""
        self._order = list(names)

    def put(self, name: str, versions: Mapping[str, Served], aliases: Mapping[str, str]) -> list[Served]:
        """Serve these versions of ``name`` from now on, none where there are none; gives those that are out of it."""
        before = self._models.pop(name, None)
        if versions:
            self._models[name] = ServedModel(name, dict(versions), dict(aliases))
        kept = set(versions.values())
        self._shadows.forget(name, kept)
        return [] if before is None else [served for served in before.versions.values() if served not in kept]

    def find(self, name: str | None, version: str | None) -> Served:
        """The version asked for, by number or alias; ``UnknownModel`` says what there is."""
        wanted = self.default if name is None else name
        model = None if wanted is None else self._models.get(wanted)
        if model is not None:
            found = next(iter(model.versions.values())) if name is None and version is None else model.find(version)
            if found is not None:
                return found
        if name is None and model is None:
            raise UnknownModel(f"the default model {self.default!r} is not loaded; {self._there()}")
        shown = f"model {(wanted or '')[:64]!r}" + ("" if version is None else f" version {version[:32]!r}")
        raise UnknownModel(f"no {shown} is served; {self._there()}")

    def _there(self) -> str:
        parts = []
        for name in self.names:
            model = self._models[name]
            for version in model.versions:
                # "stable" says nothing that a list with the stable one first does not.
                others = [alias for alias in model.called(version) if alias != "stable"]
                parts.append(f"{name} version {version}" + (f" ({', '.join(others)})" if others else ""))
        return f"served: {', '.join(parts) or 'none'}"

    @contextmanager
    def use(self, name: str | None, version: str | None) -> Iterator[Pipeline]:
        """``find``, kept alive while the block lasts.

        A request that names no version may get the model's canary, or be computed by that, too.
        """
        served = self.find(name, version)
        canary = self._canary_for(served) if version is None and self._canary.canary_share else None
        if canary is None:
            with served.lease():
                yield served.pipeline
        elif self._canary.canary_mode == "split":
            with canary.lease():
                yield canary.pipeline
        else:
            with served.lease():
                yield self._shadows.watched(served, canary)

    def _canary_for(self, served: Served) -> Served | None:
        """The canary beside ``served``, for the share of requests that it gets."""
        model = self._models[served.name]
        canary = model.find(CANARY)
        if canary is None or canary is served or served is not model.stable:
            return None
        return canary if self._chance() < self._canary.canary_share else None
