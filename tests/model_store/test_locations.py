"""Where a store may be, and where its mirror is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from model_store.locations import mirror_folder, open_store, parse_location
from model_store.store import StoreError


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("models", Path("models")),
        ("/srv/models", Path("/srv/models")),
        ("file:///srv/my%20models", Path("/srv/my models")),
        ("file://localhost/srv", Path("/srv")),
        ("s3://bucket/models/", "s3://bucket/models"),
    ],
)
def test_locations(text: str, place: Path | str) -> None:
    assert parse_location(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "https://me:secret@host/models",
        "https://host/models?sig=secret",
        "s3://",
        "file://host/srv",
        "zip::s3://b/x.zip",
    ],
)
def test_locations_that_are_refused(text: str) -> None:
    with pytest.raises(StoreError, match="the model store: ") as refused:
        open_store(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("az", "adlfs")])
def test_what_is_not_installed_is_named(
    scheme: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StoreError, match=f"not installed: pip install {package}$"):
        open_store(f"{scheme}://bucket/models", tmp_path)


def test_a_protocol_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Protocol not known: gopher"):
        open_store("gopher://host/models", tmp_path)


def test_each_url_has_a_mirror_of_its_own(tmp_path: Path) -> None:
    folders = {mirror_folder(f"s3://bucket/{name}", tmp_path) for name in ("a", "b")}
    assert len(folders) == 2
    assert all(folder.parent == tmp_path for folder in folders)
