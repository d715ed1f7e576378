"""Hostile files given to the command: each refused in one line, and nothing ran, was written or filled the disk."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from export import __main__ as program
from export.images import files as images
from model_store.store import EMBEDDED_MODELS, ModelStore, StoreError
from tests.export.mistakes import the_mistake
from tests.export.onnx_nets import usual
from tests.export.origin_files import safetensors_bytes
from tests.model_store.pictures import png_without_pixels

pytestmark = pytest.mark.usefixtures("tiny_is_known")

NORMAL = ("--mean", 0, 0, 0, "--std", 1, 1, 1)


class _Payload:
    """Leaves a mark when it is unpickled, as a hostile checkpoint would."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def refused(folder: Path, *arguments: object) -> str:
    """What the command says; nothing is left but the file that was given, and no mark."""
    store = folder / "store"
    before = {path for path in folder.rglob("*") if store not in (path, *path.parents)}
    words = [str(word) for word in (*arguments, "--name", "x", "--store", store)]
    result = CliRunner().invoke(program.cli, words)
    assert (result.exit_code, result.stdout) == (2, "")
    *notes, line = (said for said in result.stderr.splitlines() if not said.startswith(("exporting ", "comparing ")))
    assert line.startswith("error: ")
    assert all(note.startswith("note: ") for note in notes)
    assert {path for path in folder.rglob("*") if store not in (path, *path.parents)} == before
    assert not [path for path in store.rglob("*") if path != store], "nothing is staged or published"
    assert not (folder / "mark").exists()
    return line


def state(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "conv1.weight": torch.zeros(8, 3, 3, 3),
        "fc.weight": torch.zeros(7, 16),
        "fc.bias": torch.zeros(7),
    } | changes


# Code


def zip_pickle(path: Path, mark: Path) -> None:
    torch.save({"state_dict": state(), "epoch": _Payload(mark)}, path)


def older_pickle(path: Path, mark: Path) -> None:
    torch.save({"state_dict": state(), "epoch": _Payload(mark)}, path, _use_new_zipfile_serialization=False)


def bare_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(_Payload(mark)))


def numpy_object(path: Path, mark: Path) -> None:
    array = np.empty(1, object)
    array[0] = _Payload(mark)
    torch.save({"state_dict": state(), "scores": array}, path)


def npy_file(path: Path, mark: Path) -> None:
    array = np.empty(1, object)
    array[0] = _Payload(mark)
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)


def persistent_id(path: Path, mark: Path) -> None:
    """PyTorch's own archive with another pickle in the place of its own."""
    torch.save(state(), path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, pickle.dumps(_Payload(mark)) if name.endswith("data.pkl") else data)


def code_archive(path: Path, mark: Path) -> None:
    """Names that lead out, beside a TorchScript archive's."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../mark", "x")
        archive.writestr(str(mark), "x")
        archive.writestr("a/constants.pkl", pickle.dumps(_Payload(mark)))
        archive.writestr("a/data.pkl", pickle.dumps(_Payload(mark)))


CODE = [zip_pickle, older_pickle, bare_pickle, numpy_object, npy_file, persistent_id, code_archive]


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".bin"])
@pytest.mark.parametrize("make", CODE, ids=lambda make: make.__name__)
def test_code_does_not_run(tmp_path: Path, make: Callable[[Path, Path], None], suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    make(path, tmp_path / "mark")
    assert str(path) in refused(tmp_path, path, "--arch", "tiny")


def test_the_payload_would_have_run(tmp_path: Path) -> None:
    """Else the tests above showed nothing."""
    pickle.loads(pickle.dumps(_Payload(tmp_path / "mark")))  # noqa: S301 - our own, to see that it works
    assert (tmp_path / "mark").exists()


# Sizes


def test_tensors_that_are_larger_than_their_file(tmp_path: Path) -> None:
    """Strides of 0 make a billion rows of one number."""
    path = tmp_path / "a.pth"
    torch.save(state(**{"fc.weight": torch.zeros(1).expand(10**9, 16), "fc.bias": torch.zeros(1).expand(10**9)}), path)
    assert path.stat().st_size < 2**16
    assert "claim more bytes than the file has" in refused(tmp_path, path, "--arch", "tiny")


def test_tensors_without_any_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(state(**{"fc.weight": torch.empty(10**9, 16, device="meta")}), path)
    refused(tmp_path, path, "--arch", "tiny")


def test_a_hundred_thousand_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(
        safetensors_bytes({f"a{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)})
    )
    refused(tmp_path, path, "--arch", "tiny")


@pytest.mark.parametrize("length", [2**63, 2**40, 0, 7])
def test_a_safetensors_header_that_lies(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(state(), path)
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refused(tmp_path, path, "--arch", "tiny")


@pytest.mark.parametrize(
    "config",
    [
        {"depths": [10**9] * 4},
        {"depths": [1] * 10_000},
        {"embedding_size": 10**12},
        {"hidden_sizes": [2**40, 2**41], "depths": [1, 1]},
        {"id2label": {"0": "a", "999999999": "b"}},
        {"id2label": {"0": ["a"] * 10}},
    ],
    ids=lambda config: str(config)[:30],
)
def test_a_config_of_giants(tmp_path: Path, config: Mapping[str, Any]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors.torch.save_file(state(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet", **config}))
    assert "config.json" in refused(tmp_path, folder)


def test_a_config_that_is_too_long(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors.torch.save_file(state(), folder / "model.safetensors")
    with (folder / "config.json").open("wb") as file:
        file.truncate(2**34)
    assert "the most that is read" in refused(tmp_path, folder)


def test_a_config_nested_a_hundred_thousand_deep(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors.torch.save_file(state(), folder / "model.safetensors")
    (folder / "config.json").write_text('{"a":' + "[" * 100_000)
    refused(tmp_path, folder)


# ONNX


def onnx_file(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd", "file:///etc/passwd", ""])
def test_onnx_weights_elsewhere(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(2**16))
    model = usual().model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    assert "outside itself, where nothing is read" in refused(tmp_path, "--onnx", onnx_file(tmp_path, model), *NORMAL)


def test_onnx_weights_of_terabytes_without_any(tmp_path: Path) -> None:
    model = usual().model()
    for tensor in model.graph.initializer:
        tensor.dims[:] = [2**40, *tensor.dims[1:]]
    refused(tmp_path, "--onnx", onnx_file(tmp_path, model), *NORMAL)


def test_onnx_batch_of_billions(tmp_path: Path) -> None:
    net = usual(input_shape=(2**31 - 1, 3, 8, 8), output_shape=(2**31 - 1, 4))
    assert "1024 are the most" in refused(tmp_path, "--onnx", onnx_file(tmp_path, net.model()), *NORMAL)


def test_onnx_tensor_that_is_made_of_nothing(tmp_path: Path) -> None:
    """256 GB of zeros, as one number says, which the result does not even show."""
    net = usual()
    scores = net.output
    net.constant("huge", [2**36])
    net.constant("axes", [0])
    net.add("ConstantOfShape", source="huge")
    net.add("ReduceSum", "axes", keepdims=1)
    net.add("Add", net.output, source=scores)
    assert "no network here needs so much" in refused(tmp_path, "--onnx", onnx_file(tmp_path, net.model()), *NORMAL)


# Images to verify on


def a_zip(path: Path, entries: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_a_zip_of_images_that_unpacks_to_too_much(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 2**20)
    bomb = a_zip(tmp_path / "bomb.zip", {"a.png": bytes(2**24)})
    assert bomb.stat().st_size < 2**16
    line = refused(tmp_path, weights, "--arch", "tiny", "--images", bomb)
    assert f"{2**24} bytes; {2**20} are the most" in line


def test_a_zip_that_lies_about_lengths(weights: Path, tmp_path: Path) -> None:
    bomb = a_zip(tmp_path / "bomb.zip", {"a.png": bytes(2**24)})
    data = bomb.read_bytes().replace(struct.pack("<L", 2**24), struct.pack("<L", 10))
    bomb.write_bytes(data)
    refused(tmp_path, weights, "--arch", "tiny", "--images", bomb)


def test_a_zip_with_names_that_lead_out(weights: Path, tmp_path: Path) -> None:
    """They are names and no paths: nothing is written or read there, and what lies there is no image."""
    a_zip(tmp_path / "a.zip", {"../mark.png": b"x", "/etc/mark.png": b"x", "..\\mark.png": b"x"})
    assert "cannot be decoded" in refused(tmp_path, weights, "--arch", "tiny", "--images", tmp_path / "a.zip")


def test_a_zip_entry_that_is_a_link(weights: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("a.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert "cannot be decoded" in refused(tmp_path, weights, "--arch", "tiny", "--images", tmp_path / "a.zip")


def test_a_zip_without_its_directory(weights: Path, tmp_path: Path) -> None:
    path = a_zip(tmp_path / "a.zip", {"a.png": b"x"})
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"XXXX"))
    assert "a damaged zip file" in refused(tmp_path, weights, "--arch", "tiny", "--images", path)


def test_an_image_of_a_billion_pixels(weights: Path, tmp_path: Path) -> None:
    path = a_zip(tmp_path / "a.zip", {"a.png": png_without_pixels(40_000)})
    assert "cannot be decoded" in refused(tmp_path, weights, "--arch", "tiny", "--images", path)


# The disk


def test_a_full_disk_is_seen_before_it_is_written_to(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=2**40, used=2**40, free=100))
    assert "are needed there, 100 are free" in refused(tmp_path, weights, "--arch", "tiny")


def test_staging_leaves_nothing_where_there_is_no_room(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    with pytest.raises(StoreError, match="are needed there"), store.staging(2**60):
        pytest.fail("there is no such disk")
    assert list(store.root.iterdir()) == []


def test_what_is_read_of_the_embedded_model_is_itself(tmp_path: Path) -> None:
    """A version that was tampered with is not built upon either."""
    store = tmp_path / "store"
    shutil.copytree(EMBEDDED_MODELS, store)
    (name,) = ModelStore(store).names()
    stored = ModelStore(store).resolve(name)
    file = stored.path(stored.variant("fp32"))
    model = onnx.load(file)
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]) + 1, model.graph.initializer[0].name)
    )
    file.write_bytes(model.SerializeToString())
    result = CliRunner().invoke(program.cli, ["reference", name, "--store", str(store), "--images", str(tmp_path)])
    assert "SHA-256" in the_mistake(result) or "bytes, the manifest says" in the_mistake(result)
