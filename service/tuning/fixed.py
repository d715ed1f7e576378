"""What the operator fixed: no profile changes it, and none that was measured with other values is used."""

from __future__ import annotations

from typing import Final

from service.config import Settings, variable
from service.tuning.profile import Choice, one_line

_SHAPING: Final = {*Choice.model_fields, "max_delay_s", "preferred_batches"}


def given(settings: Settings) -> frozenset[str]:
    """The settings that the operator fixed, which no profile changes; ``auto`` fixes nothing."""
    return frozenset(
        name
        for group in (settings.inference, settings.decode)
        for name in group.model_fields_set
        if getattr(group, name) != "auto"
    )


def fixed(settings: Settings) -> dict[str, str]:
    """Those of them that shape a measurement: variables and values, as one would set them."""
    values = settings.inference.model_dump() | settings.decode.model_dump()
    return {variable(name): _text(values[name]) for name in sorted(given(settings) & _SHAPING)}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return one_line(",".join(map(str, value)) if isinstance(value, tuple) else str(value))
