"""A download goes on where it broke off, wherever what is there fits what comes."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from export.downloads.download import Downloader, Remote
from export.downloads.http_client import ATTEMPTS, DownloadError, Refused, Unreachable
from tests.export.http_server import WeightsServer, answer, break_off, ignore_range, serving

from .conftest import CONTENT, OTHER, PATH, Setup

pytestmark = pytest.mark.usefixtures("no_proxies")


@pytest.mark.parametrize("cut", [1, 5000, len(CONTENT) - 1])
def test_it_goes_on_where_the_connection_broke_off(server: WeightsServer, setup: Setup, cut: int) -> None:
    server.script(PATH, break_off(cut))
    assert setup.fetch(server.url + PATH) == CONTENT
    headers = server.requests[1].headers
    assert headers["range"] == f"bytes={cut}-"
    assert headers["if-range"] == server.resources[PATH].etag
    assert setup.slept == [1]
    assert "trying again in 1 s" in setup.said()
    assert setup.left() == {"net.pth"}


def test_the_next_run_goes_on_where_this_one_was_interrupted(server: WeightsServer, setup: Setup) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    server.script(PATH, break_off(3000))
    first = Downloader(setup.downloader.client, setup.downloader.console, interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.fetch(Remote(server.url + PATH, hashlib.sha256(CONTENT).hexdigest()), setup.target)
    assert setup.left() == {"net.pth.part", "net.pth.part.etag"}
    assert setup.fetch(server.url + PATH) == CONTENT
    assert server.requests[1].headers["range"] == "bytes=3000-"
    assert setup.left() == {"net.pth"}


def test_progress_earns_more_attempts(server: WeightsServer, setup: Setup) -> None:
    server.script(PATH, *[break_off(500)] * (3 * ATTEMPTS))
    assert setup.fetch(server.url + PATH) == CONTENT
    assert setup.slept == [1] * 3 * ATTEMPTS


@pytest.mark.parametrize("etag", [None, 'W/"weak"', "bare", '"' + "x" * 300 + '"'])
def test_without_a_strong_etag_it_begins_again(server: WeightsServer, setup: Setup, etag: str | None) -> None:
    server.publish(PATH, CONTENT, etag)
    server.script(PATH, break_off(5000))
    assert setup.fetch(server.url + PATH) == CONTENT
    assert "range" not in server.requests[1].headers


def test_a_server_that_ignores_ranges_sends_it_all(server: WeightsServer, setup: Setup) -> None:
    server.script(PATH, break_off(5000), ignore_range)
    assert setup.fetch(server.url + PATH) == CONTENT


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(server: WeightsServer, setup: Setup) -> None:
    server.publish(PATH, OTHER)
    server.script(PATH, break_off(5000), lambda *_: change(*_))

    def change(handler: Any, _: Any) -> None:
        server.publish(PATH, CONTENT)
        handler.do_GET()

    assert setup.fetch(server.url + PATH) == CONTENT
    assert server.requests[1].headers["range"] == "bytes=5000-"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Range": f"bytes 4999-{len(CONTENT) - 1}/{len(CONTENT)}"},
        {"Content_Range": f"bytes 5001-{len(CONTENT) - 1}/{len(CONTENT)}"},
        {"Content_Range": "bytes 5000-6000/4000"},
        {"Content_Range": "bytes 5000-"},
        {"Content_Range": "elephants 5000-6000/7000"},
        {"Content_Range": f"bytes {'9' * 5000}-{'9' * 5000}/*"},
        {"Content_Range": f"bytes 5000-{len(CONTENT) - 1}/{len(CONTENT)}", "ETag": '"another"'},
        {},
    ],
)
def test_a_part_that_does_not_fit_is_not_used(server: WeightsServer, setup: Setup, headers: dict[str, str]) -> None:
    server.script(PATH, break_off(5000), answer(206, OTHER[5000:], **headers))
    assert setup.fetch(server.url + PATH) == CONTENT
    assert "range" not in server.requests[2].headers


def test_a_part_that_nobody_asked_for_is_not_used(server: WeightsServer, setup: Setup) -> None:
    part = answer(206, CONTENT[10:], Content_Range=f"bytes 10-{len(CONTENT) - 1}/{len(CONTENT)}")
    server.script(PATH, *[part] * ATTEMPTS)
    with pytest.raises(Unreachable, match="instead of all from byte 0"):
        setup.fetch(server.url + PATH)
    assert setup.left() == set()


def test_a_part_may_itself_come_in_parts_of_unknown_total(server: WeightsServer, setup: Setup) -> None:
    etag = server.resources[PATH].etag or ""
    middle = answer(206, CONTENT[5000:7000], Content_Range="bytes 5000-6999/*", ETag=etag)
    server.script(PATH, break_off(5000), middle)
    assert setup.fetch(server.url + PATH, size=len(CONTENT)) == CONTENT
    assert server.requests[2].headers["range"] == "bytes=7000-"


def test_nothing_is_missing_from_a_whole_part(server: WeightsServer, setup: Setup) -> None:
    """As when the power went between the last byte and the new name: the server says 416."""
    setup.target.parent.mkdir()
    setup.target.with_name("net.pth.part").write_bytes(CONTENT)
    setup.target.with_name("net.pth.part.etag").write_text(server.resources[PATH].etag or "")
    assert setup.fetch(server.url + PATH) == CONTENT
    assert server.requests[0].headers["range"] == f"bytes={len(CONTENT)}-"
    assert len(server.requests) == 1


@pytest.mark.parametrize("said", [f"bytes */{len(CONTENT)}", "bytes */12", "nonsense", ""])
def test_a_part_behind_the_end_is_thrown_away(server: WeightsServer, setup: Setup, said: str) -> None:
    server.script(PATH, break_off(5000), answer(416, Content_Range=said))
    assert setup.fetch(server.url + PATH) == CONTENT
    assert "range" not in server.requests[2].headers


@pytest.mark.parametrize("etag", [b"", b'W/"a"', b'"a"\r\nX-Evil: 1', b'"\xff"'])
def test_an_etag_file_of_somebody_else_starts_nothing(server: WeightsServer, setup: Setup, etag: bytes) -> None:
    setup.target.parent.mkdir()
    setup.target.with_name("net.pth.part").write_bytes(OTHER[:100])
    setup.target.with_name("net.pth.part.etag").write_bytes(etag)
    assert setup.fetch(server.url + PATH) == CONTENT
    assert "range" not in server.requests[0].headers


def test_wrong_bytes_after_a_resume_are_found(server: WeightsServer, setup: Setup) -> None:
    tail = answer(206, OTHER[5000:], Content_Range=f"bytes 5000-{len(CONTENT) - 1}/{len(CONTENT)}")
    server.script(PATH, break_off(5000), tail)
    with pytest.raises(DownloadError, match="not the published file"):
        setup.fetch(server.url + PATH)
    assert setup.left() == set()


def test_a_refusal_leaves_what_has_come(server: WeightsServer, setup: Setup) -> None:
    server.script(PATH, break_off(5000), answer(403))
    with pytest.raises(Refused):
        setup.fetch(server.url + PATH)
    assert setup.fetch(server.url + PATH) == CONTENT
    assert server.requests[2].headers["range"] == "bytes=5000-"


def test_redirects_are_followed_and_keep_the_range(server: WeightsServer, setup: Setup) -> None:
    url = server.redirect("/a", "/b")
    server.redirect("/b", server.url + PATH)
    server.script(PATH, break_off(5000))
    assert setup.fetch(url) == CONTENT
    assert server.paths() == ["/a", "/b", PATH] * 2
    assert server.requests[-1].headers["range"] == "bytes=5000-"


@given(
    content=st.binary(max_size=2000),
    cuts=st.lists(st.integers(0, 2000), max_size=4),
    etag=st.sampled_from(['"strong"', 'W/"weak"', None]),
    known=st.booleans(),
)
def test_any_interruption_gives_the_same_file(
    http_client: httpx.Client,
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    cuts: list[int],
    etag: str | None,
    known: bool,
) -> None:
    with serving() as server:
        url = server.publish(PATH, content, etag)
        server.script(PATH, *map(break_off, cuts))
        remote = Remote(url, hashlib.sha256(content).hexdigest(), size=len(content) if known else None)
        target = tmp_path_factory.mktemp("cache") / "net.pth"
        Downloader(http_client, Console(file=io.StringIO()), lambda _: None).fetch(remote, target)
        assert target.read_bytes() == content
