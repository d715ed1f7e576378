"""The process that decodes costly images, one after the other, within bounds that the kernel keeps.

Asked over stdin and answering on stdout, with bytes alone. It ends where its stdin does, so it outlives its worker by
no more than an image takes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import BinaryIO, Final

from PIL import Image

from model_store.manifest import Preprocessing
from service.errors import BadImage, ImageError, ImageTooCostly
from service.images.decode import Decoder
from service.process.memory import trim
from service.settings import DecodeSettings

REQUEST: Final = struct.Struct("<BII")
"""What is wanted, and the lengths of the preprocessing (JSON) and the image, which follow."""
ANSWER: Final = struct.Struct("<BIIIIQ")
"""``OK`` or ``ERROR``; height, width, width and height of the whole image; length of what follows."""
TENSOR, WHOLE = 0, 1
OK, ERROR = 0, 1
NO_MEMORY: Final = 3
"""Exit status."""

_NICENESS: Final = 5
"""Cheap images come first where the machine is full."""
_STRIP: Final = 64
"""Rows that are sent at once: a second copy of all pixels would count, too."""


def main(settings_json: str) -> None:
    """Say that it is ready, then answer until stdin ends."""
    settings = DecodeSettings.model_validate_json(settings_json)
    decoder = Decoder(settings)
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    _bound(settings.decode_memory_bytes)
    answers.write(b"+")
    answers.flush()
    while len(head := asked.read(REQUEST.size)) == REQUEST.size:
        kind, spec_length, length = REQUEST.unpack(head)
        spec = asked.read(spec_length)
        # Processor time of this process, in C code as well; its signal ends the process.
        signal.setitimer(signal.ITIMER_PROF, settings.decode_cpu_s)
        try:
            _answer(answers, decoder, kind, spec, asked.read(length))
        except ImageError as error:
            told = json.dumps(_told(error, settings)).encode()
            answers.write(ANSWER.pack(ERROR, 0, 0, 0, 0, len(told)) + told)
        except MemoryError:  # so little is left that not even its error could be made
            os._exit(NO_MEMORY)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.flush()
        trim()  # the next image gets all of its memory


def _bound(memory_bytes: int) -> None:
    """No memory beyond what the process has now and ``memory_bytes``, no files, no core dumps."""
    Image.init()  # loads what a format needs, while it can be loaded
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # Process managers tell a worker's children, too, that the service stops; what was accepted is decoded all the same.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICENESS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _answer(answers: BinaryIO, decoder: Decoder, kind: int, spec: bytes, data: bytes) -> None:
    if kind == TENSOR:
        found = decoder.tensor(data, Preprocessing.model_validate_json(spec))
        height, width, _ = found.pixels.shape
        answers.write(ANSWER.pack(OK, height, width, *found.whole, found.pixels.nbytes))
        answers.write(found.pixels.tobytes())
        return
    image = decoder.decode(data)
    answers.write(ANSWER.pack(OK, image.height, image.width, *image.size, 3 * image.width * image.height))
    for upper in range(0, image.height, _STRIP):
        lower = min(image.height, upper + _STRIP)
        answers.write(image.crop((0, upper, image.width, lower)).tobytes())


def _told(error: ImageError, settings: DecodeSettings) -> dict[str, str]:
    cause = error.__cause__
    if isinstance(error, BadImage) and (isinstance(cause, MemoryError) or "out of memory" in str(cause)):
        error = too_much_memory(settings)
    return {"code": error.code, "message": error.message}


def too_much_memory(settings: DecodeSettings) -> ImageTooCostly:
    mebibytes = settings.decode_memory_bytes / 2**20
    return ImageTooCostly(f"the image takes more than {mebibytes:.0f} MiB of memory to decode; send it smaller")
