"""Every example of docs/clients.md is run as it stands, but for the port, against a running service."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from tests.end_to_end.conftest import ROOT, Server, picture
from tests.end_to_end.test_documents import commands

PAGE = (ROOT / "docs" / "clients.md").read_text()
CLIENT = ".venv/bin/python -m service client "
COMMANDS = [line for line in commands() if CLIENT in line and ".key)" not in line]  # that: test_access_document.py


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the repository's folder looks to the examples, and to be written into; with photos/."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        (tmp_path / "photos" / f"{seed}.jpg").write_bytes(picture(seed))
    return tmp_path


def run(words: Sequence[str], folder: Path, server: Server) -> str:
    """What the program prints; it may not fail."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "SERVER_URL": server.url, "BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command(server: Server, folder: Path, command: str) -> None:
    printed = run(["bash", "-c", command.replace(".venv/bin/python", sys.executable)], folder, server)
    if (saved := re.search(r"--output (\S+)", command)) is not None:
        printed += _shown(folder / saved[1])
    if "explain" in command:
        with Image.open(folder / "maps" / "ship.png") as image:
            image.load()
    assert re.search(r"ship|photos", printed)


def _shown(path: Path) -> str:
    if path.suffix == ".parquet":
        return str(pyarrow.parquet.read_table(path).to_pylist())
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) in (3, 4, 9)  # photos/, docs/images, the best three of photos/
    return json.dumps(rows)


@pytest.mark.parametrize("example", blocks("python"))
def test_an_example_in_python(server: Server, folder: Path, example: str) -> None:
    printed = run([sys.executable, "-c", example.replace("http://localhost:3000", server.url)], folder, server)
    assert "ship" in printed


@pytest.mark.parametrize("example", blocks("js"))
def test_an_example_in_javascript(server: Server, folder: Path, example: str) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    words = ["node", "--input-type=module", "-e", example.replace("http://localhost:3000", server.url)]
    assert run(words, folder, server).split() == ["ship", "ship", "not_an_image"]


def test_there_are_examples() -> None:
    assert (len(COMMANDS), len(blocks("python")), len(blocks("js"))) == (6, 4, 1)
