from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model_store.staging import STAGING_PREFIX, STALE_S, staging_folder

PROGRAM = """
import sys, time
from pathlib import Path
from model_store.staging import staging_folder

with staging_folder(Path(sys.argv[1])) as folder:
    (folder / "half.onnx").write_bytes(b"half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def make_old(folder: Path) -> None:
    past = time.time() - STALE_S - 60
    os.utime(folder, (past, past))


def exports(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with exports(tmp_path) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        make_old(left)
        with staging_folder(tmp_path) as mine:
            assert left.is_dir(), "its process lives, however long it takes"
            assert mine.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert left.is_dir()
        with staging_folder(tmp_path):
            assert not left.exists()
    assert list(tmp_path.iterdir()) == []


def test_young_ones_and_those_of_others_are_left(tmp_path: Path) -> None:
    young = tmp_path / f"{STAGING_PREFIX}young"
    young.mkdir()
    theirs = tmp_path / "model"
    theirs.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / f"{STAGING_PREFIX}link"
    link.symlink_to(elsewhere)
    for folder in (theirs, elsewhere):
        make_old(folder)
    with staging_folder(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {young.name, "model", "elsewhere", link.name}


def test_without_locks_nothing_is_removed_and_all_else_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    old = tmp_path / f"{STAGING_PREFIX}old"
    old.mkdir()
    make_old(old)
    with staging_folder(tmp_path) as folder:
        (folder / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == [old.name]
