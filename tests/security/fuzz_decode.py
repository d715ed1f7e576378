"""Coverage-guided fuzzing of what reads untrusted images: `python -m tests.security.fuzz_decode --seconds 60`.

atheris mutates real and made images; each input goes through the format's recognition, the count of a JPEG's scans,
the judgement of its cost, and the decoder as a slot's thread uses it. Anything but an ``ImageError`` is a finding, and
so is an image that the judgement calls cheap and that takes more than two seconds of processor time. ``--folder`` keeps
what finds new paths, and begins with it; a finding is written there, or to the current folder, as libFuzzer names it.
"""

from __future__ import annotations

import argparse
import io
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import get_args

import atheris
import numpy as np
import psutil
from PIL import Image

with atheris.instrument_imports(
    include=["PIL", "model_store.transforms", "service.images.decode", "service.images.image_costs"]
):
    from PIL import (  # noqa: F401
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        MpoImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    from model_store.manifest import Preprocessing
    from service.errors import ImageError
    from service.images.decode import Costly, Decoder, jpeg_scans, sniff
    from service.images.image_costs import is_plain
    from service.settings import DecodeSettings, ImageFormat

FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
SPEC = Preprocessing(height=16, width=16, resize=20, mean=(0, 0, 0), std=(1, 1, 1))
MOST_BYTES = 64 * 1024
MOST_MEMORY = 2 * 1024**3
ODD = Path(__file__).parents[3] / "shared" / "data" / "odd-images.zip"

_all = DecodeSettings(image_formats=FORMATS, max_pixels=2**20)
# TIFF is decoded apart in the service; here it is what the child would do.
_decoders = (Decoder(_all, cheap_only=True), Decoder(_all))


def one_input(data: bytes) -> None:
    """Raises where ``data`` brings out anything but an answer or an ``ImageError``."""
    kind = sniff(data)
    scans = jpeg_scans(data)
    if scans != data.count(b"\xff\xda"):
        raise AssertionError(f"{scans} scans counted")
    for other in FORMATS:
        is_plain(other, data)
    cheap = _decode(_decoders[0], data)
    if kind is not None and cheap is None:
        with _as_much_memory_as_a_child():
            _decode(_decoders[1], data)


def _allow_memory(more: int) -> None:
    """From here on the kernel refuses more than ``more`` bytes on top of what there is."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + more, hard))


@contextmanager
def _as_much_memory_as_a_child() -> Iterator[None]:
    """The service's child, which has what is costly, is refused more than this by the kernel."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    _allow_memory(_all.decode_memory_bytes)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _decode(decoder: Decoder, data: bytes) -> bool | None:
    """Whether it is an image; None where it is left to another process."""
    row = np.full((16, 16, 3), 7, np.uint8)
    began_s = time.process_time()
    try:
        decoder.tensor(data, SPEC, row)
    except ImageError as error:
        if not (row == 7).all() or not error.message:
            raise AssertionError("a bad image changed its row, or says nothing") from error
        return False
    except Costly:
        return None
    except MemoryError:
        if decoder is _decoders[0]:
            raise
        return False  # so says the child, too
    if time.process_time() - began_s > 2 and decoder is _decoders[0]:
        raise AssertionError("called cheap, and was not")
    return True


def seeds() -> dict[str, bytes]:
    """Small images of every format, and the odd ones where they are beside the repository."""
    found: dict[str, bytes] = {}
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    for kind, options in (
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": Image.Exif()}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ):
        file = io.BytesIO()
        image.save(file, kind, **options)
        found[f"made-{len(found)}"] = file.getvalue()
    if ODD.exists():
        with zipfile.ZipFile(ODD) as files:
            for number, name in enumerate(files.namelist()):
                if len(data := files.read(name)) <= 4096 and sniff(data) is not None:
                    found[f"odd-{number}"] = data
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="another one goes other ways")
    parser.add_argument("--folder", type=Path, help="keeps the inputs that found something new")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    kept = nullcontext(str(options.folder)) if options.folder else tempfile.TemporaryDirectory()
    with kept as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, data in seeds().items():
            (Path(folder) / name).write_bytes(data)
        # libFuzzer's own bound reads the peak that the system hands on from the process that started this one.
        limits = [f"-max_total_time={options.seconds}", f"-max_len={MOST_BYTES}", "-timeout=60", "-rss_limit_mb=0"]
        _allow_memory(MOST_MEMORY)
        artifacts = f"-artifact_prefix={folder}/" if options.folder else "-artifact_prefix=./"
        atheris.Setup(
            [sys.argv[0], *limits, f"-seed={options.seed + 1}", "-print_final_stats=1", artifacts, folder], one_input
        )
        atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main()
