"""HTTP as a hostile client sends it, to the real server: each shape's answer, and that nothing more was understood."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.end_to_end.conftest import Server, picture, running
from tests.security.http_shapes import ONE_REQUEST, SMUGGLING, Reply, replies

IMAGE = picture(1, (32, 32), "PNG")
URL = "/v1/classify"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # Long enough for a busy machine; every connection here ends by itself, or is closed by its test.
    with running(RESNET_PRECISION="fp32", RESNET_HEADER_TIMEOUT_S="60", RESNET_BODY_IDLE_S="1") as started:
        yield started


def port(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def exchange(server: Server, *pieces: bytes, then_close: bool = False) -> list[Reply]:
    """The answers on a connection until the service closes it."""
    with socket.create_connection(("127.0.0.1", port(server)), timeout=60) as connection:
        data = b""
        with contextlib.suppress(ConnectionError):  # closed with something of ours unread
            for piece in pieces:
                connection.sendall(piece)
            if then_close:
                connection.sendall(b"\0\r\n")  # no HTTP: the answers before it, its refusal, and the end
        with contextlib.suppress(ConnectionError):
            while more := connection.recv(2**16):
                data += more
    found, rest = replies(data)
    assert not rest
    return found


def requests(server: Server) -> float:
    """That were understood, by the metrics; the one that asks is counted after its page is made."""
    page = httpx.get(f"{server.url}/metrics", timeout=60).text
    counted = (line.rpartition(" ") for line in page.splitlines() if line.startswith("resnet_requests_total{"))
    return sum(float(value) for labels, _, value in counted if 'route="/metrics"' not in labels)


@pytest.mark.parametrize("shape", SMUGGLING)
def test_what_can_be_read_in_two_ways_gets_one_refusal(server: Server, shape: str) -> None:
    before = requests(server)
    [refusal] = exchange(server, SMUGGLING[shape])
    assert refusal.status == 400
    assert refusal.headers[b"connection"] == b"close"
    assert b'"code":"bad_request"' in refusal.body
    # Its head may have been one, where only the body is wrong; what is hidden in it was not.
    assert requests(server) - before <= (1 if "chunk" in shape else 0)


@pytest.mark.parametrize("shape", ONE_REQUEST)
def test_what_is_in_a_request_is_no_other(server: Server, shape: str) -> None:
    status, data = ONE_REQUEST[shape]
    before = requests(server)
    found = exchange(server, data, then_close=b"Content-Length: 60" not in data) if "before" not in shape else None
    if found is None:
        found = exchange(server, data + b"x" * 60, then_close=True)
    assert found[0].status == status
    assert all(reply.request_id != "hidden" for reply in found)
    assert [reply.status for reply in found[1:]] in ([], [400])
    assert requests(server) - before == 1


@pytest.mark.parametrize(
    "path",
    [
        "/web/../app.py",
        "/web/%2e%2e/app.py",
        "/web/..%2fapp.py",
        "/web/%2e%2e%2fapp.py",
        "/web/%252e%252e/app.py",
        "/web/..\\app.py",
        "/web/..%5capp.py",
        "/web/api.js%00",
        "/web/%00",
        "/web//api.js",
        "/web/./api.js",
        "/web/api.js/",
        "/web/api.js/..",
        "/web/C:/x",
        "/web/%c0%ae%c0%ae/app.py",
        "//etc/passwd",
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/../app.py",
        "/v1/jobs/..%2f..%2fetc",
        "/v1/jobs/%2e%2e/result",
        "/v1/models/..%2f..%2fmanifest.json",
        "/v2/models/%2e%2e/ready",
        "/" + "x/" * 3000,
    ],
)
def test_no_path_leads_out(server: Server, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    [reply] = exchange(server, head)
    assert reply.status == 404
    assert b"root:" not in reply.body
    assert b"import" not in reply.body


@pytest.mark.parametrize("path", ["/a b", "/\0", "/\x7f", "/é", "/a\tb", "/" + "x" * 9000, "*", "http://", "a"])
def test_targets_that_are_none(server: Server, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode("latin-1")
    [reply] = exchange(server, head)
    assert reply.status in (400, 404, 414)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/v1/models", 200),
        ("HEAD", "/nothing", 404),
        ("HEAD", URL, 405),
        ("OPTIONS", URL, 405),
        ("OPTIONS", "/nothing", 404),
        ("TRACE", URL, 405),
        ("PROPFIND", URL, 405),
        ("DELETE", "/v1/models", 405),
        ("M-SEARCH", "/", 405),
    ],
)
def test_methods(server: Server, method: str, path: str, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port(server), timeout=60)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == status
    assert (method != "HEAD") or body == b""
    assert status != 405 or response.headers["allow"]


def check_error(reply: Reply, status: int, code: str) -> None:
    assert reply.status == status, reply
    assert f'"code":"{code}"'.encode() in reply.body


def post(body: bytes, *lines: str) -> bytes:
    return "\r\n".join([f"POST {URL} HTTP/1.1", "Host: a", *lines, "", ""]).encode() + body


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "identity, gzip", "x"])
def test_an_encoded_body_is_not_taken(server: Server, encoding: str) -> None:
    body = gzip.compress(IMAGE)
    lines = (f"Content-Length: {len(body)}", f"Content-Encoding: {encoding}", "Connection: close")
    check_error(*exchange(server, post(body, *lines)), 415, "unsupported_encoding")


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_a_body_that_is_not_encoded(server: Server, encoding: str) -> None:
    lines = (f"Content-Length: {len(IMAGE)}", f"Content-Encoding: {encoding}", "Connection: close")
    assert [reply.status for reply in exchange(server, post(IMAGE, *lines))] == [200]


def test_lengths_that_lie(server: Server) -> None:
    short = exchange(server, post(IMAGE, f"Content-Length: {len(IMAGE) // 2}"))
    check_error(short[0], 422, "bad_image")
    check_error(short[1], 400, "bad_request")  # its other half is no request
    [long] = exchange(server, post(IMAGE, f"Content-Length: {len(IMAGE) + 10}", "Connection: close"))
    check_error(long, 408, "slow_client")
    [huge] = exchange(server, post(IMAGE, "Content-Length: 10485761", "Connection: close"))
    check_error(huge, 413, "body_too_large")
    [exact] = exchange(server, post(IMAGE, f"Content-Length: {len(IMAGE)} ", "Connection: close"))
    assert exact.status == 200


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_chunks(server: Server, size: int) -> None:
    parts = [IMAGE[i : i + size] for i in range(0, len(IMAGE), size)]
    body = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\nX: y\r\n\r\n"
    [reply] = exchange(server, post(body, "Transfer-Encoding: chunked", "Connection: close"))
    assert reply.status == 200
    [empty] = exchange(server, post(b"0\r\n\r\n", "Transfer-Encoding: chunked", "Connection: close"))
    check_error(empty, 400, "bad_request")


def test_a_body_of_chunks_that_is_too_large(server: Server) -> None:
    chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    head = post(b"", "Transfer-Encoding: chunked")
    reply, *_ = exchange(server, head, *[chunk] * 11, b"0\r\n\r\n", then_close=True)
    check_error(reply, 413, "body_too_large")


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "image/svg+xml", "application/vnd.bentoml+pickle"])
def test_no_type_makes_an_image_of_what_is_none(server: Server, kind: str) -> None:
    body = b"<svg/>"
    lines = (f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close")
    check_error(*exchange(server, post(body, *lines)), 415, "not_an_image")


def test_the_bytes_held_are_bounded(server: Server) -> None:
    """And the service is there after it: the last test of the module shows that a good image is answered."""
    with running(RESNET_MAX_BODY_BYTES="100000", RESNET_MAX_HELD_BYTES="150000", RESNET_BODY_IDLE_S="30") as small:
        with socket.create_connection(("127.0.0.1", port(small)), timeout=60) as first:
            first.sendall(post(b"x" * 99_999, "Content-Length: 100000"))
            lines = ("Content-Length: 90000", "Connection: close")
            refused: list[Reply] = []
            while not refused or refused[0].status != 429:  # until the first one's bytes are there
                refused = exchange(small, post(b"x" * 90_000, *lines))
            check_error(refused[0], 429, "overloaded")
            assert refused[0].headers[b"retry-after"] == b"1"
            first.sendall(b"x")
            assert b" 415 " in first.recv(1000)
        assert httpx.post(f"{small.url}{URL}", content=IMAGE, timeout=60).status_code == 200
    assert httpx.post(f"{server.url}{URL}", content=IMAGE, timeout=60).status_code == 200
