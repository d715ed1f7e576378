"""The key that a request brings, and whose it is."""

from __future__ import annotations

from collections.abc import Callable

from service.access.control import Keyring
from service.access.holder import Holder
from service.errors import Unauthorized


def bearer(authorization: str) -> str | None:
    """The key in ``Bearer KEY``; None where it is of another kind."""
    scheme, _, given = authorization.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def holder_of(keyring: Keyring, header: Callable[[str], str | None]) -> Holder:
    """Who holds the key in ``Authorization``, or where that has none in ``X-API-Key``; else ``Unauthorized``.

    ``header`` gives a header, or gRPC's metadata, by its name in lower case.
    """
    given = bearer(header("authorization") or "")
    if given is None:
        given = header("x-api-key")
    if not given:
        raise Unauthorized("a key is needed: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")
    holder = keyring.holder(given)
    if holder is None:
        raise Unauthorized("the key is not known, or not any more")
    return holder
