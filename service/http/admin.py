"""Who may ask what only operators may."""

from __future__ import annotations

from typing import Final

from service.config import variable
from service.errors import Forbidden, ServiceError, Unauthorized
from service.http.keys import bearer
from service.http.routing import Call
from service.runtime import Runtime

ADMIN_ERRORS: Final[tuple[type[ServiceError], ...]] = (Unauthorized, Forbidden)


def check_key(call: Call, runtime: Runtime) -> None:
    """``Unauthorized`` unless ``call`` has the admin key, ``Forbidden`` where there is none."""
    if not runtime.access.has_admin:
        raise Forbidden(f"closed: {variable('admin_key')} is not set")
    given = bearer(call.headers.get("authorization", ""))
    if given is None or not runtime.access.is_admin(given):
        raise Unauthorized("the Authorization header holds not the admin key, as in 'Bearer KEY'")
