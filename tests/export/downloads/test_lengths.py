"""Lengths that are not true, or more than is taken: the disk is not filled."""

from __future__ import annotations

import hashlib

import pytest

from export.downloads.http_client import ATTEMPTS, DownloadError, Unreachable
from tests.export.http_server import WeightsServer, answer, break_off, endless, without_length

from .conftest import CONTENT, PATH, Setup

pytestmark = pytest.mark.usefixtures("no_proxies")


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
