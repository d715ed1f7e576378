"""``list``: what is in a store, and what can be exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.commands.architectures import describe
from export.commands.list import list_command
from export.networks.specs import SPECS
from model_store.store import ModelStore, StoreError

from .conftest import Exported, add_bf16

PAGE = Path(__file__).parents[3] / "docs" / "architectures.md"


def test_models_with_the_served_one_marked(exported: Exported) -> None:
    status, text = exported.call(list_command, "models")
    assert status == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert [row[:2] for row in rows[2:]] == [["pets", "1"], ["pets", "2 (served)"]]
    ModelStore(exported.store).promote("pets", "1")
    assert "| 1 (served) |" in exported.call(list_command, "models")[1]


def test_variants_with_where_they_were_compared(exported: Exported) -> None:
    add_bf16(ModelStore(exported.store).resolve("pets", "1"))
    _, text = exported.call(list_command, "models")
    cells = [line.split("|")[5].strip() for line in text.splitlines()[2:]]
    assert cells == ["fp32, bf16 (openvino)", "fp32"]


def test_a_store_that_is_not_there_is_said(exported: Exported) -> None:
    with pytest.raises(StoreError, match="no such model store"):
        exported.call(list_command, "models", "--store", "nowhere", store=False)


def test_the_page_on_architectures_has_this_table(exported: Exported) -> None:
    """Made by: python -m export list architectures."""
    _, text = exported.call(list_command, "architectures")
    assert text in PAGE.read_text(encoding="utf-8")


def test_without_a_word_both_are_listed(exported: Exported) -> None:
    _, text = exported.call(list_command)
    assert "| pets " in text
    assert "| cifar_preresnet1001 " in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnext50_32x4d", "32 groups of 4"),
        ("wide_resnet50_2", "2 times as wide inside"),
        ("resnet50_v1", "stride in the 1x1"),
        ("seresnet18", "squeeze and excitation"),
        ("resnet50d", "deep stem, stride in the 3x3, average-pool shortcuts"),
        ("resnetblur50", "blur-pool"),
        ("plain18", "plain, no shortcuts"),
        ("densenet121", "growth 32, dense blocks of 6-12-24-16 layers"),
        ("cifar_highway11", "stages of 3-3-3"),
    ],
)
def test_specs_in_words(name: str, words: str) -> None:
    assert words in describe(SPECS[name])


def test_as_json(exported: Exported) -> None:
    ModelStore(exported.store).set_alias("pets", "canary", "1")
    _, text = exported.call(list_command, "--json")
    found = json.loads(text)
    assert [(one["model"], one["version"], one["names"]) for one in found["models"]] == [
        ("pets", "1", ["canary"]),
        ("pets", "2", ["served"]),
    ]
    assert found["models"][0]["variants"][0]["precision"] == "fp32"
    (resnet50,) = (one for one in found["architectures"] if one["name"] == "resnet50")
    assert resnet50 == {
        "name": "resnet50",
        "input": 224,
        "parameters": 25557032,
        "multiply_adds": resnet50["multiply_adds"],
        "embedding": 2048,
    }
    assert list(json.loads(exported.call(list_command, "models", "--json")[1])) == ["models"]
