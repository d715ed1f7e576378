"""Options that several commands of the service share, and what they make of the settings."""

from __future__ import annotations

from pathlib import Path

from model_store.command_line import options
from model_store.locations import parse_location
from service.config import Settings, load_settings

store_option = options.store_option()


def settings_with(store: str | None) -> Settings:
    """The environment's settings, with ``store`` as the model store where it is given; raises ``ConfigError``."""
    settings = load_settings()
    if store is None:
        return settings
    place = parse_location(store)
    update = {"model_store": place.absolute() if isinstance(place, Path) else place}
    return settings.model_copy(update={"store": settings.store.model_copy(update=update)})
