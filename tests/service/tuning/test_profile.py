from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from model_store.store import ModelStore
from model_store.stored_model import StoredModel
from service.config import Settings
from service.tuning.applied import with_choice
from service.tuning.profile import (
    MAX_BYTES,
    Choice,
    Key,
    Profile,
    check_writable,
    find,
    load,
    one_line,
    profiles_folder,
    save,
)
from tests.service.conftest import some_settings
from tests.service.tuning.conftest import a_choice, a_key, a_profile

OTHER: dict[str, Any] = {
    "cpu": "Another Processor",
    "cores": 4,
    "int8_dot": False,
    "bf16": True,
    "gpu": "A GPU, driver 1",
    "onnxruntime": "1.30.0",
    "openvino": None,
    "pillow": "11.0",
    "resnet_serving": "0.0.9",
    "model": "tiny2",
    "version": "2",
    "sha256": {"fp32": "1" * 64},
    "fixed": {"RESNET_PROVIDER": "cpu"},
}


def test_what_is_saved_is_found(tmp_path: Path) -> None:
    profile = a_profile()
    path = save(tmp_path, profile)
    assert load(path) == profile
    assert find(tmp_path, a_key()).profile == profile
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644, "the service may run as another user"


def test_the_next_measurement_replaces_the_last_of_its_machine_alone(tmp_path: Path) -> None:
    for key in (a_key(), a_key(onnxruntime="1.32.0"), a_key(cpu="Another")):
        save(tmp_path, a_profile(key))
    assert len(list(tmp_path.iterdir())) == 2
    assert find(tmp_path, a_key(onnxruntime="1.32.0")).profile
    assert find(tmp_path, a_key(cpu="Another")).profile
    assert find(tmp_path, a_key()).profile is None


def test_no_half_of_a_profile_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = save(tmp_path, a_profile()).read_text()

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, a_profile(image_source="others"))
    (left,) = tmp_path.iterdir()
    assert left.read_text() == before


def test_every_part_of_the_key_has_another_value_here() -> None:
    assert OTHER.keys() == Key.model_fields.keys()


@pytest.mark.parametrize("name", [name for name in OTHER if name != "version"])
def test_a_profile_of_something_else_is_stale(tmp_path: Path, name: str) -> None:
    save(tmp_path, a_profile(a_key(**{name: OTHER[name]})))
    found = find(tmp_path, a_key())
    assert found.profile is None
    (line,) = found.ignored
    assert line.startswith("profile of 2026-02-03 ignored: measured ")
    if isinstance(OTHER[name], (str, int)) and not isinstance(OTHER[name], bool):
        assert str(OTHER[name]) in line
        assert str(getattr(a_key(), name) or "none") in line


def test_a_stale_profile_is_told_in_words(tmp_path: Path) -> None:
    save(tmp_path, a_profile(a_key(onnxruntime="1.30.0")))
    (line,) = find(tmp_path, a_key()).ignored
    assert line == ("profile of 2026-02-03 ignored: measured with onnxruntime 1.30.0, this is onnxruntime 1.31.0")


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ({"RESNET_PROVIDER": "cpu"}, {}, "with RESNET_PROVIDER=cpu, which is not set"),
        ({}, {"RESNET_SLOTS": "3"}, "without RESNET_SLOTS, which is 3"),
        ({"RESNET_SLOTS": "2"}, {"RESNET_SLOTS": "3"}, "with RESNET_SLOTS=2, which is 3"),
    ],
)
def test_other_settings_fixed_are_told_and_have_their_own_profile(
    tmp_path: Path, then: dict[str, str], now: dict[str, str], words: str
) -> None:
    save(tmp_path, a_profile(a_key(fixed=then)))
    found = find(tmp_path, a_key(fixed=now))
    assert found.profile is None
    assert found.ignored == (f"profile of 2026-02-03 ignored: measured {words}",)
    save(tmp_path, a_profile(a_key(fixed=now)))
    assert find(tmp_path, a_key(fixed=now)).profile
    assert find(tmp_path, a_key(fixed=then)).profile


def test_of_several_the_nearest_is_told(tmp_path: Path) -> None:
    save(tmp_path, a_profile(a_key(cpu="Far", cores=64, gpu="A GPU", pillow="10")))
    save(tmp_path, a_profile(a_key(cores=4)))
    (line,) = find(tmp_path, a_key()).ignored
    assert line.endswith("measured with 4 cores a worker, this is 2 cores a worker")


def test_profiles_of_other_versions_are_not_looked_at(tmp_path: Path) -> None:
    for version in ("2", "11"):
        save(tmp_path, a_profile(a_key(version=version)))
    assert find(tmp_path, a_key()) == find(tmp_path / "missing", a_key())
    assert find(tmp_path, a_key()).ignored == ()


def test_a_copy_under_another_versions_name_is_stale(tmp_path: Path) -> None:
    path = save(tmp_path, a_profile(a_key(version="2")))
    path.rename(tmp_path / path.name.replace("2-", "1-", 1))
    (line,) = find(tmp_path, a_key()).ignored
    assert "measured with version 2, this is version 1" in line


def changed(**changes: Any) -> Callable[[Path], None]:
    """Writes other values into a profile; ``a__b`` stands for the part ``b`` of ``a``."""

    def write(path: Path) -> None:
        content = json.loads(path.read_text())
        for name, value in changes.items():
            *parts, last = name.split("__")
            inner = content
            for part in parts:
                inner = inner[part]
            inner[last] = value
        path.write_text(json.dumps(content))

    return write


BROKEN: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_text(""),
    "no JSON": lambda path: path.write_text("{"),
    "no object": lambda path: path.write_text("[]"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "too long": lambda path: path.write_text(" " * MAX_BYTES + path.read_text()),
    "deep": lambda path: path.write_text("[" * 20_000),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a field more": changed(more=1),
    "of a later release": changed(schema_version=2),
    "an unknown provider": changed(choice__provider="magic"),
    "an unknown precision": changed(choice__precision="int4"),
    "no slots": changed(choice__slots=0),
    "too many slots": changed(choice__slots=257),
    "half a slot": changed(choice__slots=1.5),
    "slots in words": changed(choice__slots="2"),
    "too large batches": changed(choice__max_batch=257),
    "fewer than no threads": changed(choice__decode_threads=-1),
    "not a number": changed(figures__p99_ms=float("nan")),
    "endless": changed(goal_p99_ms=float("inf")),
    "a line break": changed(key__cpu="A Processor\nERROR all is lost"),
    "no hash": changed(key__sha256={"fp32": "none"}),
    "no date": changed(created="yesterday"),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_broken_profile_is_passed_over_with_a_line(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    path = save(tmp_path, a_profile())
    damage(path)
    found = find(tmp_path, a_key())
    assert found.profile is None
    (line,) = found.ignored
    assert line.startswith(f"profile {path.name} ignored: ")
    assert "\n" not in line
    assert len(line) < 400


def test_a_broken_one_does_not_hide_a_good_one(tmp_path: Path) -> None:
    (tmp_path / "1-000.json").write_text("{")
    save(tmp_path, a_profile())
    found = find(tmp_path, a_key())
    assert found.profile == a_profile()
    assert len(found.ignored) == 1


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    save(tmp_path, a_profile())
    monkeypatch.setattr(Path, "read_bytes", refused)
    assert "Permission denied" in find(tmp_path, a_key()).ignored[0]


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    save(tmp_path, a_profile())
    monkeypatch.setattr(Path, "iterdir", refused)
    found = find(tmp_path, a_key())
    assert found.profile is None
    assert found.ignored == (f"profiles ignored: {tmp_path}: Permission denied",)


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "profiles").touch()
    (line,) = find(tmp_path / "profiles", a_key()).ignored
    assert line.startswith(f"profiles ignored: {tmp_path / 'profiles'}: ")


def test_check_writable(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "profiles")
    assert not list((tmp_path / "new" / "profiles").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        check_writable(tmp_path / "file" / "profiles")


@pytest.mark.parametrize("value", [1, 256])
def test_what_a_profile_may_say_the_settings_may(value: int) -> None:
    choice = a_choice(slots=value, max_batch=value, decode_threads=value)
    inference = with_choice(Settings(), choice).inference
    assert (inference.slots, inference.max_batch) == (value, value)
    with pytest.raises(ValidationError):
        a_choice(slots=257)


def test_a_choice_is_made_of_settings() -> None:
    settings = Settings()
    assert all(hasattr(settings.inference, name) or hasattr(settings.decode, name) for name in Choice.model_fields)


def test_where_profiles_lie(tiny_stored: StoredModel, tmp_path: Path) -> None:
    root = tiny_stored.folder.parents[1]
    assert profiles_folder(some_settings(root).store, tiny_stored) == root / "tiny" / "profiles"
    assert profiles_folder(some_settings(root, profiles=tmp_path).store, tiny_stored) == tmp_path / "tiny"
    assert profiles_folder(some_settings(root, profiles="off").store, tiny_stored) is None


def test_profiles_are_no_version_of_the_model(tmp_path: Path, tiny_stored: StoredModel) -> None:
    store = tmp_path / "store"
    (store / "tiny").mkdir(parents=True)
    shutil.copytree(tiny_stored.folder, store / "tiny" / "1")
    folder = store / "tiny" / "profiles"
    check_writable(folder)
    save(folder, a_profile())
    assert ModelStore(store).names() == ["tiny"]
    assert ModelStore(store).versions("tiny") == ["1"]


def test_one_line() -> None:
    assert one_line(" a\n b\x00\x1bc  d ") == "a b c d"
    assert len(one_line("x" * 999)) == 200
    assert Profile.model_validate(a_profile(image_source=one_line("\n" * 9)).model_dump()).image_source == ""
