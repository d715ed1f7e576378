"""Who may ask what only operators may."""

from __future__ import annotations

import hmac
from typing import Final

from service.config import variable
from service.errors import Forbidden, ServiceError, Unauthorized
from service.http.routing import Call
from service.settings import ServerSettings

ADMIN_ERRORS: Final[tuple[type[ServiceError], ...]] = (Unauthorized, Forbidden)


def check_key(call: Call, settings: ServerSettings) -> None:
    """``Unauthorized`` unless ``call`` has the admin key, ``Forbidden`` where there is none."""
    key = settings.admin_key
    if key is None:
        raise Forbidden(f"closed: {variable('admin_key')} is not set")
    scheme, _, given = call.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(given.strip().encode("latin-1"), key.get_secret_value().encode())
    if scheme.lower() != "bearer" or not same:
        raise Unauthorized("the Authorization header holds not the admin key, as in 'Bearer KEY'")
