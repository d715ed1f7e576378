from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lanes import lane, pytest_collection_modifyitems


@pytest.mark.parametrize(
    ("path", "fixtures", "found"),
    [
        ("tests/service/batching/test_gate.py", (), "unit"),
        ("tests/service/images/test_decode.py", ("shared",), "shared data"),
        ("tests/end_to_end/test_classify.py", ("server",), "end to end"),
        ("tests/end_to_end/test_accuracy.py", ("serve", "shared"), "shared data"),
        ("tests/end_to_end/test_page_with_keys.py", (), "browser"),
        ("tests/end_to_end/test_export_documents.py", ("shared",), "documents"),
        ("tests/security/test_images.py", (), "security"),
        ("tests/gpu/test_sessions.py", (), "gpu"),
        ("tests/container/test_image.py", ("shared",), "container"),
    ],
)
def test_lanes_are_told_by_path_and_data(path: str, fixtures: tuple[str, ...], found: str) -> None:
    assert lane(path, fixtures) == found


def test_the_longest_tests_begin_first() -> None:
    marks = {"a": pytest.mark.slow, "b": pytest.mark.slow(first=True), "c": pytest.mark.reliability}
    items = [Item(name, mark.mark) for name, mark in marks.items()]
    pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    assert [item.nodeid for item in items] == ["b", "a", "c"]


@pytest.mark.parametrize("mark", ["reliability", "container"])
def test_make_looks_for_marked_tests_where_they_are(mark: str) -> None:
    """It names folders, as looking through all others takes longer than some lanes."""
    found = re.search(rf"\$\(PYTEST\) (.+) -m {mark} ", Path("Makefile").read_text())
    assert found
    folders = [Path(folder) for folder in found[1].split()]
    others = (path for path in Path("tests").rglob("*.py") if path.name != Path(__file__).name)
    marked = [path for path in others if f"pytest.mark.{mark}" in path.read_text()]
    assert marked
    assert [path for path in marked if not any(path.is_relative_to(folder) for folder in folders)] == []


@dataclass
class Item:
    """As much of ``pytest.Item`` as is asked for."""

    nodeid: str
    mark: pytest.Mark
    user_properties: list[tuple[str, object]] = field(default_factory=list)

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [self.mark] if self.mark.name == name else []
