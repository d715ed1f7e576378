"""TLS, where there is a certificate: for BentoML's port, for gRPC's and for that of the metrics.

Python's and gRPC's own least version is TLS 1.2. Ciphers are named for HTTP, as BentoML's and uvicorn's default is
"TLSv1", which leaves TLS 1.2 with none but the old ones; TLS 1.3 has its own, and gRPC names good ones itself.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

from service.config import ConfigError, variable
from service.settings import AccessSettings

if TYPE_CHECKING:
    import grpc

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


def check_tls(settings: AccessSettings) -> None:
    """``ConfigError`` where the certificate, its key or the clients' CA cannot be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    named = f"{variable('tls_cert')}={str(settings.tls_cert)!r} and {variable('tls_key')}={str(settings.tls_key)!r}"
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_password)
        named = f"{variable('tls_client_ca')}={str(settings.tls_client_ca)!r}"
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError(f"{named}: {reason}") from None


def _no_password() -> str:
    raise ValueError("the private key has a password; decrypt it")


def uvicorn_options(settings: AccessSettings) -> dict[str, Any]:
    """For a server of our own."""
    if settings.tls_cert is None:
        return {}
    return {f"ssl_{name}": value for name, value in _options(settings).items()}


def bentoml_options(settings: AccessSettings) -> dict[str, Any]:
    """For ``@bentoml.service(ssl=...)``, which holds however the service is started."""
    return {"enabled": False} if settings.tls_cert is None else {"enabled": True, **_options(settings)}


def _options(settings: AccessSettings) -> dict[str, Any]:
    found: dict[str, Any] = {
        "certfile": str(settings.tls_cert),
        "keyfile": str(settings.tls_key),
        "ciphers": CIPHERS,
    }
    if settings.tls_client_ca is not None:
        found |= {"ca_certs": str(settings.tls_client_ca), "cert_reqs": int(ssl.CERT_REQUIRED)}
    return found


def grpc_credentials(settings: AccessSettings) -> grpc.ServerCredentials | None:
    """For gRPC's port; None without TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    import grpc  # a service without it does not load gRPC

    pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
    ca = None if settings.tls_client_ca is None else settings.tls_client_ca.read_bytes()
    return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)
