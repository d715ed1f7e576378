"""Archives of ``torch.export``: the same weights as PyTorch's own loader gives, and nothing else is touched."""

from __future__ import annotations

import io
import json
import math
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from export.checkpoints.checkpoint import read_checkpoint
from export.checkpoints.fitting import load_network
from export.checkpoints.torch_export import ArchiveError, read_weights
from export.checkpoints.weight_files import CheckpointError, read_weight_file
from export.networks.resnet import ResNet
from tests.export.origin_files import torch_export_archive

Entries = dict[str, bytes]


@pytest.fixture(scope="module")
def archive(tiny: ResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torch_export_archive(tmp_path_factory.mktemp("pt2") / "net.pt2", tiny, 16)


def entries_of(archive: Path) -> Entries:
    with zipfile.ZipFile(archive) as source:
        return {name: source.read(name) for name in source.namelist()}


def packed(entries: Entries) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return target.getvalue()


CONFIG = "net/data/weights/model_weights_config.json"


def test_weights_are_those_of_pytorchs_loader(archive: Path, tiny: ResNet) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.export.load(archive).state_dict
    found = read_weight_file(archive)
    assert found.format == "torch.export"
    assert found.content.keys() == expected.keys() == tiny.state_dict().keys()
    assert all(torch.equal(found.content[key], expected[key]) for key in expected)


@pytest.mark.usefixtures("tiny_is_known")
def test_network_is_rebuilt_from_it(archive: Path, tiny: ResNet) -> None:
    checkpoint = read_checkpoint(archive)
    assert checkpoint.origin == "torch.export"
    images = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(load_network(checkpoint, "tiny")(images), tiny(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(tmp_path: Path, dtype: torch.dtype) -> None:
    net = nn.Linear(3, 2).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(net, (torch.zeros(1, 3, dtype=dtype),)), tmp_path / "a.pt2")
    content = read_weight_file(tmp_path / "a.pt2").content
    assert torch.equal(content["weight"], net.weight)
    assert content["weight"].dtype == dtype


def test_tensors_that_share_memory_and_odd_strides(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.arange(12.0).view(3, 4).t())
            self.b = self.a
            self.register_buffer("part", torch.arange(10.0)[2:8:2])
            self.register_buffer("none", torch.zeros(0, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.a + self.b.sum() + self.get_buffer("part").sum() + self.get_buffer("none").sum()

    net = Odd()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(net, (torch.zeros(1, 4),)), tmp_path / "a.pt2")
    found = read_weight_file(tmp_path / "a.pt2").content
    expected = net.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in found)
    assert {"a", "part", "none"} <= found.keys()


def test_pickles_in_the_archive_are_not_touched(archive: Path) -> None:
    entries = entries_of(archive)
    (pickle,) = (name for name in entries if "sample_inputs" in name)
    entries[pickle] = b"cos\nsystem\n(S'false'\ntR."
    assert read_weights(packed(entries)).keys() == read_weight_file(archive).content.keys()


# What is refused


def refusal(entries: Entries) -> str:
    with pytest.raises(ArchiveError) as caught:
        read_weights(packed(entries))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(archive: Path, change: Callable[[dict[str, Any]], None]) -> Entries:
    """The archive with the entry of one weight changed."""
    entries = entries_of(archive)
    table = json.loads(entries[CONFIG])
    change(table["config"]["fc.weight"])
    return entries | {CONFIG: json.dumps(table).encode()}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sizes", [{"as_int": 2**40}, {"as_int": 2**40}], "reaches beyond its bytes"),
        ("sizes", [{"as_int": 7}, {"as_int": 17}], "reaches beyond its bytes"),
        ("sizes", [{"as_int": -7}, {"as_int": -16}], "table of weights"),
        ("sizes", [{"as_expr": "s0"}, {"as_int": 16}], "table of weights"),
        ("sizes", [{"as_int": 7}], "not a plain tensor"),
        ("sizes", [{"as_int": 1}] * 9, "table of weights"),
        ("strides", [{"as_int": 0}, {"as_int": 2**40}], "reaches beyond its bytes"),
        ("storage_offset", {"as_int": 1}, "reaches beyond its bytes"),
        ("storage_offset", {"as_int": -1}, "table of weights"),
        ("dtype", 9, "not a plain tensor"),
        ("dtype", "7", "table of weights"),
        ("layout", 1, "not a plain tensor"),
    ],
)
def test_table_that_lies(archive: Path, field: str, value: object, message: str) -> None:
    assert message in refusal(changed(archive, lambda entry: entry["tensor_meta"].update({field: value})))


def test_repeated_elements_do_not_grow(archive: Path) -> None:
    """A stride of 0 makes of a few bytes as many as one likes."""
    sizes, strides = [{"as_int": 2**20}, {"as_int": 2**20}], [{"as_int": 0}, {"as_int": 0}]
    entries = changed(archive, lambda entry: entry["tensor_meta"].update(sizes=sizes, strides=strides))
    assert "reaches beyond its bytes" in refusal(entries)


@pytest.mark.parametrize("path", ["../../etc/passwd", "weight_0/../x", "/etc/passwd", "weight_", "tensor_0"])
def test_entry_elsewhere(archive: Path, path: str) -> None:
    assert "table of weights" in refusal(changed(archive, lambda entry: entry.update(path_name=path)))


def test_pickled_weight_is_not_read(archive: Path) -> None:
    assert "'fc.weight' is pickled" in refusal(changed(archive, lambda entry: entry.update(use_pickle=True)))


def test_missing_entries(archive: Path) -> None:
    entries = entries_of(archive)
    assert "before PyTorch 2.9" in refusal({k: v for k, v in entries.items() if k != CONFIG})
    assert "damaged" in refusal({k: v for k, v in entries.items() if not k.endswith("weights/weight_0")})
    assert "damaged" in refusal({k: v for k, v in entries.items() if not k.endswith("byteorder")})


def test_other_formats(archive: Path) -> None:
    entries = entries_of(archive)
    assert "unknown format" in refusal(entries | {"net/archive_format": b"pt3"})
    assert "big-endian" in refusal(entries | {"net/byteorder": b"big"})
    two = entries | {CONFIG.replace("model_", "other_"): entries[CONFIG]}
    assert "archive of 2 models" in refusal(two)


def test_table_beyond_bounds(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.checkpoints.torch_export.MAX_CONFIG_BYTES", 10)
    assert "longer than 10 bytes" in refusal(entries_of(archive))


def test_zip_bomb(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in entries_of(archive).items():
            target.writestr(name, data)
    with pytest.raises(CheckpointError, match="compressed entries"):
        read_weight_file(path)


@given(data=st.data())
def test_any_table_gives_tensors_or_one_error(archive: Path, data: st.DataObject) -> None:
    numbers = st.integers(-1, 50) | st.sampled_from([2**31, 2**40, 2**63, 2**70])
    sizes = data.draw(st.lists(st.builds(dict, as_int=numbers), max_size=4))
    strides = data.draw(st.lists(st.builds(dict, as_int=numbers), min_size=len(sizes), max_size=len(sizes)))
    meta = {"sizes": sizes, "strides": strides, "dtype": data.draw(st.integers(0, 14)), "layout": 7}
    meta["storage_offset"] = {"as_int": data.draw(numbers)}
    entries = changed(archive, lambda entry: entry["tensor_meta"].update(meta))
    try:
        found = read_weights(packed(entries))["fc.weight"]
    except ArchiveError:
        return
    assert list(found.shape) == [size["as_int"] for size in sizes]
    assert found.nbytes <= len(packed(entries))
    assert math.isfinite(float(found.double().nan_to_num().sum()))
