"""Requests with every question answered, and what is told on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from export import train
from export.checkpoints.origins import Description
from export.errors import ExportError
from export.jobs import Job, Request, prepare
from export.networks.architecture import Spec, spec_fields
from export.networks.build import build
from export.networks.resnet import ResNet
from export.preprocessing import InputOptions
from model_store.store import ModelStore

from .onnx_nets import usual
from .origin_files import hugging_face_folder

pytestmark = pytest.mark.usefixtures("tiny_is_known")


@pytest.fixture
def request_(tmp_path: Path, tiny: ResNet) -> Request:
    torch.save({"state_dict": tiny.state_dict(), "epoch": 3}, tmp_path / "a.pth")
    return Request(tmp_path / "a.pth", "net", tmp_path / "store", arch="tiny")


def prepared(request: Request, console: Console) -> tuple[Job, list[str]]:
    """The job, and the notes."""
    job = prepare(request, ModelStore(request.store), console)
    lines: list[str] = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return job, [line.removeprefix("note: ") for line in lines]


def test_notes(request_: Request, console: Console) -> None:
    job, notes = prepared(request_, console)
    assert (job.version, job.arch, job.images.name) == ("1", "tiny", "seeded (seed 0)")
    assert notes == [
        "origin: pytorch",
        "in the checkpoint but not exported: epoch",
        "input: 16x16, the centre, shorter side 16, bilinear, mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225; "
        "from what is usual for the network",
        "labels: numbers, as no labels were given",
    ]


def test_notes_of_images_and_labels(
    request_: Request, console: Console, tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    (tmp_path / "labels.txt").write_text("a\na\nb\nc\nd\ne\nf\n")
    request = replace(request_, labels=tmp_path / "labels.txt", verify_images=pictures(("a", "b")))
    notes = prepared(request, console)[1]
    assert "labels of more than one class: a" in notes
    assert notes[-1].startswith("pictures: no accuracy is measured")


@pytest.mark.parametrize(
    ("options", "about", "source"),
    [
        (InputOptions(), None, "what is usual for the network"),
        (InputOptions(size=24), None, "the command and what is usual for the network"),
        (InputOptions(), Description(input=InputOptions(size=24), source="the zoo"), "the zoo"),
        (
            InputOptions(resize=30),
            Description(input=InputOptions(size=24), source="the zoo"),
            "the command and the zoo",
        ),
    ],
)
def test_who_said_how_images_are_prepared(
    request_: Request, console: Console, options: InputOptions, about: Description | None, source: str
) -> None:
    notes = prepared(replace(request_, input=options, about=about), console)[1]
    assert next(note for note in notes if note.startswith("input: ")).endswith(f"; from {source}")


@pytest.mark.parametrize(("options", "size", "resize"), [({}, 64, 64), ({"size": 96}, 96, 96), ({"crop": 0.8}, 64, 80)])
def test_trained_networks_see_what_they_were_trained_on(
    tmp_path: Path, console: Console, options: dict[str, Any], size: int, resize: int
) -> None:
    """Whole images of the network's size, whatever is usual for its stem."""
    spec = Spec("basic", (1, 1), "imagenet", "B", stem_width=8, width=8, image_size=64)
    (tmp_path / "mine.json").write_text(json.dumps(spec_fields(spec)))
    content = {"recipe": {"arch": "mine.json", "epochs": 1}, "epoch": 1, "labels": ["a", "b"], "optimizer": {}}
    torch.save(content | {"state_dict": build(spec, 2, seed=0).state_dict()}, tmp_path / "a.pth")
    arch = str(tmp_path / "mine.json")
    request = Request(tmp_path / "a.pth", "net", tmp_path / "store", arch=arch, input=InputOptions(**options))
    found = prepared(request, console)[0].preprocessing
    assert (found.height, found.resize, found.interpolation) == (size, resize, "bilinear")
    assert found.mean == train.MEAN


def test_folder_without_preprocessing_says_so(console: Console, tmp_path: Path) -> None:
    request = Request(hugging_face_folder(tmp_path / "net", preprocessor=None), "net", tmp_path / "store")
    job, notes = prepared(request, console)
    assert "input: no preprocessor_config.json in the folder" in notes
    assert job.preprocessing.resize == 256


def test_labels_of_another_network(request_: Request, console: Console) -> None:
    about = Description(architecture="tiny", labels=("a", "b"), source="the zoo")
    with pytest.raises(ExportError, match=r"a\.pth: the zoo: 2 labels, but the network has 7 classes"):
        prepared(replace(request_, about=about), console)


@pytest.mark.parametrize(("size", "height", "resize"), [(8, 8, 8), (None, 224, 256)])
def test_onnx_files_size(console: Console, tmp_path: Path, size: int | None, height: int, resize: int) -> None:
    side = size or "s"
    path = usual(input_shape=(1, 3, side, side)).save(tmp_path / "a.onnx")
    job, notes = prepared(Request(path, "net", tmp_path / "store", onnx=True), console)
    assert (job.preprocessing.height, job.preprocessing.resize, job.source.origin) == (height, resize, "onnx")
    assert notes[0] == "origin: onnx"
