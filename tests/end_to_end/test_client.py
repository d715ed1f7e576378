"""The client's command line against the real service."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from service.client import Client, Options, Refused
from tests.end_to_end.conftest import ROOT, Reference, Server, free_port, picture

FORMATS = ("csv", "json", "ndjson", "parquet", "txt")


def client(server: Server | str, *words: str, data: bytes | None = None) -> subprocess.CompletedProcess[str]:
    url = server if isinstance(server, str) else server.url
    done = subprocess.run(
        [sys.executable, "-m", "service", "client", words[0], "--url", url, *words[1:]],
        cwd=ROOT,
        input=data,
        capture_output=True,
        timeout=300,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images in a folder and one below it, and one that is none."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for i in range(20):
        (folder / ("more" if i % 3 == 0 else ".") / f"{i:02}.jpg").write_bytes(picture(i))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def named(path: str) -> bytes:
    return picture(int(Path(path).stem))


def records(path: Path) -> list[dict[str, str]]:
    """File, label and error of every row, whatever the format."""
    match path.suffix:
        case ".csv":
            rows = list(csv.DictReader(io.StringIO(path.read_text())))
        case ".json" | ".ndjson":
            lines = path.read_text()
            found = json.loads(lines) if path.suffix == ".json" else [json.loads(line) for line in lines.splitlines()]
            rows = [
                {
                    "file": one["file"],
                    "label": one["predictions"][0]["label"] if "predictions" in one else "",
                    "error": one["error"]["code"] if "error" in one else "",
                }
                for one in found
            ]
        case ".parquet":
            rows = pyarrow.parquet.read_table(path).to_pylist()
        case _:
            cells = [line.split() for line in path.read_text().splitlines()[1:]]
            rows = [{"file": file, "label": rest[1], "error": ""} for file, *rest in cells if rest[0] == "1"]
            rows += [{"file": file, "label": "", "error": rest[0]} for file, *rest in cells if rest[0] != "1"]
    return [{name: row[name] or "" for name in ("file", "label", "error")} for row in rows]


@pytest.mark.parametrize("suffix", FORMATS)
def test_predict(server: Server, reference: Reference, photos: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out.{suffix}"
    done = client(server, "predict", str(photos), "--output", str(output))
    assert done.returncode == 1
    assert done.stderr == "1 of 21 images failed: not_an_image 1\n"
    rows = records(output)
    wanted = sorted(photos.glob("*.*")) + sorted(photos.glob("more/*"))
    broken = str(photos / "broken.png")
    if suffix == "txt":  # the table's rows were sorted when they were read
        wanted = [path for path in wanted if path.name != "broken.png"] + [Path(broken)]
    assert [row["file"] for row in rows] == [str(path) for path in wanted]
    for row in rows:
        if row["file"] == broken:
            assert row["error"].startswith("not_an_image")
        else:
            probabilities = reference.probabilities(named(row["file"]))
            assert probabilities[row["label"]] == pytest.approx(max(probabilities.values()), abs=1e-4)


@pytest.mark.parametrize("words", [("--batch", "8"), ("--concurrency", "1"), ("--batch", "100", "--concurrency", "2")])
def test_requests_of_any_size_have_the_same_results(server: Server, photos: Path, words: tuple[str, ...]) -> None:
    """A batch of 100 is more than a request takes, and is halved."""
    one_by_one = client(server, "predict", *[str(photos)] * 5, "--top-k", "3", "--format", "ndjson")
    together = client(server, "predict", *[str(photos)] * 5, "--top-k", "3", "--format", "ndjson", *words)
    assert together.returncode == one_by_one.returncode == 1
    for left, right in zip(one_by_one.stdout.splitlines(), together.stdout.splitlines(), strict=True):
        first, second = json.loads(left), json.loads(right)
        assert first["file"] == second["file"]
        if "error" in first:
            assert first["error"] == second["error"]
            continue
        labels = [[prediction["label"] for prediction in one["predictions"]] for one in (first, second)]
        assert len(labels[0]) == 3
        assert labels[0] == labels[1]


def test_standard_input(server: Server, reference: Reference) -> None:
    done = client(server, "predict", "-", "--format", "ndjson", "--top-k", "5", data=picture(3))
    assert done.returncode == 0
    reference.check(json.loads(done.stdout)["predictions"], picture(3))


def test_embed(server: Server, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "vectors.parquet"
    done = client(server, "embed", str(photos), "--output", str(output), "--batch", "4", "--normalize")
    assert done.returncode == 1
    table = pyarrow.parquet.read_table(output)
    assert str(table.schema.field("embedding").type) == "list<element: float>"
    good = [row for row in table.to_pylist() if row["error"] is None]
    assert len(good) == 20
    for row in good:
        assert row["dimensions"] == len(row["embedding"])
        assert sum(value * value for value in row["embedding"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("style", ["overlay", "heatmap"])
def test_explain(server: Server, photos: Path, tmp_path: Path, style: str) -> None:
    folder = tmp_path / "maps"
    done = client(server, "explain", str(photos), "--save", str(folder), "--style", style, "--opacity", "0.4")
    assert done.returncode == 1
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    good = [row for row in rows if not row["error"]]
    assert len(good) == 20
    for row in good:
        source = Path(row["file"])
        assert Path(row["saved"]) == folder / source.relative_to(photos).with_suffix(".png")
        with Image.open(row["saved"]) as image:
            image.load()
            assert (image.format, image.size) == ("PNG", (320, 240))


def test_a_class_that_there_is_not(server: Server, photos: Path) -> None:
    done = client(server, "explain", str(photos / "01.jpg"), "--class", "zebra")
    assert done.returncode == 2
    assert "zebra" in done.stderr


def test_no_such_model_or_option(server: Server, photos: Path) -> None:
    for words in (["--model", "none"], ["--version", "99"], ["--top-k", "11"]):
        done = client(server, "predict", str(photos), *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1


def test_no_service(photos: Path) -> None:
    done = client(f"http://127.0.0.1:{free_port()}", "predict", str(photos), "--retries", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no connection" in done.stderr


def test_a_full_service_is_waited_for(serve: Callable[..., AbstractContextManager[Server]], photos: Path) -> None:
    """A queue for one image and eight at once: every image gets its answer in the end."""
    with serve(RESNET_MAX_QUEUE="1", RESNET_PRECISION="fp32") as full:
        done = client(full, "predict", str(photos), "--concurrency", "8", "--retries", "10", "--format", "ndjson")
        assert done.stderr.endswith("1 of 21 images failed: not_an_image 1\n")
        assert len(done.stdout.splitlines()) == 21


def test_a_terminal_gets_a_table_and_a_bar(server: Server, photos: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    words = [sys.executable, "-m", "service", "client", "predict", str(photos / "01.jpg"), "--url", server.url]
    environ = os.environ | {"TERM": "xterm"}
    process = subprocess.Popen(words, cwd=ROOT, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how a terminal's end looks
        while chunk := os.read(ours, 4096):
            shown += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0
    lines = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode().replace("\r", "\n").splitlines()
    (header,) = (line for line in lines if line.startswith("file "))
    (row,) = (line for line in lines if line.startswith(str(photos)[:20]))
    assert header.split()[:4] == ["file", "rank", "label", "probability"]  # then "error", where there is room
    assert row.split()[1] == "1"
    assert any("1/1" in line for line in lines)


def test_the_library(server: Server, reference: Reference) -> None:
    with Client(server.url) as opened:
        results = opened.classify([picture(1), b"no image", picture(2)], top_k=3)
        assert results[1].error
        assert results[1].error.code == "not_an_image"
        for result, seed in zip(results[::2], (1, 2), strict=True):
            reference.check([best.model_dump() for best in result.predictions or []], picture(seed))
        (embedding,) = opened.embed([picture(1)])
        heatmap = opened.explain(picture(1)).heatmap
        assert embedding.embedding
        assert heatmap
        cells = [value for row in heatmap.grid for value in row]
        assert sum(cells) / len(cells) + heatmap.bias == pytest.approx(heatmap.logit, abs=1e-3)
        with Image.open(io.BytesIO(opened.explain_png(picture(1), class_=heatmap.label))) as image:
            assert image.size == (320, 240)
    with Client(server.url, Options(model="none")) as opened, pytest.raises(Refused, match="unknown_model"):
        opened.classify([picture(1)])
