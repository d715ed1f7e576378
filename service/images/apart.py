"""Decodes costly images in processes of their own, which are ended where one takes too much.

A thread cannot be ended, and one image of a few kilobytes can take a minute. So what is not known to be cheap
(``image_costs.py``) goes to a child process (``apart_child.py``): the kernel ends it at the allowed processor time and
refuses it memory beyond the allowed. Its end is that image's error and nobody else's.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import numpy as np
from PIL import Image

from model_store.manifest import Preprocessing
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
from service.images.apart_child import ANSWER, ERROR, NO_MEMORY, REQUEST, TENSOR, WHOLE, too_much_memory
from service.images.decode import Decoded
from service.settings import DecodeSettings

logger = logging.getLogger(__name__)

_PATIENCE: Final = 30
"""How many times the allowed processor time an image may take by the clock, on a machine that is busy."""
_START_S: Final = 60
"""How long a process may take to start."""
_START: Final = """
import json, os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each would reserve memory
sys.path[:] = json.loads(sys.argv[1])
from service.images.apart_child import main
main(sys.argv[2])
"""

_ERRORS: Final[dict[str, type[ImageError]]] = {
    error.code: error for error in (BadImage, ImageTooCostly, ImageTooLarge, NotAnImage)
}


class Apart:
    """At most ``most`` decoding processes, started when they are first needed. Safe in many threads at once."""

    def __init__(self, settings: DecodeSettings, most: int) -> None:
        self._settings = settings
        # A place is a process that waits for work, or None where none was started; the last one used comes first.
        self._places: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(most):
            self._places.put(None)
        self._most = most
        self._closed = False
        self.threads = ThreadPoolExecutor(most, thread_name_prefix="apart")
        """As many as there may be processes; each waits for one."""

    def tensor(self, data: bytes, spec: Preprocessing) -> Decoded:
        """As ``Decoder.tensor``, with ``ImageTooCostly`` and ``DecoderCrashed`` besides; waits for a process."""
        with self._place() as process:
            height, width, whole, pixels = process.ask(TENSOR, spec.model_dump_json().encode(), data)
        return Decoded(np.frombuffer(pixels, np.uint8).reshape(height, width, 3), whole)

    def decode(self, data: bytes) -> Image.Image:
        """As ``Decoder.decode``, with the errors of ``tensor``."""
        with self._place() as process:
            height, width, _, pixels = process.ask(WHOLE, b"", data)
        return Image.frombytes("RGB", (width, height), pixels)

    @contextmanager
    def _place(self) -> Iterator[_Process]:
        process = self._places.get()
        try:
            if self._closed:
                raise ShuttingDown("the service is shutting down")
            if process is None or process.gone:
                process = _started(self._settings)
            yield process
        finally:
            self._places.put(None if process is None or process.gone else process)

    def close(self) -> None:
        """End the processes once what is in them is done, which the bounds make soon."""
        self._closed = True
        self.threads.shutdown(cancel_futures=True)
        for _ in range(self._most):
            process = self._places.get()
            if process is not None:
                process.end()
        for _ in range(self._most):
            self._places.put(None)  # who waits for one hears that it is over


def _started(settings: DecodeSettings) -> _Process:
    try:
        return _Process(settings)
    except (OSError, EOFError) as error:
        logger.exception("no process could be started to decode an image in")
        raise InferenceFailed("the service failed on this image") from error


class _Process:
    """One child; a pipe to it and one back."""

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings
        asked, self._asking = os.pipe()
        try:
            self._answers, answers = os.pipe()
        except OSError:
            os.close(asked)
            os.close(self._asking)
            raise
        try:
            # A session of its own: Ctrl-C is for us, who still answer what was accepted. It ends where its pipe does.
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter  # nosec B603
                [sys.executable, "-c", _START, json.dumps(sys.path), settings.model_dump_json()],
                stdin=asked,
                stdout=answers,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            os.close(self._asking)
            os.close(self._answers)
            raise
        finally:
            os.close(asked)
            os.close(answers)
        self._patience_s = _PATIENCE * settings.decode_cpu_s
        self._ended = False
        try:
            self._read(1, time.monotonic() + _START_S)
        except (OSError, EOFError):
            self.end()
            raise

    @property
    def gone(self) -> bool:
        """Whether nothing more can be asked of it; what it held is freed then."""
        if self._child.poll() is not None:
            self.end()
        return self._ended

    def ask(self, kind: int, spec: bytes, data: bytes) -> tuple[int, int, tuple[int, int], bytes]:
        """Height, width, size of the upright image, and pixels."""
        until_s = time.monotonic() + self._patience_s
        try:
            self._write(REQUEST.pack(kind, len(spec), len(data)) + spec)
            self._write(data)
            status, height, width, *whole, length = ANSWER.unpack(self._read(ANSWER.size, until_s))
            payload = self._read(length, until_s)
        except TimeoutError as error:
            self.end()
            raise self._too_slow() from error
        except (OSError, EOFError) as error:
            self.end()
            raise self._why() from error
        if status == ERROR:
            told = json.loads(payload)
            raise _ERRORS[told["code"]](told["message"])
        return height, width, (whole[0], whole[1]), payload

    def end(self) -> None:
        """Returns when the process is gone; once is enough."""
        if self._ended:
            return
        self._ended = True
        self._child.kill()
        self._child.wait()
        os.close(self._asking)
        os.close(self._answers)

    def _why(self) -> ImageError:
        """What the child's end says of the image it was at."""
        status = self._child.returncode
        if status == -signal.SIGPROF:  # the kernel's timer
            return self._too_slow()
        if status == NO_MEMORY:
            return too_much_memory(self._settings)
        logger.warning("an image ended its decoding process: status %d", status)
        return DecoderCrashed("the image cannot be decoded: its decoder crashed on it")

    def _too_slow(self) -> ImageTooCostly:
        most = f"{self._settings.decode_cpu_s:g} s of processor time"
        return ImageTooCostly(f"the image takes more than {most} to decode; send it smaller")

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._asking, left) :]

    def _read(self, count: int, until_s: float) -> bytes:
        ready = select.poll()
        ready.register(self._answers, select.POLLIN)
        found = bytearray()
        while len(found) < count:
            if not ready.poll(max(0.0, 1000 * (until_s - time.monotonic()))):
                raise TimeoutError("the process takes too long")
            if not (part := os.read(self._answers, min(2**20, count - len(found)))):
                raise EOFError("the process ended")
            found += part
        return bytes(found)
