"""``python -m service bulk`` as people call it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.service.conftest import a_png, publish_tiny

ROOT = Path(__file__).parents[3]
IMAGES = 3000
PART = 100


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "service", "bulk", *map(str, arguments)]


def environment(store: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RESNET_")}
    return {**clean, "RESNET_MODEL_STORE": str(store), "RESNET_PROVIDER": "cpu"}


def bulk(store: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment(store), capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    publish_tiny(root)
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(5):
        (folder / f"{seed}.png").write_bytes(a_png(seed))
    return folder


def test_a_folder_becomes_a_table(store: Path, photos: Path, tmp_path: Path) -> None:
    done = bulk(store, photos, "--output", tmp_path / "out.parquet", "--top-k", 2)
    assert done.returncode == 0, done.stderr
    assert "5 images in " in done.stderr
    assert done.stdout == ""
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["key"] for row in rows] == [f"{seed}.png" for seed in range(5)]
    assert all(len(row["predictions"]) == 2 for row in rows)


def test_bad_images_are_counted_and_the_status_says_so(store: Path, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"none")
    done = bulk(store, photos, bad, tmp_path / "*.png", "--output", tmp_path / "out.parquet", "--json")
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["images"], summary["failed"], summary["done_before"]) == (7, 2, 0)
    again = bulk(store, photos, bad, tmp_path / "*.png", "--output", tmp_path / "out.parquet", "--json")
    assert again.returncode == 1, "the output has them still"
    summary = json.loads(again.stdout)
    assert (summary["images"], summary["failed"], summary["done_before"]) == (0, 2, 7)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "--output", "{out}"], "nowhere: no such file or folder"),
        (["{photos}", "--output", "{photos}"], "none of bulk's"),
        (["{photos}", "--output", "{out}", "--model", "none"], "no model 'none'"),
        (["{photos}", "--output", "{out}", "--engine", "ray", "--ray-address", "nothing"], "--ray-address"),
        (["{photos}"], "--output"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], said: str, store: Path, photos: Path, tmp_path: Path) -> None:
    filled = [argument.format(photos=photos, out=tmp_path / "out") for argument in arguments]
    done = bulk(store, *filled)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def a_tar(path: Path) -> Path:
    png = a_png()
    with tarfile.open(path, "w") as archive:
        for number in range(IMAGES):
            entry = tarfile.TarInfo(f"{number:05d}.png")
            entry.size = len(png)
            archive.addfile(entry, io.BytesIO(png))
    return path


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_without_doing_anything_twice(how: signal.Signals, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    arguments = (a_tar(tmp_path / "images.tar"), "--output", out, "--part-images", PART, "--json")
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, env=environment(store), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (out / "part-00001.parquet").exists():
        assert process.poll() is None, process.communicate()[1]
        threading.Event().wait(0.001)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    if how == signal.SIGTERM:
        assert process.returncode == 130
        assert "goes on with what is missing" in errors
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    if len(before) == IMAGES // PART:
        pytest.fail("the run was over before it could be killed")
    (out / "_unfinished-part-00002.parquet-0123").write_bytes(b"what a killed one leaves, as chance has it")
    done = bulk(store, *arguments)
    assert done.returncode == 0, done.stderr
    assert not list(out.glob("_unfinished-*"))
    assert json.loads(done.stdout)["images"] == IMAGES - PART * len(before)
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}.items()
    keys = pyarrow.parquet.read_table(out)["key"].to_pylist()
    assert keys == [f"{number:05d}.png" for number in range(IMAGES)]
    again = bulk(store, *arguments)
    assert json.loads(again.stdout)["images"] == 0
