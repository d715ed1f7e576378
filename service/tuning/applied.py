"""The settings that a model runs with: its profile's, where the operator gave none."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from model_store.store import StoreError
from model_store.stored_model import StoredModel
from service.config import ConfigError, Settings, variable
from service.inference.precision import admitted, choose_variant
from service.providers import ProviderUnavailable, candidates
from service.settings import DecodeSettings, InferenceSettings
from service.tuning.fixed import given
from service.tuning.machine import key_here
from service.tuning.profile import Choice, Profile, find, profiles_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuned:
    """Settings for one model, and the profile that is in them, if one is."""

    settings: Settings
    profile: Profile | None = None


def tuned(settings: Settings, stored: StoredModel, cores: int) -> Tuned:
    """``settings`` with the matching profile of ``stored`` in them; what is used and what is passed over is logged."""
    folder = profiles_folder(settings.store, stored)
    if folder is None:
        return Tuned(settings)
    who = f"model {stored.manifest.name} version {stored.manifest.version}"
    found = find(folder, key_here(stored, cores, settings))
    for line in found.ignored:
        logger.warning("%s: %s", who, line)
    if found.profile is None:
        return Tuned(settings)
    profile = found.profile
    try:
        applied = with_choice(settings, profile.choice)
        _check_servable(settings, profile.choice, stored)
    except (ValueError, ConfigError, StoreError, ProviderUnavailable) as error:
        logger.warning("%s: profile of %s ignored: %s", who, profile.date, error)
        return Tuned(settings)
    figures = profile.figures
    logger.info(
        "%s: profile of %s (%.0f images/s, p99 %.1f ms)", who, profile.date, figures.images_per_second, figures.p99_ms
    )
    return Tuned(applied, profile)


def with_choice(settings: Settings, choice: Choice) -> Settings:
    """``settings`` with ``choice`` where the operator fixed nothing; ``ValueError`` where they do not go together."""
    fixed = given(settings)
    inference = settings.inference
    for name in ("provider", "precision"):
        asked, measured = getattr(inference, name), getattr(choice, name)
        if name in fixed and asked != measured:
            raise ValueError(f"measured with {measured}, and {variable(name)} asks for {asked}")
    largest = max(inference.preferred_batches, default=0)
    if "max_batch" not in fixed and largest > choice.max_batch:
        raise ValueError(f"measured with batches of {choice.max_batch}, and {variable('preferred_batches')} has larger")
    values = choice.model_dump(exclude=set(fixed))
    mine = {name: value for name, value in values.items() if name in InferenceSettings.model_fields}
    rest = {name: value for name, value in values.items() if name in DecodeSettings.model_fields}
    return settings.model_copy(
        update={
            "inference": InferenceSettings.model_validate(inference.model_dump() | mine),
            "decode": DecodeSettings.model_validate(settings.decode.model_dump() | rest),
        }
    )


def _check_servable(settings: Settings, choice: Choice, stored: StoredModel) -> None:
    """A profile is no way around the gate, and none to a provider that is not there."""
    candidates(choice.provider)
    choose_variant(stored, choice.precision, choice.provider)
    if "precision" not in given(settings) and choice.precision not in admitted(stored, choice.provider):
        raise ValueError(f"its {choice.precision} variant is none that may run on {choice.provider} unasked")
