from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from rich.console import Console

from export.downloads.http_client import (
    ATTEMPTS,
    DownloadError,
    Refused,
    Unreachable,
    body,
    check_status,
    get,
    open_client,
    persist,
)
from tests.export.http_server import WeightsServer, answer, break_off, endless, hang_up, held, serving

PATH = "/answer"
CONTENT = b"the answer, " * 100


pytestmark = pytest.mark.usefixtures("no_proxies")


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    with serving() as server:
        server.publish(PATH, CONTENT)
        yield server


@dataclass
class Reader:
    """Reads answers as the downloads do; notes what it says and how long it would have slept."""

    client: httpx.Client
    slept: list[float] = field(default_factory=list)
    said: io.StringIO = field(default_factory=io.StringIO)

    def __call__(self, url: str, limit: int = 10_000) -> bytes:
        def attempt() -> bytes:
            with get(self.client, url, {"X-Kept": "yes"}) as response:
                check_status(response, url)
                return b"".join(body(response, limit, url))

        return persist(attempt, url, Console(file=self.said, width=200), self.slept.append)


@pytest.fixture
def read(http_client: httpx.Client) -> Reader:
    return Reader(http_client)


def test_an_answer_comes_uncompressed_and_whole(server: WeightsServer, read: Reader) -> None:
    assert read(server.url + PATH) == CONTENT
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert read.slept == []


def test_a_compressed_answer_is_refused(server: WeightsServer, read: Reader) -> None:
    server.script(PATH, answer(200, b"bomb", Content_Encoding="gzip"))
    with pytest.raises(DownloadError, match="compressed with 'gzip'"):
        read(server.url + PATH)


def test_an_answer_has_a_bound(server: WeightsServer, read: Reader) -> None:
    assert read(server.url + PATH, limit=len(CONTENT)) == CONTENT
    server.script(PATH, endless)
    with pytest.raises(DownloadError, match="goes on after the 100000 bytes"):
        read(server.url + PATH, limit=100_000)


# Servers in trouble.


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_trouble_that_may_pass_is_waited_for(server: WeightsServer, read: Reader, status: int) -> None:
    server.script(PATH, *[answer(status)] * (ATTEMPTS - 1))
    assert read(server.url + PATH) == CONTENT
    assert read.slept == [1, 2, 4, 8]
    assert f"the server answers {status} " in read.said.getvalue()


@pytest.mark.parametrize(
    ("said", "waited"),
    [
        ("7", 7),
        ("0", 1),
        ("86400", 60),
        ("9" * 5000, 1),
        ("-3", 1),
        ("²", 1),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 1),
    ],
)
def test_the_server_says_how_long_to_wait(server: WeightsServer, read: Reader, said: str, waited: int) -> None:
    server.script(PATH, answer(503, Retry_After=said))
    read(server.url + PATH)
    assert read.slept == [waited]


def test_trouble_that_stays_is_an_error(server: WeightsServer, read: Reader) -> None:
    server.script(PATH, *[answer(503)] * ATTEMPTS)
    with pytest.raises(Unreachable, match=f"{PATH}: the server answers 503 .*; gave up after {ATTEMPTS} attempts"):
        read(server.url + PATH)


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 410, 501])
def test_a_refusal_is_final(server: WeightsServer, read: Reader, status: int) -> None:
    server.script(PATH, answer(status, b"" if status == 304 else b"<html>"))
    with pytest.raises(Refused, match=f"{PATH}: the server answers {status} ") as error:
        read(server.url + PATH)
    assert error.value.status == status
    assert read.slept == []


def test_a_server_that_hangs_up_is_tried_again(server: WeightsServer, read: Reader) -> None:
    server.script(PATH, hang_up, break_off(5))
    assert read(server.url + PATH) == CONTENT
    assert read.slept == [1, 2]


def test_nobody_there(read: Reader) -> None:
    with serving() as server:
        url = server.url
    with pytest.raises(Unreachable, match="Connection refused; gave up after 5 attempts"):
        read(url + PATH)
    assert read.slept == [1, 2, 4, 8]


def test_a_server_that_stalls_is_given_up(server: WeightsServer) -> None:
    go_on = threading.Event()
    server.script(PATH, *[held(threading.Event(), go_on)] * ATTEMPTS)
    with httpx.Client(timeout=0.02) as client, pytest.raises(Unreachable, match="timed out"):
        Reader(client)(server.url + PATH)
    go_on.set()


# Where requests go.


def test_redirects_are_followed_with_the_headers(server: WeightsServer, read: Reader) -> None:
    with serving() as other:
        other.redirect("/b", server.url + PATH)
        assert read(server.redirect("/a", other.url + "/b")) == CONTENT
        assert [seen.headers["x-kept"] for seen in server.requests + other.requests] == ["yes"] * 3


def test_redirects_end(server: WeightsServer, read: Reader) -> None:
    with pytest.raises(DownloadError, match="more than 10 redirects"):
        read(server.redirect("/round", "/round"))
    assert len(server.requests) == 11


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_redirects_lead_to_http_only(server: WeightsServer, read: Reader, location: str) -> None:
    with pytest.raises(DownloadError, match="only http"):
        read(server.redirect("/away", location))


def test_https_is_never_left() -> None:
    asked: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"Location": "http://weights.example/net.pth"})

    with (
        httpx.Client(transport=httpx.MockTransport(respond)) as client,
        pytest.raises(DownloadError, match=r"from https to http://weights\.example/net\.pth; not followed"),
    ):
        Reader(client)("https://weights.example/net.pth")
    assert asked == ["https://weights.example/net.pth"]


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/y", "net.pth", "http://", "", "http://[", "http://a:99999/", "http://a\nb/"]
)
def test_only_the_web_is_asked(read: Reader, url: str) -> None:
    with pytest.raises(DownloadError):
        read(url)


def test_passwords_and_signatures_are_not_shown(server: WeightsServer, read: Reader) -> None:
    with pytest.raises(Refused) as error:
        read(server.url.replace("http://", "http://me:secret@") + "/gone?X-Signature=secret")
    assert server.requests[0].headers["authorization"].startswith("Basic ")
    assert server.requests[0].path == "/gone?X-Signature=secret"
    assert "secret" not in str(error.value)
    assert "/gone" in str(error.value)


# Tokens and proxies.


def test_a_token_is_for_its_server_alone(server: WeightsServer) -> None:
    with serving() as other, open_client("hf_secret", server.url) as client:
        other.redirect("/elsewhere", server.url + PATH)
        assert Reader(client)(server.redirect("/private", other.url + "/elsewhere")) == CONTENT
        assert [seen.headers.get("authorization") for seen in server.requests] == ["Bearer hf_secret"] * 2
        assert [seen.headers.get("authorization") for seen in other.requests] == [None]


def test_a_token_needs_tls_and_looks_like_one() -> None:
    with pytest.raises(DownloadError, match="over https only"):
        open_client("hf_secret", "http://hub.example")
    for token in ("with space", "line\nbreak", "ünicode"):
        with pytest.raises(DownloadError, match="the token") as error:
            open_client(token, "https://hub.example")
        assert token not in str(error.value)
    open_client("hf_secret", "https://hub.example").close()


def test_the_environments_proxy_is_used(server: WeightsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    with open_client() as client:
        assert Reader(client)(f"http://weights.example{PATH}") == CONTENT
    assert server.requests[0].path == f"http://weights.example{PATH}"


def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "carrier-pigeon://coop")
    with pytest.raises(DownloadError, match="proxy"):
        open_client()
