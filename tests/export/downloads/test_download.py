from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from export.downloads.download import Downloader, Remote
from export.downloads.http_client import ATTEMPTS, DownloadError, Refused, Unreachable
from tests.export.http_server import (
    WeightsServer,
    answer,
    break_off,
    endless,
    held,
    ignore_range,
    serving,
    without_length,
)

CONTENT = bytes(range(256)) * 40
OTHER = bytes(reversed(CONTENT))
PATH = "/models/net.pth"


pytestmark = pytest.mark.usefixtures("no_proxies")


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    with serving() as server:
        server.publish(PATH, CONTENT)
        yield server


@dataclass
class Setup:
    """A downloader that notes how long it would have slept, and the place that it fills."""

    target: Path
    downloader: Downloader
    slept: list[float] = field(default_factory=list)

    def fetch(self, url: str, content: bytes = CONTENT, **known: Any) -> bytes:
        remote = Remote(url, **{"sha256": hashlib.sha256(content).hexdigest(), **known})
        assert self.downloader.fetch(remote, self.target) == self.target
        return self.target.read_bytes()

    def left(self) -> set[str]:
        """What lies in the folder beside the lock."""
        return {p.name for p in self.target.parent.iterdir() if p.suffix != ".lock"}

    def said(self) -> str:
        assert isinstance(self.downloader.console.file, io.StringIO)
        return self.downloader.console.file.getvalue()


@pytest.fixture
def setup(tmp_path: Path, console: Console, http_client: httpx.Client) -> Setup:
    slept: list[float] = []
    return Setup(tmp_path / "cache" / "net.pth", Downloader(http_client, console, slept.append), slept)


def test_a_file_is_fetched_with_progress(server: WeightsServer, setup: Setup) -> None:
    assert setup.fetch(server.url + PATH, size=len(CONTENT)) == CONTENT
    assert setup.left() == {"net.pth"}
    assert "net.pth" in setup.said()
    assert "10.2/10.2 kB" in setup.said()
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_what_is_there_is_not_fetched_again(server: WeightsServer, setup: Setup) -> None:
    setup.fetch(server.url + PATH)
    for file in setup.target.parent.glob("*.lock"):
        file.unlink()
    assert setup.fetch(server.url + PATH) == CONTENT
    assert len(server.requests) == 1
    assert os.listdir(setup.target.parent) == ["net.pth"], "a whole file needs no lock, so no writing"  # noqa: PTH208


@pytest.mark.parametrize("damaged", [OTHER, CONTENT[:-1], CONTENT + b"x", b""])
def test_what_is_damaged_is_fetched_again(server: WeightsServer, setup: Setup, damaged: bytes) -> None:
    setup.fetch(server.url + PATH)
    setup.target.write_bytes(damaged)
    assert setup.fetch(server.url + PATH) == CONTENT
    assert "is damaged" in setup.said()
    assert len(server.requests) == 2


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


@pytest.mark.parametrize("digits", [8, 20, 64])
def test_wrong_bytes_are_removed_and_both_hashes_named(server: WeightsServer, setup: Setup, digits: int) -> None:
    server.publish(PATH, OTHER)
    expected, found = (hashlib.sha256(content).hexdigest() for content in (CONTENT, OTHER))
    with pytest.raises(DownloadError, match=f"{found}, not {expected[:digits]}") as error:
        setup.fetch(server.url + PATH, sha256=expected[:digits], size=len(CONTENT))
    assert PATH in str(error.value)
    assert setup.left() == set()
    assert setup.slept == []


def test_wrong_bytes_after_a_resume_are_found(server: WeightsServer, setup: Setup) -> None:
    tail = answer(206, OTHER[5000:], Content_Range=f"bytes 5000-{len(CONTENT) - 1}/{len(CONTENT)}")
    server.script(PATH, break_off(5000), tail)
    with pytest.raises(DownloadError, match="not the published file"):
        setup.fetch(server.url + PATH)
    assert setup.left() == set()


def test_git_names_content_by_another_hash(server: WeightsServer, setup: Setup) -> None:
    git = hashlib.sha1(f"blob {len(CONTENT)}\0".encode() + CONTENT).hexdigest()  # noqa: S324
    assert setup.fetch(server.url + PATH, sha256=None, git_sha1=git) == CONTENT
    setup.target.unlink()
    with pytest.raises(DownloadError, match=f"git SHA-1 is {git}, not {git[::-1]}"):
        setup.fetch(server.url + PATH, sha256=None, git_sha1=git[::-1])


def test_git_agrees_on_its_hash(server: WeightsServer, setup: Setup, tmp_path: Path) -> None:
    """`git hash-object` of "what is up, doc?", from the book cited."""
    url = server.publish("/doc", b"what is up, doc?")
    fetched = setup.fetch(url, sha256=None, git_sha1="bd9dbf5aae1a3862dd1526723246b20206e5fc37")
    assert fetched == b"what is up, doc?"


# Lengths that are not true.


@pytest.mark.parametrize("by", [-1, -5000, 1, 10**15])
def test_another_length_than_published_is_refused_unread(server: WeightsServer, setup: Setup, by: int) -> None:
    server.script(PATH, answer(200, b"", Content_Length=str(len(CONTENT) + by), Connection="close"))
    with pytest.raises(DownloadError, match=f"the server has {len(CONTENT) + by} bytes, {len(CONTENT)} were published"):
        setup.fetch(server.url + PATH, size=len(CONTENT))
    assert setup.left() == set()
    assert setup.slept == []


def test_a_resumed_file_of_another_length_is_not_kept(server: WeightsServer, setup: Setup) -> None:
    etag = server.resources[PATH].etag or ""
    server.script(PATH, break_off(5000), answer(206, b"x", Content_Range="bytes 5000-5000/5001", ETag=etag))
    with pytest.raises(DownloadError, match="the server has 5001 bytes"):
        setup.fetch(server.url + PATH, size=len(CONTENT))
    assert setup.left() == set()


def test_a_length_that_is_too_small_gives_a_wrong_hash(server: WeightsServer, setup: Setup) -> None:
    server.script(PATH, answer(200, CONTENT, Content_Length="5000", Connection="close"))
    with pytest.raises(DownloadError, match=hashlib.sha256(CONTENT[:5000]).hexdigest()):
        setup.fetch(server.url + PATH)
    assert setup.left() == set()


def test_a_length_that_is_too_great_ends_after_some_attempts(server: WeightsServer, setup: Setup) -> None:
    lie = answer(200, CONTENT, Content_Length=str(len(CONTENT) + 1), Connection="close")
    server.script(PATH, *[lie] * 20)
    with pytest.raises(Unreachable, match=f"gave up after {ATTEMPTS} attempts"):
        setup.fetch(server.url + PATH)
    assert not setup.target.exists()


def test_a_short_answer_without_a_length_is_asked_again(server: WeightsServer, setup: Setup) -> None:
    server.script(PATH, without_length(cut=5000))
    assert setup.fetch(server.url + PATH, size=len(CONTENT)) == CONTENT
    assert "the answer ends after 5000 of 10240 bytes" in setup.said()


def test_a_long_answer_without_a_length_is_cut_off(server: WeightsServer, setup: Setup) -> None:
    server.script(PATH, without_length(extra=b"more"))
    with pytest.raises(DownloadError, match="goes on after the 10240 bytes"):
        setup.fetch(server.url + PATH, size=len(CONTENT))
    assert setup.left() == set()


def test_no_answer_fills_the_disk(server: WeightsServer, setup: Setup) -> None:
    server.script(PATH, endless, answer(200, b"", Content_Length="200001", Connection="close"))
    with pytest.raises(DownloadError, match="goes on after the 200000 bytes"):
        setup.fetch(server.url + PATH, max_bytes=200_000)
    with pytest.raises(DownloadError, match="200001 bytes; 200000 is the most"):
        setup.fetch(server.url + PATH, max_bytes=200_000)
    with pytest.raises(DownloadError, match="200000 is the most"):
        setup.fetch(server.url + PATH, size=200_001, max_bytes=200_000)
    assert len(server.requests) == 2, "what is published as too long is not even asked for"
    assert setup.left() == set()


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_file_is_an_error(server: WeightsServer, setup: Setup, status: int) -> None:
    server.script(PATH, answer(status))
    with pytest.raises(DownloadError, match=str(status)):
        setup.fetch(server.url + PATH)


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


@pytest.mark.parametrize("sha256", [None, "", "0" * 7, "0" * 65, "G" * 64, "A" * 64])
def test_nothing_is_fetched_that_cannot_be_checked(sha256: str | None) -> None:
    with pytest.raises(DownloadError, match="no hash"):
        Remote("http://x/y", sha256)


def test_read_gives_the_body_after_trouble(server: WeightsServer, setup: Setup) -> None:
    server.script(PATH, answer(503), break_off(5))
    assert setup.downloader.read(server.url + PATH, len(CONTENT)) == CONTENT


# Several at once.

FETCH = """
import sys
from pathlib import Path
from rich.console import Console
from export.downloads.download import Downloader, Remote
from export.downloads.http_client import open_client
url, sha256, target = sys.argv[1:]
with open_client() as client:
    Downloader(client, Console(stderr=True, width=200)).fetch(Remote(url, sha256), Path(target))
"""


def test_two_processes_want_the_same_file(server: WeightsServer, tmp_path: Path) -> None:
    """The second waits for the first and then finds the file whole."""
    reached, go_on = threading.Event(), threading.Event()
    server.script(PATH, held(reached, go_on))
    target = tmp_path / "net.pth"
    words = [sys.executable, "-c", FETCH, server.url + PATH, hashlib.sha256(CONTENT).hexdigest(), str(target)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as first:
        assert reached.wait(60)
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "waiting for another process that downloads net.pth\n"
            go_on.set()
            said = second.communicate()[1]
        first.communicate()
    assert (first.returncode, second.returncode) == (0, 0), said
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1


# Whatever comes.


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


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content-Range": st.one_of(st.text("bytes 0123456789-/*", max_size=30), st.just("bytes 50-99/100")),
        "Content-Length": st.text("0123456789 -x", max_size=4),
        "ETag": st.sampled_from(['"a"', '"b"', 'W/"a"', ""]),
        "Retry-After": st.text("0123456789 ", max_size=20),
    },
)
BODIES = st.one_of(st.binary(max_size=100), st.integers(0, 120).map(bytes))
ANSWERS = st.tuples(st.sampled_from([200, 206, 206, 404, 416, 503]), HEADERS, BODIES)


@example(answers=[(206, {"Content-Range": "bytes 50-99/100"}, bytes(50))])
@given(answers=st.lists(ANSWERS, min_size=1, max_size=6))
def test_any_answers_give_the_file_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[int, dict[str, str], bytes]]
) -> None:
    content = bytes(100)
    folder = tmp_path_factory.mktemp("cache")
    (folder / "net.pth.part").write_bytes(content[:50])
    (folder / "net.pth.part.etag").write_text('"a"')
    script = iter(answers)

    def respond(_: httpx.Request) -> httpx.Response:
        status, headers, body = next(script, (503, {}, b""))
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))

    with httpx.Client(transport=httpx.MockTransport(respond)) as client:
        downloader = Downloader(client, Console(file=io.StringIO()), lambda _: None)
        try:
            downloader.fetch(Remote("http://x/y", hashlib.sha256(content).hexdigest()), folder / "net.pth")
        except DownloadError:
            assert not (folder / "net.pth").exists()
        else:
            assert (folder / "net.pth").read_bytes() == content
