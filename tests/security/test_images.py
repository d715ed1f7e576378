"""Odd, broken and hostile images over HTTP: an answer or the sender's error, and the right picture."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import httpx
import numpy as np
import numpy.typing as npt
import psutil
import pytest
from PIL import Image

from service.settings import ImageFormat
from tests.end_to_end.conftest import Server, picture, running, until
from tests.security.costly import MADE

FORMATS = get_args(ImageFormat)
ORIENTATION = 0x0112


@pytest.fixture(scope="module", params=["default formats", "all formats"])
def any_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    formats = {"RESNET_IMAGE_FORMATS": ",".join(FORMATS)} if request.param == "all formats" else {}
    with running(RESNET_PRECISION="fp32", RESNET_DEADLINE_S="120", RESNET_LOG_REQUESTS="off", **formats) as started:
        yield started
        assert started.process.poll() is None
        status = [line for line in metrics(started) if line.startswith("resnet_requests_total") and 'code="5' in line]
        assert not status
    assert "Traceback" not in "".join(started.log)


def metrics(server: Server) -> list[str]:
    return httpx.get(f"{server.url}/metrics").text.splitlines()


@pytest.fixture
def client(any_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=any_server.url, timeout=150) as opened:
        yield opened


def ask(client: httpx.Client, data: bytes, kind: str = "application/octet-stream") -> httpx.Response:
    answer = client.post("/v1/classify?top_k=10", content=data, headers={"content-type": kind})
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["code"] in (CODES if data else {"bad_request"}), answer.text
    return answer


CODES = {"not_an_image", "bad_image", "image_too_large", "image_too_costly"}


def probabilities(client: httpx.Client, data: bytes, kind: str = "application/octet-stream") -> npt.NDArray[np.float64]:
    """Of all classes by their index."""
    answer = ask(client, data, kind)
    assert answer.status_code == 200, answer.text
    found = {one["index"]: one["probability"] for one in answer.json()["results"][0]["predictions"]}
    return np.array([found[index] for index in sorted(found)])


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def a_picture(seed: int = 5) -> Image.Image:
    return Image.open(io.BytesIO(picture(seed, (96, 64), "PNG"))).convert("RGB")


# Whatever comes


@pytest.mark.slow
def test_every_odd_image_is_answered_or_refused(client: httpx.Client, any_server: Server, shared: Path) -> None:
    good = picture(0)
    wanted = probabilities(client, good)
    statuses: dict[int, int] = {}
    with zipfile.ZipFile(shared / "data" / "odd-images.zip") as files:
        names = [name for name in files.namelist() if not name.endswith("/")]
        for name in names:
            answer = ask(client, files.read(name))
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
    assert sum(statuses.values()) == len(names)
    assert statuses[200] > 0.6 * len(names)
    assert np.allclose(probabilities(client, good), wanted, atol=1e-6)
    assert client.get("/readyz").status_code == 200


def _files() -> dict[str, bytes]:
    image = a_picture()
    return {
        "baseline": saved(image, "JPEG"),
        "progressive": saved(image, "JPEG", progressive=True),
        "png": saved(image),
        "palette": saved(image.quantize(64)),
        "webp": saved(image, "WEBP"),
        "lossless": saved(image, "WEBP", lossless=True),
        "gif": saved(image, "GIF"),
        "bmp": saved(image, "BMP"),
        "tiff": saved(image, "TIFF", compression="tiff_lzw"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", _files())
def test_an_image_cut_off_at_every_percent(client: httpx.Client, name: str) -> None:
    data = _files()[name]
    for percent in range(100):
        ask(client, data[: len(data) * percent // 100])
    whole = ask(client, data).status_code
    assert whole == 200 or name in ("gif", "bmp", "tiff")  # which are not taken by default


def test_the_type_is_that_of_the_content(client: httpx.Client) -> None:
    png = saved(a_picture())
    wanted = probabilities(client, png, "image/png")
    for kind in ("image/jpeg", "image/gif", "text/html", "application/octet-stream", "image/svg+xml", "nonsense"):
        assert np.array_equal(probabilities(client, png, kind), wanted), kind
    for kind in ("image/png", "image/jpeg"):
        assert ask(client, b"<svg xmlns='http://www.w3.org/2000/svg'/>", kind).status_code == 415


# The right picture: each is compared with a plain RGB file of what it shows, by the answers


def same(client: httpx.Client, odd: bytes, shown: npt.NDArray[np.uint8], tolerance: float = 1e-6) -> None:
    wanted = probabilities(client, saved(Image.fromarray(shown)))
    other = probabilities(client, saved(Image.fromarray(np.ascontiguousarray(shown[::-1, ::-1]))))
    assert np.abs(wanted - other).max() > 0.02, "this picture says nothing"
    assert np.abs(probabilities(client, odd) - wanted).max() <= tolerance


_STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[:, ::-1],
}
"""How a camera stores an upright picture (Exif 2.32, 4.6.4: what is the 0th row, and the 0th column)."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_orientations(client: httpx.Client, kind: str, orientation: int) -> None:
    upright = np.asarray(a_picture())
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"PNG": {}, "WEBP": {"lossless": True, "exact": True}, "JPEG": {"quality": 100, "subsampling": 0}}[kind]
    stored = Image.fromarray(np.ascontiguousarray(_STORED[orientation](upright)))
    # Turning after the resize rounds otherwise; JPEG loses a little.
    same(client, saved(stored, kind, exif=exif, **options), upright, 0.02)


def test_cmyk(client: httpx.Client) -> None:
    rgb = np.asarray(a_picture())
    cmyk = Image.merge("CMYK", [*map(Image.fromarray, np.moveaxis(255 - rgb, 2, 0)), Image.new("L", (96, 64), 0)])
    same(client, saved(cmyk, "JPEG", quality=100, subsampling=0), rgb, 0.03)


def test_sixteen_bits(client: httpx.Client) -> None:
    grey = np.asarray(a_picture().convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    same(client, saved(deep), np.repeat(grey[..., np.newaxis], 3, axis=2))


def test_a_palette(client: httpx.Client) -> None:
    coded = a_picture().quantize(32)
    palette = np.array(coded.getpalette(), np.uint8).reshape(-1, 3)
    same(client, saved(coded), palette[np.asarray(coded)])


def test_alpha_lies_on_white(client: httpx.Client) -> None:
    rgb = np.asarray(a_picture())
    alpha = np.zeros((64, 96), np.uint8)
    alpha[:, :60] = 255
    shown = np.where(alpha[..., np.newaxis] == 255, rgb, 255).astype(np.uint8)
    same(client, saved(Image.fromarray(np.dstack([rgb, alpha]))), shown)
    lossless = saved(Image.fromarray(np.dstack([rgb, alpha])), "WEBP", lossless=True, exact=True)
    same(client, lossless, shown)


def interlaced(rgb: npt.NDArray[np.uint8]) -> bytes:
    """A PNG in Adam7's seven passes (PNG, section 8.2), which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = []
    for y, x, down, right in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        rows += [b"\x00" + row.tobytes() for row in rgb[y::down, x::right]]
    header = struct.pack(">IIBBBBB", rgb.shape[1], rgb.shape[0], 8, 2, 0, 0, 1)
    packed = zlib.compress(b"".join(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_interlaced(client: httpx.Client) -> None:
    rgb = np.asarray(a_picture())
    same(client, interlaced(rgb), rgb)
    same(client, saved(Image.fromarray(rgb), "JPEG", progressive=True, quality=100, subsampling=0), rgb, 0.02)


@pytest.mark.parametrize("kind", ["gif", "bmp", "tiff"])
def test_other_formats_where_they_are_taken(client: httpx.Client, any_server: Server, kind: str) -> None:
    coded = a_picture().quantize(200) if kind == "gif" else a_picture()
    answer = ask(client, saved(coded, kind))
    if answer.status_code == 415:
        assert "taken are jpeg, png, webp" in answer.json()["error"]["message"]
    else:
        same(client, saved(coded, kind), np.asarray(coded.convert("RGB")))


# What costs too much


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jpeg_exif_pieces", "jpeg_padding"])
def test_a_costly_image_costs_its_sender(client: httpx.Client, any_server: Server, name: str) -> None:
    """It fails alone; its neighbours in the request, and requests that come meanwhile, are answered as ever."""
    good = [picture(1), picture(2)]
    wanted = [probabilities(client, one) for one in good]
    answer = client.post("/v1/classify?top_k=10", files=[("a", good[0]), ("x", MADE[name]()), ("b", good[1])])
    assert answer.status_code == 200, answer.text
    first, costly, last = answer.json()["results"]
    assert costly["error"]["code"] == "image_too_costly"
    assert "2 s of processor time" in costly["error"]["message"]
    for found, expected in zip((first, last), wanted, strict=True):
        by_index = {one["index"]: one["probability"] for one in found["predictions"]}
        assert np.allclose([by_index[index] for index in sorted(by_index)], expected, atol=1e-5)
    counted = [line for line in metrics(any_server) if line.startswith("resnet_decode_failures_total")]
    kind = name.partition("_")[0]
    assert any(f'format="{kind}",reason="image_too_costly"' in line for line in counted)
    assert client.get("/readyz").status_code == 200


@pytest.mark.slow
def test_no_process_is_left(shared: Path) -> None:
    """Neither after a worker that is killed, nor after the service stops."""

    def decoders(of: Server) -> list[psutil.Process]:
        return [
            process
            for process in psutil.Process(of.process.pid).children(recursive=True)
            if any("service.images.apart_child" in part for part in process.cmdline())
        ]

    tiff = saved(a_picture(), "TIFF")
    with running(RESNET_IMAGE_FORMATS="jpeg,tiff", RESNET_DEADLINE_S="120") as server:
        with httpx.Client(base_url=server.url, timeout=150) as client:
            assert ask(client, tiff).status_code == 200
            (decoder,) = decoders(server)
            decoder.parent().kill()
            assert psutil.wait_procs([decoder], timeout=60)[1] == []
        server.wait_for_line("ready after")

        def answered() -> bool:
            try:
                return httpx.post(f"{server.url}/v1/classify", content=tiff, timeout=150).status_code == 200
            except httpx.TransportError:
                return False

        until(answered, "an answer of the new worker")
        left = decoders(server)
        assert left
    assert psutil.wait_procs(left, timeout=60)[1] == []
