"""Ctrl-C and SIGTERM, in a process of its own: what is sent then is not waited for."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
ANSWER = json.dumps({"model": {"name": "m", "version": "1"}, "results": [{"predictions": []}]})


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly(how: signal.Signals, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    output = tmp_path / "out.json"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        words = ["predict", str(tmp_path), "--url", url, "--output", str(output), "--concurrency", "1"]
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "client", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            _read_request(stream)
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n"
            stream.write((head + ANSWER).encode())
            stream.flush()
            # The second image is under way and will never be answered.
            _read_request(stream)
            process.send_signal(how)
            _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert told.splitlines()[-1] == "error: interrupted; what was written is whole"
    assert [Path(one["file"]).name for one in json.loads(output.read_text())] == ["a.jpg"]


def _read_request(stream) -> None:  # type: ignore[no-untyped-def]
    length = 0
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    stream.read(length)
