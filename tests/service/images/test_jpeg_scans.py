"""Progressive JPEGs with more passes than anyone needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ImageTooLarge
from service.images.decode import Decoder, jpeg_scans
from service.settings import DecodeSettings
from tests.service.conftest import a_picture, a_spec, encode

SCAN, END = b"\xff\xda", b"\xff\xd9"


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are ``count``; it still shows the picture."""
    data = encode(a_picture(0, (64, 64)), "JPEG", progressive=True)
    start, end = data.rindex(SCAN), data.rindex(END)
    return data[:start] + data[start:end] * (count - data.count(SCAN) + 1) + END


def test_a_usual_progressive_jpeg_is_taken() -> None:
    data = encode(a_picture(0, (64, 64)), "JPEG", progressive=True)
    assert 2 <= data.count(SCAN) <= 20
    assert Decoder(DecodeSettings()).decode(data).size == (64, 64)


@pytest.mark.parametrize("count", [101, 5000])
def test_too_many_scans_are_refused_before_anything_is_decoded(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, data = Decoder(DecodeSettings()), with_scans(count)
    monkeypatch.setattr("service.images.decode.Image.open", lambda *_, **__: pytest.fail("Pillow saw it"))
    with pytest.raises(ImageTooLarge, match="at most 100"):
        decoder.decode(data)
    with pytest.raises(ImageTooLarge, match="at most 100"):
        decoder.tensor(data, a_spec())


def test_the_bound_is_a_setting() -> None:
    assert Decoder(DecodeSettings(max_jpeg_scans=100)).decode(with_scans(100)).size == (64, 64)
    with pytest.raises(ImageTooLarge):
        Decoder(DecodeSettings(max_jpeg_scans=99)).decode(with_scans(100))


@given(st.lists(st.sampled_from([b"\xff\xda", b"\xff", b"\xda", b"\x00", b"\xff\x00"])).map(b"".join))
def test_scans_are_counted_wherever_they_lie(data: bytes) -> None:
    assert jpeg_scans(data) == data.count(SCAN)
