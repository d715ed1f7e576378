"""Whose word counts: the operator's, then the profile's, then the defaults."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from model_store.stored_model import StoredModel
from service.config import Settings
from service.tuning import applied as module
from service.tuning.applied import Tuned, tuned, with_choice
from service.tuning.fixed import fixed, given
from service.tuning.machine import key_here
from service.tuning.profile import Choice, save
from tests.service.conftest import TinyModel, a_gate, publish_tiny
from tests.service.tuning.conftest import a_choice, a_profile

CORES = 2
CHOICE = a_choice(slots=1, max_batch=4, decode_threads=2, spread_lone_image=False)


def of(**environ: object) -> Settings:
    return Settings.from_env({f"RESNET_{name.upper()}": str(value) for name, value in environ.items()})


def chosen(settings: Settings) -> dict[str, Any]:
    """The values of what a profile may choose."""
    both = settings.inference.model_dump() | settings.decode.model_dump()
    return {name: both[name] for name in Choice.model_fields}


def profiled(stored: StoredModel, choice: Choice = CHOICE, settings: Settings | None = None) -> StoredModel:
    """``stored`` with a profile beside it, of this machine and what ``settings`` fix."""
    folder = stored.folder.parent / "profiles"
    folder.mkdir(exist_ok=True)
    save(folder, a_profile(key_here(stored, CORES, settings or of()), choice))
    return stored


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    others = {"int8": (TinyModel(seed=1), a_gate()), "fp16": (TinyModel(seed=2), a_gate("off", passed=False))}
    return publish_tiny(tmp_path, others=others)  # type: ignore[arg-type]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "service.tuning")
    return caplog


def ignored(result: Tuned, settings: Settings, log: pytest.LogCaptureFixture) -> str:
    """Checks that nothing of a profile is in ``result``; the one warning of it."""
    assert result == Tuned(settings)
    (record,) = log.records
    assert record.levelname == "WARNING"
    return record.getMessage()


def test_a_matching_profile_is_used_and_told(stored: StoredModel, log: pytest.LogCaptureFixture) -> None:
    result = tuned(of(), profiled(stored), CORES)
    assert chosen(result.settings) == CHOICE.model_dump()
    assert result.profile is not None
    assert log.messages == ["model tiny version 1: profile of 2026-02-03 (100 images/s, p99 20.0 ms)"]


def test_what_is_not_tuned_stays(stored: StoredModel) -> None:
    settings = of(max_queue=7, max_delay_s=0.01, image_formats="png", model_store=stored.folder.parents[1])
    after = tuned(settings, profiled(stored, settings=settings), CORES).settings
    assert (after.limits, after.store, after.server) == (settings.limits, settings.store, settings.server)
    assert after.inference.max_delay_s == 0.01
    assert after.decode.image_formats == ("png",)


@pytest.mark.parametrize(
    ("name", "value"),
    [("slots", 3), ("max_batch", 16), ("decode_threads", 5), ("spread_lone_image", True)],
)
def test_the_operators_word_counts_more(stored: StoredModel, name: str, value: object) -> None:
    settings = of(**{name: value})
    result = tuned(settings, profiled(stored, settings=settings), CORES)
    assert chosen(result.settings) == CHOICE.model_dump() | {name: value}


def test_auto_fixes_nothing(stored: StoredModel) -> None:
    settings = of(provider="auto", precision="auto", slots="auto", decode_threads="auto")
    assert given(settings) == frozenset()
    assert chosen(tuned(settings, profiled(stored), CORES).settings) == CHOICE.model_dump()


def test_what_is_given() -> None:
    assert given(Settings()) == given(of()) == frozenset()
    assert given(of(slots=2, decode_threads=0, max_queue=5, image_formats="png", precision="fp32")) == {
        "slots",
        "decode_threads",
        "image_formats",
        "precision",
    }


def test_what_is_fixed_of_what_shapes_a_measurement() -> None:
    assert fixed(of(provider="auto", max_queue=5, image_formats="png")) == {}
    assert fixed(of(provider="cpu", spread_lone_image=False, max_delay_s=0.01, preferred_batches="4,2")) == {
        "RESNET_PROVIDER": "cpu",
        "RESNET_SPREAD_LONE_IMAGE": "false",
        "RESNET_MAX_DELAY_S": "0.01",
        "RESNET_PREFERRED_BATCHES": "2,4",
    }
    assert fixed(of(max_batch=256, preferred_batches=",".join(map(str, range(1, 257)))))


def test_a_profile_measured_with_other_settings_fixed(stored: StoredModel, log: pytest.LogCaptureFixture) -> None:
    settings = of()
    line = ignored(tuned(settings, profiled(stored, settings=of(provider="cpu")), CORES), settings, log)
    assert line.endswith("ignored: measured with RESNET_PROVIDER=cpu, which is not set")


@pytest.mark.parametrize(("name", "value"), [("provider", "openvino"), ("precision", "int8")])
def test_a_profile_of_another_provider_or_precision_than_asked_for(
    stored: StoredModel, log: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    settings = of(**{name: value})
    line = ignored(tuned(settings, profiled(stored, settings=settings), CORES), settings, log)
    assert f"profile of 2026-02-03 ignored: measured with {getattr(CHOICE, name)}" in line
    assert f"RESNET_{name.upper()} asks for {value}" in line


def test_preferred_batches_that_do_not_fit(stored: StoredModel, log: pytest.LogCaptureFixture) -> None:
    settings = of(preferred_batches="2,8")
    assert "RESNET_PREFERRED_BATCHES" in ignored(
        tuned(settings, profiled(stored, settings=settings), CORES), settings, log
    )
    settings = of(preferred_batches="2,8", max_batch=8)
    result = tuned(settings, profiled(stored, settings=settings), CORES)
    assert result.profile is not None
    assert result.settings.inference.max_batch == 8


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_profile_is_no_way_around_the_gate(
    stored: StoredModel, log: pytest.LogCaptureFixture, precision: str
) -> None:
    """fp16's gate was off; bf16 is not there, and the CPU provider could not run it."""
    settings = of()
    line = ignored(tuned(settings, profiled(stored, a_choice(precision=precision)), CORES), settings, log)
    assert precision in line


def test_an_ungated_variant_that_the_operator_names(stored: StoredModel) -> None:
    settings = of(precision="fp16")
    result = tuned(settings, profiled(stored, a_choice(precision="fp16"), settings), CORES)
    assert result.profile is not None


def test_a_provider_that_is_gone(
    stored: StoredModel, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: str) -> Any:
        raise module.ProviderUnavailable("no NVIDIA driver")

    monkeypatch.setattr(module, "candidates", gone)
    settings = of()
    line = ignored(tuned(settings, profiled(stored), CORES), settings, log)
    assert line.endswith("profile of 2026-02-03 ignored: no NVIDIA driver")


def test_a_stale_and_a_broken_one(stored: StoredModel, log: pytest.LogCaptureFixture) -> None:
    settings = of()
    line = ignored(tuned(settings, profiled(stored), CORES + 1), settings, log)
    assert line.endswith("ignored: measured with 2 cores a worker, this is 3 cores a worker")
    log.clear()
    (file,) = (stored.folder.parent / "profiles").iterdir()
    file.write_text("{}")
    assert f"profile {file.name} ignored" in ignored(tuned(settings, stored, CORES), settings, log)


def test_no_profile_is_nothing_to_tell(stored: StoredModel, log: pytest.LogCaptureFixture) -> None:
    assert tuned(of(), stored, CORES) == Tuned(of())
    assert tuned(of(profiles="off"), profiled(stored), CORES) == Tuned(of(profiles="off"))
    assert not log.records


def test_profiles_in_a_folder_of_their_own(stored: StoredModel, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    (folder / "tiny").mkdir(parents=True)
    save(folder / "tiny", a_profile(key_here(stored, CORES, of())))
    assert tuned(of(profiles=folder), stored, CORES).profile is not None
    assert tuned(of(), stored, CORES).profile is None


def test_with_choice_is_what_the_choice_says() -> None:
    assert chosen(with_choice(Settings(), CHOICE)) == CHOICE.model_dump()
