"""Every example of docs/bulk.md is run as it stands."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image, ImageEnhance

from tests.end_to_end.conftest import ROOT, picture
from tests.end_to_end.test_documents import commands

PAGE = (ROOT / "docs" / "bulk.md").read_text(encoding="utf-8")
BULK = ".venv/bin/python -m service bulk "
COMMANDS = [command for command in commands() if command.startswith(BULK)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the examples name: photos/, shards/ and images.parquet."""
    images = {f"{seed}.jpg": picture(seed) for seed in range(4)}
    (tmp_path / "photos").mkdir()
    (tmp_path / "shards").mkdir()
    for name, data in images.items():
        (tmp_path / "photos" / name).write_bytes(data)
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"{shard}.tar", "w") as archive:
            for name in list(images)[shard::2]:
                archive.add(tmp_path / "photos" / name, name)
    rows = {"image": list(images.values()), "id": list(images)}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "images.parquet")
    return tmp_path


def run(words: list[str], folder: Path) -> str:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command(command: str, folder: Path) -> None:
    run(["bash", "-c", command.replace(".venv/bin/python", sys.executable)], folder)
    output = re.search(r"--output (\S+)", command)
    assert output is not None
    rows = pyarrow.parquet.read_table(folder / output[1]).to_pylist()
    assert sorted(row["key"] for row in rows) == [f"{seed}.jpg" for seed in range(4)]
    assert not [row for row in rows if row["error"]]


def _find_alike(folder: Path) -> str:
    run([sys.executable, "-m", "service", "bulk", "photos/", "--output", "vectors.parquet", "--embed"], folder)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return run([sys.executable, "-c", example], folder)


@pytest.mark.slow
def test_alike_images_are_found(folder: Path) -> None:
    with Image.open(io.BytesIO(picture(0))) as image:
        image.save(folder / "photos" / "again.jpg", quality=60)
    found = _find_alike(folder)
    assert re.search(r"^0\.jpg is like again\.jpg: cosine distance 0\.0", found, re.MULTILINE)


@pytest.mark.slow
def test_alike_photos_are_found(folder: Path, shared: Path) -> None:
    """Real ones: a photo that was brightened and compressed anew is found again, by it alone."""
    shutil.rmtree(folder / "photos")
    with zipfile.ZipFile(shared / "data" / "photos.zip") as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg"))]
        for name in names:
            (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "photos" / name).write_bytes(archive.read(name))
    with Image.open(folder / "photos" / names[0]) as image:
        ImageEnhance.Brightness(image.convert("RGB")).enhance(1.05).save(folder / "photos" / "again.jpg", quality=70)
    pairs = re.findall(r"^(\S+) is like (\S+):", _find_alike(folder), re.MULTILINE)
    assert (names[0], "again.jpg") in pairs
    assert ("again.jpg", names[0]) in pairs
