"""Images decoded in processes of their own: the same pixels, and an end to what costs too much."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import psutil
import pytest
from PIL import Image

from service.errors import (
    BadImage,
    DecoderCrashed,
    ImageError,
    ImageTooCostly,
    ImageTooLarge,
    InferenceFailed,
    NotAnImage,
    ShuttingDown,
)
from service.images import apart as apart_module
from service.images.apart import Apart
from service.images.decode import Costly, Decoder
from service.settings import DecodeSettings, ImageFormat
from tests.service.conftest import a_picture, a_spec, encode, too_slow
from tests.service.images.conftest import PILLOW_MAY_WARN

ROOT = Path(__file__).parents[3]
pytestmark = PILLOW_MAY_WARN

FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)


def some_settings(**changes: Any) -> DecodeSettings:
    return DecodeSettings(**({"image_formats": FORMATS} | changes))


@pytest.fixture
def apart() -> Iterator[Apart]:
    made = Apart(some_settings(), 2)
    yield made
    made.close()


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children()]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_pixels_as_in_a_thread(apart: Apart, kind: ImageFormat) -> None:
    data, decoder = encode(a_picture(size=(50, 137)), kind), Decoder(some_settings())
    found, wanted = apart.tensor(data, a_spec()), decoder.tensor(data, a_spec())
    assert np.array_equal(found.pixels, wanted.pixels)
    assert found.whole == wanted.whole == (50, 137)
    assert np.array_equal(np.asarray(apart.decode(data)), np.asarray(decoder.decode(data)))


def test_its_errors_are_those_of_the_decoder(apart: Apart) -> None:
    jpeg = encode(a_picture(size=(64, 64)), "JPEG")
    with pytest.raises(NotAnImage, match="no image"):
        apart.tensor(b"hello", a_spec())
    with pytest.raises(BadImage, match="truncated"):
        apart.tensor(jpeg[: len(jpeg) // 2], a_spec())
    with pytest.raises(BadImage):
        apart.decode(jpeg[:40])
    assert apart.tensor(jpeg, a_spec()).whole == (64, 64)


def test_settings_reach_the_process() -> None:
    apart = Apart(some_settings(max_pixels=1024, image_formats=("png",)), 1)
    with pytest.raises(ImageTooLarge, match="1024"):
        apart.tensor(encode(a_picture(size=(33, 32))), a_spec())
    with pytest.raises(NotAnImage, match="jpeg images are not taken"):
        apart.tensor(encode(a_picture(), "JPEG"), a_spec())
    apart.close()


def test_no_process_before_it_is_needed_and_none_after() -> None:
    before = children()
    apart = Apart(some_settings(), 2)
    assert children() == before
    apart.tensor(encode(a_picture()), a_spec())
    apart.tensor(encode(a_picture()), a_spec())
    (child,) = set(children()) - set(before)
    apart.close()
    assert children() == before
    assert not psutil.pid_exists(child)
    with pytest.raises(ShuttingDown):
        apart.tensor(encode(a_picture()), a_spec())


def test_too_much_processor_time_ends_that_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart_module, "_PATIENCE", 10_000)  # it is the kernel that ends it, not the clock
    apart = Apart(some_settings(decode_cpu_s=0.2), 1)
    good = encode(a_picture())
    wanted = apart.tensor(good, a_spec()).pixels
    for _ in range(2):
        with pytest.raises(ImageTooCostly, match=r"more than 0\.2 s of processor time.*smaller"):
            apart.tensor(too_slow(), a_spec())
        assert np.array_equal(apart.tensor(good, a_spec()).pixels, wanted)
    apart.close()


def test_processor_time_is_counted_for_each_image_anew() -> None:
    """Twenty images that take a quarter of it each are none that takes too much."""
    apart = Apart(some_settings(decode_cpu_s=0.5), 1)
    before = set(children())
    data = encode(Image.new("RGB", (2000, 2000)), "PNG")
    apart.tensor(data, a_spec())
    (child,) = set(children()) - before
    while sum(psutil.Process(child).cpu_times()[:2]) < 1.5:
        apart.tensor(data, a_spec())
    assert psutil.pid_exists(child)
    apart.close()


def test_too_long_by_the_clock_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does nothing takes no processor time."""
    before = set(children())
    monkeypatch.setattr(apart_module, "_PATIENCE", 0.1)
    apart = Apart(some_settings(decode_cpu_s=5), 1)
    good = encode(a_picture())
    with apart._place():  # starts it
        (child,) = set(children()) - before
    psutil.Process(child).suspend()
    with pytest.raises(ImageTooCostly):
        apart.tensor(good, a_spec())
    assert not psutil.pid_exists(child)
    monkeypatch.undo()
    assert apart.tensor(good, a_spec()).whole == (8, 8)
    apart.close()


def test_too_much_memory_ends_that_image_alone() -> None:
    apart = Apart(some_settings(decode_memory_bytes=2**25), 1)
    good = encode(a_picture())
    for _ in range(2):
        with pytest.raises(ImageTooCostly, match="more than 32 MiB of memory"):
            apart.tensor(encode(Image.new("RGB", (4096, 4096)), "PNG"), a_spec())
        with pytest.raises(ImageTooCostly, match="more than 32 MiB of memory"):
            apart.tensor(too_slow(500_000), a_spec())  # by many small pieces, until nothing is left
        assert apart.tensor(good, a_spec()).whole == (8, 8)
    apart.close()


def test_a_crash_is_that_images_error_alone(apart: Apart) -> None:
    """The process is ended as a fault in a codec would, while it is at an image."""
    before = set(children())
    good = encode(a_picture())
    apart.tensor(good, a_spec())
    (child,) = set(children()) - before
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(apart.tensor, too_slow(), a_spec())
        busy = psutil.Process(child).cpu_times().user
        while psutil.Process(child).cpu_times().user < busy + 0.05:
            threading.Event().wait(0.005)
        os.kill(child, signal.SIGSEGV)
        with pytest.raises(DecoderCrashed):
            answer.result(60)
    assert apart.tensor(good, a_spec()).whole == (8, 8)


def test_a_process_that_ended_while_idle_is_replaced(apart: Apart) -> None:
    before = set(children())
    good = encode(a_picture())
    apart.tensor(good, a_spec())
    (child,) = set(children()) - before
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert apart.tensor(good, a_spec()).whole == (8, 8)


def test_no_more_processes_than_allowed() -> None:
    apart, before = Apart(some_settings(), 2), set(children())
    data = encode(a_picture(size=(500, 500)))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: apart.tensor(data, a_spec()).pixels, range(40)))
        assert len(set(children()) - before) <= 2
    assert all(np.array_equal(one, found[0]) for one in found)
    apart.close()


def test_where_no_process_starts_it_is_the_services_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = Apart(some_settings(), 1)
    monkeypatch.setattr(apart_module, "_START", "raise SystemExit(3)")
    with pytest.raises(InferenceFailed):
        apart.tensor(encode(a_picture()), a_spec())
    monkeypatch.undo()
    assert apart.tensor(encode(a_picture()), a_spec()).whole == (8, 8)
    apart.close()


_WORKER = """
import sys
from service.images.apart import Apart
from service.settings import DecodeSettings
from tests.service.conftest import a_picture, a_spec, encode
import psutil
apart = Apart(DecodeSettings(), 1)
apart.tensor(encode(a_picture()), a_spec())
print(psutil.Process().children()[0].pid, flush=True)
sys.stdin.read()
"""


@contextmanager
def a_worker() -> Iterator[psutil.Process]:
    """The child that a worker decodes in, which is gone soon after the worker is killed."""
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with worker:
        assert worker.stdout is not None
        try:
            child = psutil.Process(int(worker.stdout.readline()))
            yield child
        finally:
            worker.kill()
        worker.wait()
        assert psutil.wait_procs([child], timeout=60)[1] == []


def test_a_killed_worker_leaves_no_process() -> None:
    with a_worker() as child:
        assert child.is_running()


def test_the_end_of_the_service_does_not_end_what_was_accepted() -> None:
    """Process managers send a worker's children what they send the worker."""
    with a_worker() as child:
        child.terminate()
        child.send_signal(signal.SIGCONT)  # delivered after the one before
        assert psutil.wait_procs([child], timeout=1)[0] == []


def test_a_decoder_for_threads_leaves_costly_images_alone() -> None:
    decoder = Decoder(some_settings(), cheap_only=True)
    row = np.full((8, 8, 3), 7, np.uint8)
    costly = [
        too_slow(20_000),
        encode(a_picture(), "TIFF"),
        encode(Image.new("RGB", (4096, 2049)), "PNG"),
    ]
    for data in costly:
        with pytest.raises(Costly):
            decoder.tensor(data, a_spec(), row)
        with pytest.raises(Costly):
            decoder.decode(data)
    assert (row == 7).all()
    assert decoder.tensor(encode(a_picture(), "JPEG"), a_spec()).whole == (8, 8)


@pytest.mark.slow
def test_odd_images_are_the_same_apart(apart: Apart, shared: Path) -> None:
    """Every one of them: bounds on the process keep nothing from being decoded."""
    decoder = Decoder(some_settings())

    def outcome(decode: Any, data: bytes) -> object:
        try:
            found = decode(data, a_spec())
        except ImageError as error:
            return error.code, error.message
        return found.whole, found.pixels.tobytes()

    with zipfile.ZipFile(shared / "data" / "odd-images.zip") as files:
        for name in files.namelist():
            data = files.read(name)
            assert outcome(apart.tensor, data) == outcome(decoder.tensor, data), name


def test_a_process_that_cannot_have_its_pipes_leaves_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    pipe = os.pipe

    def one_pipe() -> tuple[int, int]:
        if made:
            raise OSError(errno.EMFILE, "too many open files")
        made.append(pipe())
        return made[0]

    alone = Apart(some_settings(), 1)
    monkeypatch.setattr(os, "pipe", one_pipe)
    with pytest.raises(InferenceFailed):
        alone.decode(b"")
    for descriptor in made[0]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    alone.close()
