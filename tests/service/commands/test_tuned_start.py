"""The service starts with the profile that was kept, or in spite of it."""

from __future__ import annotations

from typing import Any

import pytest

from model_store.store import ModelStore
from model_store.stored_model import StoredModel
from service.config import Settings
from service.models import loader
from service.process.cpus import available_cpus
from service.providers import ProviderUnavailable
from service.runtime import Runtime
from service.tuning.machine import key_here
from service.tuning.profile import Choice, save
from tests.service.conftest import a_png, publish_tiny, serving
from tests.service.tuning.conftest import a_choice, a_profile

from .conftest import settings_of, store


def keep(stored: StoredModel, choice: Choice) -> None:
    """A profile of this machine beside ``stored``."""
    folder = stored.folder.parent / "profiles"
    folder.mkdir()
    save(folder, a_profile(key_here(stored, available_cpus(), Settings()), choice))


OTHER_THAN_PLAIN: dict[str, Any] = {"slots": available_cpus() + 1, "max_batch": 3, "decode_threads": 2}


async def is_plain(runtime: Runtime) -> None:
    """Checks that nothing of ``OTHER_THAN_PLAIN`` is in use."""
    (pipeline,) = runtime.models
    assert runtime.profiles == [None]
    assert pipeline.session.slots == available_cpus()
    assert pipeline.max_batch == 8
    assert pipeline._decode_pool is None
    assert await pipeline.run(a_png(), pipeline.top(1), float("inf"))


class RawError(Exception):
    """As ONNX Runtime's own: of no class that is known here."""


def fail_to_warm_up(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    real = loader.Session.warm_up

    def failing(session: loader.Session, max_batch: int) -> None:
        if max_batch == size:
            raise RawError(f"no memory\nfor a batch of {size}")
        real(session, max_batch)

    monkeypatch.setattr(loader.Session, "warm_up", failing)


@pytest.mark.parametrize("how", ["stale", "broken", "off"])
def test_a_profile_that_does_not_fit_is_not_used(
    stored: StoredModel, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    settings = settings_of(stored, provider="cpu", slots=2, profiles="off" if how == "off" else "auto")
    key = key_here(stored, available_cpus(), settings)
    folder = stored.folder.parent / "profiles"
    folder.mkdir()
    stale = key.model_copy(update={"onnxruntime": "1.2.3"})
    path = save(folder, a_profile(stale if how == "stale" else key, a_choice(slots=3)))
    if how == "broken":
        path.write_text(path.read_text().replace('"slots": 3', '"slots": 0'))

    async def use(runtime: Runtime) -> None:
        assert runtime.profiles == [None]
        assert runtime.models[0].session.slots == 2
        assert await runtime.models[0].run(a_png(), runtime.models[0].top(1), float("inf"))

    with caplog.at_level("INFO", "service"):
        serving(settings, use)
    lines = [message for message in caplog.messages if "profile" in message]
    assert len(lines) == (0 if how == "off" else 1)
    assert all(" ignored: " in line for line in lines)


def test_each_model_has_its_own_profile_and_the_default_ones_slots(stored: StoredModel) -> None:
    publish_tiny(store(stored), "other")
    other = ModelStore(store(stored)).resolve("other")
    for model, choice in ((stored, a_choice(slots=3, max_batch=2)), (other, a_choice(slots=1, max_batch=5))):
        keep(model, choice)

    async def use(runtime: Runtime) -> None:
        assert [pipeline.session.slots for pipeline in runtime.models] == [3, 3]
        assert [pipeline.max_batch for pipeline in runtime.models] == [2, 5]
        assert None not in runtime.profiles

    serving(settings_of(stored, models="tiny,other"), use)


def test_a_profile_that_cannot_be_opened_does_not_stop_the_start(
    stored: StoredModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(stored, a_choice(precision="int8", **OTHER_THAN_PLAIN))
    real = loader.Session

    def failing(stored: StoredModel, requested: str, *others: Any) -> Any:
        if requested == "cpu":
            raise ProviderUnavailable("cpu: out of memory")
        return real(stored, requested, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(loader, "Session", failing)

    serving(settings_of(stored), is_plain)
    assert "model tiny version 1: profile ignored: cpu: out of memory" in caplog.text


def test_a_profile_that_cannot_be_warmed_up_does_not_stop_the_start(
    stored: StoredModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(stored, a_choice(**OTHER_THAN_PLAIN))
    fail_to_warm_up(monkeypatch, 3)
    serving(settings_of(stored), is_plain)
    (line,) = [message for message in caplog.messages if "ignored" in message]
    assert line == "model tiny version 1: profile ignored: no memory for a batch of 3"


def test_without_a_profile_a_warm_up_that_fails_stops_the_start(
    stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_warm_up(monkeypatch, 8)
    with pytest.raises(RawError):
        serving(settings_of(stored), is_plain)


def test_the_default_models_profile_failing_leaves_the_others_theirs(
    stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_tiny(store(stored), "other")
    keep(stored, a_choice(**OTHER_THAN_PLAIN))
    keep(ModelStore(store(stored)).resolve("other"), a_choice(slots=1, max_batch=5, decode_threads=9))
    fail_to_warm_up(monkeypatch, 3)

    async def use(runtime: Runtime) -> None:
        assert [pipeline.session.slots for pipeline in runtime.models] == [available_cpus()] * 2
        assert [pipeline.max_batch for pipeline in runtime.models] == [8, 5]
        assert [pipeline._decode_pool for pipeline in runtime.models] == [None, None]
        assert [profile is not None for profile in runtime.profiles] == [False, True]

    serving(settings_of(stored, models="tiny,other"), use)
