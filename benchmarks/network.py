"""The default model of some settings, opened as the service opens it, for programs that run it without the service."""

from __future__ import annotations

from model_store.store import StoredModel
from service.config import Settings
from service.cpus import available_cpus
from service.providers import Share
from service.runtime import chosen_models
from service.session import Session


def stored_model(settings: Settings) -> StoredModel:
    """The model that answers where a request names none."""
    return chosen_models(settings)[0]


def open_session(settings: Settings) -> Session:
    """A session of it with all of this process's cores."""
    inference = settings.inference
    return Session(stored_model(settings), inference.provider, Share(available_cpus()), inference.precision)
