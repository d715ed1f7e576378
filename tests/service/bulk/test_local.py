"""The engine of one process, over the tiny model: right answers, in order, each image once, nothing half-written."""

from __future__ import annotations

import gc
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pyarrow.parquet
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.bulk import local
from service.bulk.output import Output, Run
from service.bulk.parts import BulkError
from service.bulk.planning import Asked, plan
from service.bulk.scorer import Scorer, find_model
from tests.service.conftest import TinyModel, a_picture, a_png, encode, expected, publish_tiny, some_settings, too_slow

IMAGES = 23


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(IMAGES):
        (folder / f"{seed:03d}.png").write_bytes(a_png(seed))
    (folder / "010.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def scorer(tiny_root: Path) -> Iterator[Scorer]:
    settings = some_settings(tiny_root, slots=2)
    with closing(Scorer(settings, find_model(settings, None), 3, embed=True)) as made:
        yield made


def a_run(photos: Path, **changes: Any) -> Run:
    return Run(
        inputs=(str(photos),),
        column=None,
        key_column=None,
        model="tiny",
        version="1",
        sha256="0" * 64,
        precision="fp32",
        provider="cpu",
        top_k=3,
        embed=True,
        part_images=5,
    ).model_copy(update=changes)


def begun(url: str, run: Run) -> Output:
    output = Output(url)
    output.begin(run, plan(Asked(run.inputs, run.column, run.key_column, run.part_images)))
    return output


def rows_of(url: str) -> list[dict[str, Any]]:
    files, path = fsspec.core.url_to_fs(url)
    return list(pyarrow.parquet.read_table(path, filesystem=files).to_pylist())


@pytest.mark.parametrize("place", ["folder", "memory://bulk-results"])
def test_every_image_has_its_row(place: str, photos: Path, scorer: Scorer, tiny: TinyModel, tmp_path: Path) -> None:
    url = place if "://" in place else str(tmp_path / place)
    told: list[int] = []
    run = a_run(photos)
    local.run(run, begun(url, run), scorer, lambda _, failed: told.append(failed))
    rows = rows_of(url)
    assert [row["key"] for row in rows] == [f"{seed:03d}.png" for seed in range(IMAGES)]
    assert (len(told), sum(told)) == (IMAGES, 1)
    for seed, row in enumerate(rows):
        assert row["source"] == str(photos)
        if seed == 10:
            assert (row["error"], row["label"], row["embedding"]) == ("not_an_image", None, None)
            continue
        found = [(one["label"], one["index"], one["probability"]) for one in row["predictions"]]
        for (label, index, probability), (label_, index_, probability_) in zip(
            found, expected(tiny, seed, 3), strict=True
        ):
            assert (label, index) == (label_, index_)
            assert probability == pytest.approx(probability_, abs=1e-5)
        assert (row["label"], row["width"], row["height"], row["error"]) == (found[0][0], 8, 8, None)
        pixels = np.asarray(a_picture(seed))
        assert row["embedding"] == pytest.approx(pixels.mean(axis=(0, 1)), rel=1e-5)
        assert row["energy"] == pytest.approx(math.log(np.exp(tiny.logits([pixels])[0].astype(float)).sum()), rel=1e-4)


def test_a_run_goes_on_with_what_is_missing(photos: Path, scorer: Scorer, tmp_path: Path) -> None:
    url, run = str(tmp_path / "out"), a_run(photos)
    local.run(run, begun(url, run), scorer, lambda *_: None)
    whole = rows_of(url)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    for name in ("part-00001.parquet", "part-00004.parquet"):
        (tmp_path / "out" / name).unlink()
        del kept[name]
    output = Output(url)
    assert output.begin(run, iter([])) is True
    assert output.counts() == (IMAGES, IMAGES - 5 - 3)
    told: list[int] = []
    local.run(run, output, scorer, lambda images, _: told.append(images))
    assert sum(told) == 5 + 3
    assert rows_of(url) == whole
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}.items()


def test_a_part_is_whole_or_absent(photos: Path, scorer: Scorer, tmp_path: Path) -> None:
    run = a_run(photos)
    output = begun(str(tmp_path / "out"), run)
    scored = 0

    def fail(images: int, _: int) -> None:
        nonlocal scored
        scored += images
        if scored == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.run(run, output, scorer, fail)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "_plan.parquet",
        "_run.json",
        "part-00000.parquet",
    ]
    assert len(rows_of(str(tmp_path / "out"))) == 5


class Hasty(MemoryFileSystem):
    """A store that takes what is written as a file when it is closed, or collected, as far as it came."""

    protocol = "hasty"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("hasty://"))

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return HastyFile(self, path) if mode == "wb" else super().open(path, mode, **options)


class HastyFile(io.BytesIO):
    def __init__(self, files: Hasty, path: str) -> None:
        super().__init__()
        self._files, self._path = files, path

    def discard(self) -> None:
        """As fsspec's own, which does nothing."""

    def close(self) -> None:
        if not self.closed:
            MemoryFileSystem.open(self._files, self._path, "wb", data=self.getvalue())
        super().close()


def test_a_store_that_keeps_what_is_not_finished_never_has_half_a_part(photos: Path, scorer: Scorer) -> None:
    fsspec.register_implementation("hasty", Hasty, clobber=True)
    run = a_run(photos)
    output = begun("hasty://out", run)

    def fail(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.run(run, output, scorer, fail)
    gc.collect()
    assert output.counts() == (IMAGES, 0)
    local.run(run, output, scorer, lambda *_: None)
    assert len(rows_of("hasty://out")) == IMAGES
    assert output.failed() == 1


def test_names_may_be_any_bytes(scorer: Scorer, tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"in\xff")
    source.mkdir()
    (source / os.fsdecode(b"\xfe.png")).write_bytes(a_png(1))
    run = a_run(source)
    output = begun(str(tmp_path / "out"), run)
    assert output.begin(run, iter([])) is True
    local.run(run, output, scorer, lambda *_: None)
    (row,) = rows_of(str(tmp_path / "out"))
    assert (row["key"], row["source"].endswith("in\ufffd"), row["error"]) == ("\ufffd.png", True, None)


def test_an_archive_that_became_another_is_told(scorer: Scorer, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"

    def pack(images: int) -> None:
        with zipfile.ZipFile(archive, "w") as packed:
            for number in range(images):
                packed.writestr(f"{number}.png", a_png(number))

    for images, says in ((1, "not as it was"), (0, "not as it was")):
        pack(4)
        run = a_run(archive)
        output = begun(str(tmp_path / f"out{images}"), run)
        pack(images)
        with pytest.raises(BulkError, match=says):
            local.run(run, output, scorer, lambda *_: None)
    archive.write_bytes(b"no archive any more")
    with pytest.raises(BulkError, match=f"{archive}: not as it was"):
        local.run(run, output, scorer, lambda *_: None)


def test_what_killed_writers_left_is_in_nobodys_way(photos: Path, tmp_path: Path) -> None:
    folder, run = tmp_path / "out", a_run(photos)
    folder.mkdir()
    (folder / "_plan.parquet").write_bytes(b"of a run that was killed before it began")
    left = folder / "_unfinished-_plan.parquet-0123"
    left.write_bytes(b"half")
    output = begun(str(folder), run)
    assert output.counts() == (IMAGES, 0)
    output.tidy()
    assert not left.exists()
    assert output.begin(run, iter([])) is True
    Output(str(tmp_path / "out")).tidy()  # nothing left: nothing done


def test_another_run_is_not_mixed_in(photos: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "out")
    begun(url, a_run(photos))
    with pytest.raises(BulkError, match="another run \\(version '1'"):
        begun(url, a_run(photos, version="2"))
    with pytest.raises(BulkError, match="another run \\(precision 'fp32', provider 'cpu'\\)"):
        begun(url, a_run(photos, precision="int8", provider="openvino"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.parquet").touch()
    with pytest.raises(BulkError, match="none of bulk's"):
        begun(str(tmp_path / "other"), a_run(photos))
    assert json.loads((tmp_path / "out" / "_run.json").read_bytes())["model"] == "tiny"


def test_a_plan_that_was_cut_off_is_made_anew(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_plan.parquet").write_bytes(b"half")
    assert begun(str(tmp_path / "out"), a_run(photos)).counts() == (IMAGES, 0)


def test_no_image_is_no_run(tmp_path: Path) -> None:
    """Nor one that the same command could not begin once there are images."""
    (tmp_path / "photos").mkdir()
    url = str(tmp_path / "scored")
    with pytest.raises(BulkError, match="no image in it"):
        begun(url, a_run(tmp_path / "photos"))
    (tmp_path / "photos" / "1.png").write_bytes(a_png(1))
    assert begun(url, a_run(tmp_path / "photos")).counts() == (1, 0)


def test_a_store_of_several_models_wants_a_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        publish_tiny(tmp_path, name)
    settings = some_settings(tmp_path)
    with pytest.raises(BulkError, match="--model: one, two"):
        find_model(settings, None)
    assert find_model(settings, "two@1").manifest.name == "two"


def test_a_model_without_embedding_says_so(tmp_path: Path) -> None:
    publish_tiny(tmp_path, model=TinyModel(maps=0))
    settings = some_settings(tmp_path)
    with pytest.raises(BulkError, match="no embedding"):
        Scorer(settings, find_model(settings, None), 1, embed=True)


def test_an_image_that_costs_too_much_is_its_rows_error(scorer: Scorer) -> None:
    """It is ended in its process; what is costly and still within bounds is scored as any other."""
    plain = encode(a_picture(), "JPEG")
    images = [("slow", too_slow()), ("costly", too_slow(20_000)), ("plain", plain)]
    rows = scorer.score(images, scorer.buffer())
    assert [None if row.error is None else row.error.code for row in rows] == ["image_too_costly", None, None]
    assert rows[1].predictions == rows[2].predictions
