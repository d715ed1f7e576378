"""A file is fetched whole, once, and as its hash says, or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from export.downloads.download import Downloader, Remote
from export.downloads.http_client import DownloadError
from tests.export.http_server import WeightsServer, answer, break_off, held

from .conftest import CONTENT, OTHER, PATH, Setup

pytestmark = pytest.mark.usefixtures("no_proxies")


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


@pytest.mark.parametrize("digits", [8, 20, 64])
def test_wrong_bytes_are_removed_and_both_hashes_named(server: WeightsServer, setup: Setup, digits: int) -> None:
    server.publish(PATH, OTHER)
    expected, found = (hashlib.sha256(content).hexdigest() for content in (CONTENT, OTHER))
    with pytest.raises(DownloadError, match=f"{found}, not {expected[:digits]}") as error:
        setup.fetch(server.url + PATH, sha256=expected[:digits], size=len(CONTENT))
    assert PATH in str(error.value)
    assert setup.left() == set()
    assert setup.slept == []


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


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_file_is_an_error(server: WeightsServer, setup: Setup, status: int) -> None:
    server.script(PATH, answer(status))
    with pytest.raises(DownloadError, match=str(status)):
        setup.fetch(server.url + PATH)


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
