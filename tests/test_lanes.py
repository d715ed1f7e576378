from __future__ import annotations

import pytest

from tests.lanes import lane


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
