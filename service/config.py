"""Every setting, typed and frozen; the only module that reads the environment.

A field's variable is its name in capitals behind ``RESNET_``; docs/configuration.md
is made from the fields of service/settings (``python -m service settings`` prints it).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from model_store.errors import Explained
from service.settings import (
    AccessSettings,
    CanarySettings,
    ConnectionSettings,
    DecodeSettings,
    DriftSettings,
    Group,
    InferenceSettings,
    JobSettings,
    LimitSettings,
    LogSettings,
    ProviderSettings,
    ServerSettings,
    StoreSettings,
    TraceSettings,
)

PREFIX: Final = "RESNET_"
# What Kubernetes and Docker links set in every pod beside a Service called resnet...: no settings of ours.
_KUBERNETES: Final = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)$")
_KUBERNETES_URL: Final = re.compile(r"(tcp|udp|sctp)://")


class ConfigError(Explained):
    """A setting that is wrong or unknown; one line names the variable."""


class Settings(Group):
    """All settings, by the part that takes them."""

    store: StoreSettings = StoreSettings()
    canary: CanarySettings = CanarySettings()
    inference: InferenceSettings = InferenceSettings()
    providers: ProviderSettings = ProviderSettings()
    limits: LimitSettings = LimitSettings()
    connections: ConnectionSettings = ConnectionSettings()
    decode: DecodeSettings = DecodeSettings()
    jobs: JobSettings = JobSettings()
    logs: LogSettings = LogSettings()
    drift: DriftSettings = DriftSettings()
    server: ServerSettings = ServerSettings()
    access: AccessSettings = AccessSettings()
    traces: TraceSettings = TraceSettings()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """The settings that ``environ`` gives, defaults for the rest; ``ConfigError`` names the variable at fault."""
        given = {n: value for n, value in environ.items() if n.startswith(PREFIX) and not _of_kubernetes(n, value)}
        groups: dict[str, dict[str, str]] = {}
        for group, field, _ in fields():
            if (value := given.pop(variable(field), None)) is not None:
                groups.setdefault(group, {})[field] = value
        if given:
            raise ConfigError(_unknown(min(given)))
        try:
            return cls.model_validate(groups)
        except ValidationError as error:
            # The error holds what was given, which may be a secret: it goes no further.
            raise ConfigError(_explain(error)) from None


_GROUPS: Final[dict[str, type[Group]]] = {
    "store": StoreSettings,
    "canary": CanarySettings,
    "inference": InferenceSettings,
    "providers": ProviderSettings,
    "limits": LimitSettings,
    "connections": ConnectionSettings,
    "decode": DecodeSettings,
    "jobs": JobSettings,
    "logs": LogSettings,
    "drift": DriftSettings,
    "server": ServerSettings,
    "access": AccessSettings,
    "traces": TraceSettings,
}


def fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every setting: its group, its name, its pydantic field."""
    for group, settings in _GROUPS.items():
        for name, field in settings.model_fields.items():
            yield group, name, field


def variable(field: str) -> str:
    """The environment variable of the setting called ``field``."""
    return PREFIX + field.upper()


def _of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes set it: by the name, and by the value where the name may be a setting's, or be meant for one.

    Beside a Service called resnet-grpc every pod has RESNET_GRPC_PORT, an address.
    """
    found = _KUBERNETES.search(name)
    if found is None:
        return False
    unclear = found[1] == "PORT" or name in {variable(field) for _, field, _ in fields()}
    return not unclear or bool(_KUBERNETES_URL.match(value))


_SECRETS: Final = frozenset(name for _, name, field in fields() if "SecretStr" in str(field.annotation))


def _unknown(name: str) -> str:
    names = [variable(field) for _, field, _ in fields()]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"
    return f"{name} is no setting; {hint}"


def _explain(error: ValidationError) -> str:
    group, field = error.errors()[0]["loc"][:2]
    faults = [e for e in error.errors() if e["loc"][:2] == (group, field)]
    problems = sorted({e["msg"].removeprefix("Value error, ").replace("Input should be", "must be") for e in faults})
    name = variable(str(field))
    given = str(faults[-1]["input"])
    # A URL that is refused may hold a password.
    shown = name if field in _SECRETS or "://" in given else f"{name}={faults[-1]['input']!r}"
    return f"{shown}: {'; or '.join(problems)}"


def shown(settings: Settings) -> dict[str, Any]:
    """Every setting that is in force, by its variable, as JSON; of secrets whether they are set, and nothing else."""
    dumped = settings.model_dump(mode="json")
    values = {name: dumped[group][name] for group, name, _ in fields()}
    return {
        variable(name): ("set" if value is not None else None) if name in _SECRETS else value
        for name, value in values.items()
    }


def given(settings: Settings) -> list[str]:
    """The variables that were set, whatever to."""
    groups = {group: getattr(settings, group).model_fields_set for group in _GROUPS}
    return [variable(name) for group, name, _ in fields() if name in groups[group]]


def load_settings() -> Settings:
    """The settings of this process's environment."""
    return Settings.from_env(os.environ)


def cuda_variables() -> dict[str, str]:
    """What CUDA itself reads to choose and number the GPUs, where it is set; no settings of ours."""
    return {name: os.environ[name] for name in ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES") if name in os.environ}


def reference() -> str:
    """docs/configuration.md, made from the fields."""
    lines = [
        "# Configuration",
        "",
        "All settings are environment variables, read once at start. A wrong value or an unknown `RESNET_` name stops",
        "the start with one line that says which. This page is made from `service/settings` by",
        "`python -m service settings`; a test keeps the two equal.",
        "",
        "The address and port of HTTP are not among them: `make serve HOST=... PORT=...`, `--host` and `--port` of",
        "`python -m service serve`, or `BENTOML_HOST` and `BENTOML_PORT`, as containers have them.",
    ]
    shown = ""
    for group, name, field in fields():
        if group != shown:
            shown = group
            title = (_GROUPS[group].__doc__ or group).rstrip(".")
            lines += ["", f"## {title}", "", "| variable | default | meaning |", "| --- | --- | --- |"]
        lines.append(f"| `{variable(name)}` | {_default(name, field.default)} | {field.description} |")
    return "\n".join(lines) + "\n"


def _default(field: str, value: object) -> str:
    """A default as one would type it."""
    if field == "model_store":
        return "`model_store/models`"
    if field == "models":
        return "`*`"
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{','.join(map(str, value)) if isinstance(value, tuple) else value}`"
