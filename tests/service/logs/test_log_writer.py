from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from service.logs.log_format import JsonFormatter
from service.logs.log_writer import Descriptor, LineQueue

ROOT = Path(__file__).parents[3]


class Stalled(logging.Handler):
    """Keeps what it is given, once the test lets it; says that it was given something."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.goes_on = threading.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.asked.set()
        assert self.goes_on.wait(60)
        self.lines.append(self.format(record))


def a_line(number: int) -> logging.LogRecord:
    return logging.LogRecord("service.x", logging.INFO, __file__, 1, "line %d", (number,), None)


def test_a_stalled_reader_holds_up_nobody_and_what_is_lost_is_counted() -> None:
    reader = Stalled()
    lines = LineQueue(reader, most=3)
    lines.setFormatter(JsonFormatter())
    lines.handle(a_line(0))
    assert reader.asked.wait(60), "the thread never took the line"
    for number in range(1, 10):  # three of them find room
        lines.handle(a_line(number))
    assert lines.dropped == 6
    reader.goes_on.set()
    lines.flush()
    lines.handle(a_line(10))
    lines.flush()
    found = [json.loads(line) for line in reader.lines]
    assert [line["message"] for line in found] == [
        "line 0", "line 1", "line 2", "line 3", "log lines were dropped", "line 10",
    ]  # fmt: skip
    assert found[4]["dropped"] == 6
    assert lines.dropped == 6


def test_a_descriptor_takes_a_line_larger_than_a_pipe() -> None:
    reads, writes = os.pipe()
    text = "x" * 300_000 + "\udcff"
    found: list[bytes] = []

    def read() -> None:
        with open(reads, "rb") as file:  # noqa: PTH123 - a descriptor, no path
            found.append(file.read())

    reader = threading.Thread(target=read)
    reader.start()
    Descriptor(writes).handle(logging.LogRecord("x", logging.INFO, __file__, 1, text, None, None))
    os.close(writes)
    reader.join()
    assert found == [b"x" * 300_000 + b"\\udcff\n"]


_PROGRAM = """
import logging, sys
from service.logs.log_format import install
install("json")
for number in range(int(sys.argv[1])):
    logging.getLogger("service.x").info("line %d", number)
"""


def test_the_last_lines_are_written_before_the_process_ends() -> None:
    command = [sys.executable, "-c", _PROGRAM, "1000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == [f"line {n}" for n in range(1000)]


def test_a_process_whose_lines_nobody_reads_ends_all_the_same() -> None:
    """Its pipe is full, and its thread in the middle of a write, for good."""
    reads, writes = os.pipe()
    try:
        done = subprocess.run([sys.executable, "-c", _PROGRAM, "4000"], cwd=ROOT, stderr=writes, timeout=120)
        assert done.returncode == 0
        assert len(os.read(reads, 2**20)) >= 2**15
    finally:
        os.close(reads)
        os.close(writes)
