"""The fuzzer runs, and a short run of it finds nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has wheels for x86-64 Linux alone")
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.fuzz_decode", "--seconds", "15", "--folder", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "number_of_executed_units" in done.stderr
    assert not [*folder.glob("crash-*"), *folder.glob("timeout-*"), *folder.glob("oom-*")]
