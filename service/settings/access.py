"""Who may ask, how much, and over which connections."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from service.access.keys import Limits, parse_keys
from service.settings.values import Folder, Group, absolute, split

_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def checked_admin_key(key: str) -> str:
    """``key``; ``ValueError`` where it is too short, or cannot stand in a header."""
    if not (16 <= len(key) <= 1024 and key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("must be 16 to 1024 printable ASCII characters without blanks")
    return key


def _admin_key(key: SecretStr) -> SecretStr:
    checked_admin_key(key.get_secret_value())
    return key


def _api_keys(keys: SecretStr) -> SecretStr:
    if not parse_keys(keys.get_secret_value(), Limits()):
        raise ValueError("holds no key")
    return keys


def _origin(text: str) -> str:
    """As browsers write it; anything else would never be equal to what they send."""
    if not _ORIGIN.fullmatch(text):
        raise ValueError("must be origins as browsers send them: https://HOST or https://HOST:PORT, in lower case")
    return text


File = Annotated[Folder, AfterValidator(absolute)]
"""An absolute path: a bento's workers run in another folder."""


class AccessSettings(Group):
    """Who may ask, how much, over which connections; docs/access.md."""

    api_keys_file: File | None = Field(
        None,
        description="File of API keys, a line each: name, hash, limits (docs/access.md). Read again when it changes. "
        "With it, or `RESNET_API_KEYS`, requests for inference need a key.",
    )
    api_keys: Annotated[SecretStr, AfterValidator(_api_keys)] | None = Field(
        None, description="Such lines themselves, separated by commas or line breaks."
    )
    key_images_per_s: float | None = Field(
        None,
        gt=0,
        le=1_000_000_000,
        allow_inf_nan=False,
        description="Images a second that the holder of a key may send, where its line does not say; no limit by "
        "default. Of several workers each lets its share in. Beyond it 429.",
    )
    key_burst: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Images that it may send at once after a quiet while; by default those of a second.",
    )
    key_concurrency: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Images that it may have in work, where its line does not say; no limit by default. Of several "
        "workers each has its share. Beyond it 429.",
    )
    admin_key: Annotated[SecretStr, AfterValidator(_admin_key)] | None = Field(
        None,
        description="Key of at least 16 printable ASCII characters that `/debug` and the routes below "
        "`/v2/repository` ask for, as in `Authorization: Bearer KEY`; without one they are closed.",
    )
    admin_key_file: File | None = Field(
        None, description="File that holds that key instead, and is read again when it changes."
    )
    tls_cert: File | None = Field(
        None,
        description="File of the certificate and those between it and its root, PEM. With it all ports speak TLS, "
        "1.2 or later, and nothing else.",
    )
    tls_key: File | None = Field(None, description="File of its private key, PEM, without a password.")
    tls_client_ca: File | None = Field(
        None,
        description="File of certificates, PEM, one of which a client's must come from; by default none is asked for.",
    )
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(split)] = Field(
        (),
        description="Origins whose pages browsers let ask this service, such as `https://app.example.com`; none by "
        "default.",
    )

    @field_validator("admin_key_file")
    @classmethod
    def _one_admin_key(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if path is not None and others.data.get("admin_key") is not None:
            raise ValueError("RESNET_ADMIN_KEY is set, too; there is one admin key")
        return path

    @field_validator("tls_key")
    @classmethod
    def _with_certificate(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if "tls_cert" in others.data and (path is None) != (others.data["tls_cert"] is None):
            raise ValueError("RESNET_TLS_CERT and RESNET_TLS_KEY go together")
        return path

    @field_validator("tls_client_ca")
    @classmethod
    def _with_tls(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if path is not None and others.data.get("tls_cert", path) is None:
            raise ValueError("needs RESNET_TLS_CERT and RESNET_TLS_KEY")
        return path
