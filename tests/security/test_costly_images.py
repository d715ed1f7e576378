"""The program that says what costly images cost, on the quickest of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_says_cost_place_and_answer(tmp_path: Path) -> None:
    names, written = ["jpeg_exif_tags", "tiff_large_tile", "bmp_runs"], tmp_path / "costs.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.costly_images", *names, "--json", str(written)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (table,) = json.loads(written.read_text())["tables"]
    lines = {row[0]: row for row in table["rows"]}
    assert lines["jpeg_exif_tags"][4:] == ["decoded", "slot", "classified"]
    assert lines["bmp_runs"][4:] == ["decoded", "apart", "classified"]
    assert lines["tiff_large_tile"][4:] == ["bad_image", "apart", "bad_image"]
