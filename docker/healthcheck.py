"""Whether the service in this container is ready: exit status 0 where it is. The images' HEALTHCHECK.

Over TLS where there is a certificate; it is not verified, as it is for another name than this. A service that wants its
clients' certificates gets its own; where it does not take that, it listens, and more cannot be known from here.
"""

import os
import ssl
from http.client import HTTPConnection, HTTPSConnection

TIMEOUT_S = 4


def ready() -> bool:
    port = int(os.environ["BENTOML_PORT"])
    certificate, key = os.environ.get("RESNET_TLS_CERT"), os.environ.get("RESNET_TLS_KEY")
    if not certificate:
        return asked(HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S))
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    wants_clients = bool(os.environ.get("RESNET_TLS_CLIENT_CA"))
    if wants_clients:
        context.load_cert_chain(certificate, key)
    try:
        return asked(HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context))
    except (ssl.SSLError, ConnectionResetError):
        return wants_clients


def asked(connection: HTTPConnection) -> bool:
    connection.request("GET", "/readyz")
    return connection.getresponse().status == 200


if __name__ == "__main__":
    try:
        status = 0 if ready() else 1
    except OSError as error:
        raise SystemExit(f"not ready: {error}") from error
    raise SystemExit(status)
