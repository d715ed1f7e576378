"""Files that mean harm, and files that are no weights: each refused in one line, and nothing runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from export.checkpoints import weight_files
from export.checkpoints.weight_files import CheckpointError, read_bounded, read_weight_file
from tests.export.origin_files import safetensors_bytes, save

STATE = {"conv1.weight": torch.ones(2, 3), "fc.weight": torch.zeros(4, 2)}


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_weight_file(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".ckpt", ".bin", ".safetensors"])
def test_both_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(STATE, path)
    else:
        torch.save(STATE, path)
    file = read_weight_file(path)
    assert file.format == ("safetensors" if suffix == ".safetensors" else "pytorch")
    assert file.bytes == path.stat().st_size
    assert {key: value.tolist() for key, value in file.content.items()} == {k: v.tolist() for k, v in STATE.items()}


def test_pytorchs_older_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert read_weight_file(path).content.keys() == STATE.keys()


def test_arguments_of_a_training_script_are_data(tmp_path: Path) -> None:
    content = {"state_dict": STATE, "args": argparse.Namespace(model="resnet18", lr=0.1)}
    assert read_weight_file(save(tmp_path / "a.pth", content)).content["args"].model == "resnet18"


class _Runs:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("older", [False, True])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, older: bool) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "a.pth"
    torch.save({"state_dict": STATE, "x": _Runs(mark)}, path, _use_new_zipfile_serialization=not older)
    assert "never loaded" in refusal(path)
    assert not mark.exists()


def test_plain_pickle_does_not_run_either(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps(_Runs(mark)))
    refusal(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [nn.Linear(2, 2), {"model": nn.Linear(2, 2)}, {"when": Path("x"), "model": STATE}])
def test_whole_module_is_refused_with_the_way_out(tmp_path: Path, content: Any) -> None:
    message = refusal(save(tmp_path / "a.pth", content))
    assert 'torch.save(model.state_dict(), "weights.pth")' in message


def test_refused_module_is_named(tmp_path: Path) -> None:
    assert "(torch.nn.modules.linear.Linear)" in refusal(save(tmp_path / "a.pth", nn.Linear(2, 2)))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    message = refusal(path)
    assert "TorchScript" in message
    assert "state_dict()" in message


# Bombs


def rezipped(path: Path, compression: int) -> Path:
    """The same archive with its entries packed by ``compression``."""
    with zipfile.ZipFile(path) as source:
        entries = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in entries.items():
            target.writestr(name, data)
    return path


def test_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = rezipped(save(tmp_path / "a.pth", {"fc.weight": torch.zeros(2**20)}), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    assert "compressed" in refusal(path)


def test_entries_that_overlap_are_not_unpacked(tmp_path: Path) -> None:
    """Many names for the same bytes: https://www.bamsoftware.com/hacks/zipbomb/."""
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\0" * 1000)
        entry = archive.infolist()[0]
        archive.filelist += [_renamed(entry, f"a/data/{i}") for i in range(50)]
        archive._didModify = True  # type: ignore[attr-defined]
    assert "claim more bytes than the file has" in refusal(path)


def _renamed(entry: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    copy = zipfile.ZipInfo(name)
    copy.file_size, copy.compress_size, copy.CRC = entry.file_size, entry.compress_size, entry.CRC
    copy.header_offset = entry.header_offset
    return copy


@pytest.mark.parametrize("claimed", [2**63, 2**40, weight_files.MAX_SAFETENSORS_HEADER + 1])
def test_safetensors_header_bomb(tmp_path: Path, claimed: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes({}, length=claimed))
    assert f"its header claims {claimed} bytes" in refusal(path)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32"},
        7,
    ],
)
def test_safetensors_that_claims_what_is_not_there(tmp_path: Path, tensor: Any) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes({"fc.weight": tensor}, b"\0" * 4))
    assert "damaged" in refusal(path)


def test_nested_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes(b"[" * 100_000))
    assert "damaged" in refusal(path)


# What is no plain file


def test_longer_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "MAX_FILE_BYTES", 100)
    assert "100 are the most" in refusal(save(tmp_path / "a.pth", STATE))


def test_sparse_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert str(2**40) in refusal(path)


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.pth"
    os.mkfifo(path)
    assert "not a plain file" in refusal(path)


def test_endless_device_is_not_read() -> None:
    assert "not a plain file" in refusal(Path("/dev/zero"))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent.pth")
    assert "directory" in refusal(tmp_path)


def test_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 11)
    status = path.stat()
    shorter = os.stat_result((*status[:6], 5, *status[7:]))
    monkeypatch.setattr(Path, "stat", lambda self: shorter)
    with pytest.raises(CheckpointError, match="longer than 10"):
        read_bounded(path, 10)


# Damage


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".safetensors"])
@pytest.mark.parametrize(
    "data",
    [b"", b"hello\n", b"\x80\x02", b"PK\x03\x04", b"\xff" * 64, b"\x89PNG\r\n\x1a\n"],
    ids=["empty", "text", "pickle", "zip", "ff", "png"],
)
def test_no_checkpoint_at_all(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    assert "damaged" in refusal(path)


@given(data=st.data())
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    """Whatever is wrong with it, a file gives a mapping or one error of ours."""
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    if suffix == ".pth":
        torch.save(STATE, path)
    else:
        safetensors.torch.save_file(STATE, path)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(CheckpointError):
        assert isinstance(read_weight_file(path).content, Mapping)
