"""A session that is opened as asked, or not at all, and keeps no copy of its file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from model_store.onnx_session import open_onnx
from tests.service.conftest import publish_tiny

CPU = ["CPUExecutionProvider"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    stored = publish_tiny(tmp_path)
    return stored.path(stored.manifest.variants[0])


def test_a_file_and_its_content_are_the_same(file: Path) -> None:
    images = np.full((2, 8, 8, 3), 9, np.uint8)
    logits = [
        open_onnx(model, ort.SessionOptions(), CPU).run(["logits"], {"image": images})[0]
        for model in (file, file.read_bytes())
    ]
    assert np.array_equal(*logits)


def test_the_content_is_let_go(file: Path) -> None:
    content = file.read_bytes()
    before = sys.getrefcount(content)
    session = open_onnx(content, ort.SessionOptions(), CPU)
    assert sys.getrefcount(content) == before
    assert session.get_inputs()[0].name == "image"


def test_what_is_no_model_is_said_once_and_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)protobuf"):
        open_onnx(b"no model", ort.SessionOptions(), CPU)
    assert not capsys.readouterr().out
