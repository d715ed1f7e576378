"""The program that says what costly images cost, on the quickest of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_says_cost_place_and_answer() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.costly_images", "jpeg_exif_tags", "tiff_large_tile", "bmp_runs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert lines["jpeg_exif_tags"][4:] == ["decoded", "slot", "classified"]
    assert lines["bmp_runs"][4:] == ["decoded", "apart", "classified"]
    assert lines["tiff_large_tile"][4:] == ["bad_image", "apart", "bad_image"]
