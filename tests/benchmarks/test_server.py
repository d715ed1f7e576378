"""How a server is started, watched and ended; and that a program that is told to end leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from benchmarks.images import made_images
from benchmarks.server import ROOT, StartFailed, free_port, interrupted_by_sigterm, started, total

LIMIT_S = 120.0

# As TorchServe: what is started starts the server, does nothing at SIGTERM but end, and takes nobody with it.
LAUNCHER = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[3], *sys.argv[1:3]]).wait()
"""
SERVER = """
import http.server, pathlib, sys, threading
folder = pathlib.Path(sys.argv[2])
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        (folder / "asked").touch()
        threading.Event().wait()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""

# The comparison with this peer alone; its environment is that of the tests.
COMPARISON = """
import pathlib, sys
from benchmarks.peers import run
from benchmarks.peers.peer import Peer, raw
launcher, server, folder = sys.argv[1:]
run.ensure = lambda name, envs: pathlib.Path(sys.executable)
command = ("-c", launcher, "{port}", folder, server)
run.PEERS["fake"] = Peer("a fake", "none", command, "/classify", "/ready", raw)
run.main(["--ours", "", "--peers", "fake", "--images", folder + "/images", "--rounds", "1"])
"""


def until(found: Callable[[], bool], program: subprocess.Popen[str] | None = None) -> None:
    limit = time.monotonic() + LIMIT_S
    while not found():
        assert program is None or program.poll() is None, program.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.05)


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_server_is_ended_with_what_its_launcher_left(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", LAUNCHER, str(port), str(tmp_path), SERVER]
    with started(command, port, "/ready", {}) as server:
        launcher, left = (process.pid for process in server.processes())
        assert launcher == server.process.pid
        assert server.start_s > 0
    assert not lives(left)
    assert server.processes() == []


def test_a_server_that_ends_is_told_with_what_it_said() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no room')"]
    with pytest.raises(StartFailed, match="status 1: no room"), started(command, free_port(), "/ready", {}):
        pass


def test_sigterm_interrupts_while_servers_run_and_no_longer() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_a_comparison_that_is_told_to_end_ends_its_peer(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.jpg").write_bytes(made_images(64, 48, 1).bodies[0])
    program = subprocess.Popen(
        [sys.executable, "-c", COMPARISON, LAUNCHER, SERVER, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    family: list[int] = []
    try:
        until((tmp_path / "asked").exists, program)
        started_by_it = psutil.Process(program.pid).children(recursive=True)
        family = [process.pid for process in started_by_it if SERVER in process.cmdline()]
        assert len(family) == 2  # the launcher and the server
        program.send_signal(signal.SIGTERM)
        printed, _ = program.communicate(timeout=LIMIT_S)
        assert program.returncode != 0
        assert not [pid for pid in family if lives(pid)], printed
    finally:
        program.kill()
        program.communicate()
        for pid in filter(lives, family):
            psutil.Process(pid).kill()


def test_samples_are_summed_by_some_of_their_labels() -> None:
    samples = {
        ("asked", frozenset({("route", "a"), ("code", "200")})): 1.0,
        ("asked", frozenset({("route", "b"), ("code", "200")})): 2.0,
        ("asked", frozenset({("route", "b"), ("code", "429")})): 4.0,
        ("other", frozenset({("route", "a")})): 8.0,
    }
    assert total(samples, "asked") == 7
    assert total(samples, "asked", code="200") == 3
    assert total(samples, "asked", code="200", route="b") == 2
