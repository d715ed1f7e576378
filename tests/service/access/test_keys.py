"""Lines of keys: what is taken, what is refused, and that nothing of them is repeated."""

from __future__ import annotations

import contextlib
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.keys import PREFIX, ApiKey, Limits, digest_of, line_of, new_key, parse_keys

USUAL = Limits(images_per_s=10, concurrency=4)
HASH = hashlib.sha256(b"a-key").hexdigest()


def test_a_key_is_long_random_and_known_by_its_hash() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(rf"{PREFIX}[A-Za-z0-9_-]{{43}}", key) for key in keys)
    for key in keys:
        line = line_of("app", key)
        assert key not in line
        assert parse_keys(line, USUAL) == [ApiKey("app", hashlib.sha256(key.encode()).digest(), USUAL)]


def test_what_a_file_may_hold() -> None:
    text = f"""
    # the two apps
    mobile  sha256:{HASH}   images_per_s=0.5 burst=100 concurrency=8   # limits of its own

    web.2_x sha256:{"0" * 64},desk sha256:{"1" * 64} images_per_s=none concurrency=none
    """
    assert parse_keys(text, USUAL) == [
        ApiKey("mobile", bytes.fromhex(HASH), Limits(0.5, 100, 8)),
        ApiKey("web.2_x", bytes(32), USUAL),
        ApiKey("desk", bytes.fromhex("1" * 64), Limits()),
    ]
    assert parse_keys("", USUAL) == parse_keys("# none\n\n,", USUAL) == []


def test_limits_are_written_and_read_alike() -> None:
    line = line_of("app", "a-key", images_per_s=2.5, burst=7, concurrency=None)
    assert line == f"app sha256:{HASH} images_per_s=2.5 burst=7"
    assert parse_keys(line, Limits())[0].limits == Limits(2.5, 7)
    large = line_of("app", "a-key", images_per_s=1e9, burst=10**9, concurrency=10**6)
    assert parse_keys(large, Limits())[0].limits == Limits(1e9, 10**9, 10**6)
    assert parse_keys(line_of("app", "a-key", images_per_s=1e-6), Limits())[0].limits == Limits(1e-6)


@pytest.mark.parametrize(
    "line",
    [
        "app",
        "app a-key-in-plain-text",
        f"app sha256:{HASH.upper()}",
        f"app sha256:{HASH[:-1]}",
        f"app md5:{HASH}",
        f"../app sha256:{HASH}",
        f"-app sha256:{HASH}",
        f"{'x' * 65} sha256:{HASH}",
        f"app sha256:{HASH} burst",
        f"app sha256:{HASH} burst=0",
        f"app sha256:{HASH} burst=1.5",
        f"app sha256:{HASH} burst=-1",
        f"app sha256:{HASH} concurrency=1e3",
        f"app sha256:{HASH} concurrency=",
        f"app sha256:{HASH} images_per_s=0",
        f"app sha256:{HASH} images_per_s=inf",
        f"app sha256:{HASH} images_per_s=nan",
        f"app sha256:{HASH} images_per_s=9999999999",
        f"app sha256:{HASH} pictures=1",
        f"app sha256:{HASH} burst=1 burst=1",
        f"app sha256:{HASH} burst=1\nother sha256:{HASH}",
        f"app sha256:{HASH} burst=1\napp sha256:{'0' * 64}",
    ],
)
def test_a_wrong_line_is_refused_and_not_repeated(line: str) -> None:
    with pytest.raises(ValueError, match=r"key|limits|name") as raised:
        parse_keys(f"# comment\n{line}", Limits())
    assert HASH not in str(raised.value)
    assert "plain-text" not in str(raised.value)


@given(st.text(max_size=200))
def test_any_text_is_keys_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_keys(text, USUAL), list)


def test_what_is_too_long_is_not_hashed() -> None:
    assert digest_of("x" * 1025) is None
    assert digest_of("x" * 1024) == hashlib.sha256(b"x" * 1024).digest()
    assert digest_of("\xe9\udc80") is not None
