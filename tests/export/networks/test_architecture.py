"""Specs: shapes that disagree and fields that make no sense are refused when the spec is read."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.errors import ExportError
from export.networks.architecture import (
    MAX_SPEC_BYTES,
    AnySpec,
    BlockPlan,
    Shape,
    Spec,
    parse_spec,
    read_spec,
    spec_fields,
)
from export.networks.specs import SPECS, get_spec

BASIC: dict[str, Any] = {
    "block": "basic",
    "depths": [2, 2],
    "stem": "cifar",
    "shortcut": "A",
    "stem_width": 16,
    "width": 16,
    "image_size": 32,
}


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_is_read_back_from_its_fields(name: str) -> None:
    fields = json.loads(json.dumps(spec_fields(SPECS[name])))
    assert parse_spec(fields, "x") == SPECS[name]


def test_blocks_have_shapes() -> None:
    spec = parse_spec(BASIC, "x")
    assert isinstance(spec, Spec)
    assert list(spec.blocks()) == [
        BlockPlan("layer1.0", Shape(16, 32, 32), 16, Shape(16, 32, 32), 1),
        BlockPlan("layer1.1", Shape(16, 32, 32), 16, Shape(16, 32, 32), 1),
        BlockPlan("layer2.0", Shape(16, 32, 32), 32, Shape(32, 16, 16), 2),
        BlockPlan("layer2.1", Shape(32, 16, 16), 32, Shape(32, 16, 16), 1),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stem_width": 64}, "layer1.0: the shortcut gives 64x32x32, the branch 16x32x32"),
        ({"block": "bottleneck", "stem_width": 65}, "layer1.0: the shortcut gives 65x32x32, the branch 64x32x32"),
        ({"block": "bottleneck", "groups": 3, "width": 1, "shortcut": "B"}, None),
        ({"block": "bottleneck", "group_width": 1, "shortcut": "B"}, "layer1.0: 0 inner channels cannot be 1 groups"),
        ({"groups": 2}, "groups, group_width and stride_in are for bottleneck blocks"),
        ({"depths": []}, "depths"),
        ({"depths": [0]}, "depths.0"),
        ({"depths": [10**9]}, "depths.0"),
        ({"width": 0}, "width"),
        ({"width": "16"}, "width"),
        ({"shortcut": "D"}, "shortcut"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_place(change: dict[str, Any], message: str | None) -> None:
    if message is None:
        parse_spec(BASIC | change, "mine.json")
        return
    with pytest.raises(ExportError, match=r"mine\.json") as caught:
        parse_spec(BASIC | change, "mine.json")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("densenet121", 16, "transition3: nothing is left of 1x1"),
        ("resnetblur18", 16, "layer4.0: 256x1x1 is too small"),
    ],
)
def test_an_image_size_that_leaves_nothing_is_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        parse_spec(spec_fields(SPECS[name]) | {"image_size": size}, "x")


def test_a_plain_net_and_projections_take_any_widths() -> None:
    for shortcut in ("none", "B", "C"):
        parse_spec(BASIC | {"stem_width": 64, "shortcut": shortcut}, "x")


def test_a_spec_in_a_file_is_an_architecture(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(BASIC))
    assert get_spec(str(path)) == parse_spec(BASIC, "x") == read_spec(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"null", b"{}", b" " * (MAX_SPEC_BYTES + 1)])
def test_a_file_that_is_no_spec_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"mine\.json"):
        read_spec(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No such file"):
        get_spec(str(tmp_path / "none.json"))


def test_unknown_architecture_lists_the_known() -> None:
    with pytest.raises(ExportError, match=r"unknown architecture 'resnet51'; known: resnet18"):
        get_spec("resnet51")


def test_deep_stems_and_families_share_what_they_share() -> None:
    d = SPECS["resnet50d"]
    assert isinstance(d, Spec)
    assert replace(d, stem="imagenet", pool_shortcut=False) == SPECS["resnet50"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    base=st.sampled_from([BASIC, spec_fields(SPECS["densenet121"]), spec_fields(SPECS["cifar_highway11"])]),
    data=st.data(),
)
def test_any_change_gives_a_spec_or_one_line(base: dict[str, Any], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(base)) | st.text(max_size=5))
    fields = base | {field: data.draw(_JSON)}
    spec: AnySpec | None = None
    with contextlib.suppress(ExportError):  # anything else fails the test
        spec = parse_spec(fields, "x")
    assert spec is None or spec.embedding_size > 0
