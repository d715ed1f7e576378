"""Class names: strict about count, emptiness and control characters; repeated ones are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.checkpoints.labels import CIFAR10, LabelsError, default_labels, origin_labels, read_labels


@pytest.mark.parametrize("text", ["cat\ndog\n", "cat\ndog", "\ufeffcat\r\ndog\r\n", " cat \ndog\t\n"])
def test_one_name_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(text.encode())
    labels = read_labels(path, 2)
    assert labels.names == ("cat", "dog")
    assert labels.text() == "cat\ndog\n"
    assert labels.repeated == ()


def test_repeated_names_are_kept_and_known(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("crane\nmaillot\ncrane\nmaillot\n")
    labels = read_labels(path, 4)
    assert labels.names == ("crane", "maillot", "crane", "maillot")
    assert labels.repeated == ("crane", "maillot")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cat\n", "1 labels, but the network has 2 classes"),
        (b"cat\ndog\ncow\n", "3 labels, but the network has 2 classes"),
        (b"cat\n\n", "line 2 is empty"),
        (b"", "line 1 is empty"),
        (b"cat\nd\x00g\n", "line 2 holds a control character"),
        (b"cat\n\xff\n", "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_wrong_file(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "labels.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(LabelsError, match=message):
        read_labels(path, 2)


def test_defaults() -> None:
    assert default_labels(10, cifar=True).names == CIFAR10
    assert default_labels(10, cifar=False).names[:2] == ("class 0", "class 1")
    assert default_labels(3, cifar=True).names == ("class 0", "class 1", "class 2")


def test_labels_of_the_origin_must_fit_the_network() -> None:
    labels = origin_labels(("a", " b "), 2, "x.pth: config.json", "config.json")
    assert (labels.names, labels.source) == (("a", "b"), "config.json")
    with pytest.raises(LabelsError, match=r"x\.pth: config\.json: 2 labels, but the network has 3 classes"):
        origin_labels(("a", "b"), 3, "x.pth: config.json", "config.json")
    with pytest.raises(LabelsError, match="line 2 is empty"):
        origin_labels(("a", ""), 2, "x", "x")
