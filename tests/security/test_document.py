"""SECURITY.md says nothing that is not so: each threat has a test that is there, each setting and command too."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from service.config import fields, variable

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
_TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


def threats() -> list[list[str]]:
    (table,) = re.findall(r"^\| threat \|.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    return [row.strip("| ").split(" | ") for row in table.strip().splitlines()[2:]]


def functions_of(path: Path) -> set[str]:
    parsed = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(parsed) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", threats(), ids=lambda row: row[0][:40])
def test_each_threat_is_held_by_tests_that_are_there(row: list[str]) -> None:
    _, mitigation, held = row
    assert mitigation
    named = _TEST.findall(held)
    assert named
    assert len(named) == len(held.split(", "))
    for path, test in named:
        assert test in functions_of(ROOT / path), f"{path}::{test}"


def test_there_are_threats() -> None:
    assert len(threats()) > 20


def test_the_route_that_takes_packed_bodies_is_named_with_what_bounds_it() -> None:
    ((_, mitigation, held),) = (row for row in threats() if row[0] == "A body fills memory or disk")
    assert "gzip and deflate by `/v2/models/{name}/infer`" in mitigation
    assert "::test_a_packed_body, " in held
    api = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    (refused,) = re.findall(r"^\| 415 \| `unsupported_encoding` .*$", api, re.MULTILINE)
    assert "`POST /v2/models/{name}/infer` takes gzip and deflate" in refused


def test_settings_are_there() -> None:
    named = set(re.findall(r"RESNET_[A-Z_]+", PAGE))
    assert named
    assert named <= {variable(name) for _, name, _ in fields()}


def test_commands_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", PAGE)) <= targets


def test_no_address_is_made_up() -> None:
    assert "@" not in PAGE
    assert "://" not in PAGE
