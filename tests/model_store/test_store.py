"""A store in a folder: what is published there, and what is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.manifest import MANIFEST_FILE, Manifest, Variant
from model_store.store import EMBEDDED_MODELS, LABELS_FILE, ModelStore, StoreError
from model_store.verified import describe_file

from .manifests import a_manifest
from .stores import LABELS, entries, publish, stage


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


# Publishing


def test_what_is_published_is_found_whole(store: ModelStore) -> None:
    published = publish(store)
    found = store.resolve("tiny")
    assert found == published
    assert found.folder == store.root / "tiny" / "1"
    assert found.path(found.manifest.variants[0]).read_bytes() == b"weights"
    assert found.labels() == tuple(f"class {i}" for i in range(10))
    found.verify()


def test_nothing_temporary_is_left(store: ModelStore) -> None:
    publish(store)
    wanted = ["tiny", "tiny/1", *(f"tiny/1/{file}" for file in ("fp32.onnx", LABELS_FILE, MANIFEST_FILE))]
    assert entries(store.root) == sorted(wanted)


def test_a_published_folder_is_readable_by_others(store: ModelStore) -> None:
    """A service may run as another user than the exporter."""
    assert publish(store).folder.stat().st_mode & 0o777 == 0o755


def test_a_variant_without_parity_is_not_published(store: ModelStore) -> None:
    with store.staging() as staged:
        manifest = stage(staged)
        parity = manifest.variants[0].parity.model_copy(update={"passed": False})
        variants = [manifest.variants[0].model_copy(update={"parity": parity})]
        with pytest.raises(StoreError, match=r"fp32\.onnx: its parity"):
            store.publish(staged, manifest.model_copy(update={"variants": variants}))
    assert entries(store.root) == []


def staged_int8(folder: Path, **gate: Any) -> Manifest:
    """The model above with an int8 variant and its report beside it; ``gate`` changes what the gate says."""
    manifest = stage(folder)
    (folder / "int8.onnx").write_bytes(b"int8")
    (folder / "report.html").write_bytes(b"<html>")
    int8 = a_manifest()["variants"][1]
    int8 |= describe_file(folder / "int8.onnx").model_dump()
    int8["gate"] |= gate
    int8["report"] = describe_file(folder / "report.html").model_dump()
    variant = Variant.model_validate_json(json.dumps(int8))
    return manifest.model_copy(update={"variants": [*manifest.variants, variant]})


@pytest.mark.parametrize("gate", [{}, {"rule": "off", "passed": False}], ids=["passed", "ungated"])
def test_a_variant_that_passed_or_says_that_it_is_ungated_is_published(store: ModelStore, gate: dict[str, Any]) -> None:
    with store.staging() as staged:
        store.publish(staged, staged_int8(staged, **gate))
    found = store.resolve("tiny")
    found.verify()
    variant = found.manifest.variant("int8")
    assert variant
    assert variant.gated == (not gate)


@pytest.mark.parametrize("rule", ["accuracy", "agreement"])
def test_a_variant_that_did_not_pass_its_gate_is_not_published(store: ModelStore, rule: str) -> None:
    with store.staging() as staged:
        manifest = staged_int8(staged, rule=rule, passed=False)
        with pytest.raises(StoreError, match=rf"int8\.onnx: it did not pass the {rule} gate"):
            store.publish(staged, manifest)
    assert entries(store.root) == []


def test_a_changed_report_is_noticed(store: ModelStore) -> None:
    with store.staging() as staged:
        stored = store.publish(staged, staged_int8(staged))
    (stored.folder / "report.html").write_bytes(b"<HTML>")
    with pytest.raises(StoreError, match=r"report\.html"):
        stored.verify()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"Weights"),
        lambda path: path.write_bytes(b"weights+"),
        lambda path: path.unlink(),
        lambda path: (path.rename(path.with_suffix(".other")), path.symlink_to(path.with_suffix(".other"))),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["same size", "other size", "missing", "symlink", "folder"],
)
@pytest.mark.parametrize("file", ["fp32.onnx", LABELS_FILE])
def test_a_damaged_file_is_neither_published_nor_loaded(
    store: ModelStore, file: str, damage: Callable[[Path], object]
) -> None:
    with store.staging() as staged:
        manifest = stage(staged)
        damage(staged / file)
        with pytest.raises(StoreError, match=file):
            store.publish(staged, manifest)
    assert entries(store.root) == []
    stored = publish(store)
    damage(stored.folder / file)
    with pytest.raises(StoreError, match=file) as caught:
        stored.verify()
    assert "\n" not in str(caught.value)


def test_a_version_is_never_replaced(store: ModelStore) -> None:
    before = publish(store)
    with pytest.raises(StoreError, match="is there already"):
        publish(store, labels=LABELS.upper())
    assert store.resolve("tiny") == before
    before.verify()


def test_a_failure_between_staging_and_publishing_leaves_nothing(store: ModelStore) -> None:
    def interrupted() -> None:
        with store.staging() as staged:
            stage(staged)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert entries(store.root) == []


def test_staging_lies_on_the_stores_file_system_and_is_no_model(store: ModelStore) -> None:
    with store.staging() as staged:
        assert staged.parent == store.root
        stage(staged)
        assert store.names() == []


def test_next_version(store: ModelStore) -> None:
    assert store.next_version("tiny") == "1"
    publish(store, version="9")
    assert store.next_version("tiny") == "10"
    publish(store, version="10")
    assert store.next_version("tiny") == "11"
    assert store.next_version("other") == "1"


def test_the_version_after_the_last_possible_one_is_refused(store: ModelStore) -> None:
    publish(store, version="999999999")
    with pytest.raises(StoreError):
        store.next_version("tiny")


# Finding


def test_the_newest_version_is_the_highest_number(store: ModelStore) -> None:
    for version in ("2", "10", "9"):
        publish(store, version=version)
    assert store.versions("tiny") == ["2", "9", "10"]
    assert store.resolve("tiny").manifest.version == "10"
    assert store.resolve("tiny", "9").manifest.version == "9"


@given(versions=st.sets(st.integers(1, 99_999), min_size=1, max_size=6))
def test_versions_sort_as_numbers(tmp_path_factory: pytest.TempPathFactory, versions: set[int]) -> None:
    store = ModelStore(tmp_path_factory.mktemp("store"))
    for version in versions:
        folder = store.root / "tiny" / str(version)
        folder.mkdir(parents=True)
        (folder / MANIFEST_FILE).touch()
    assert store.versions("tiny") == [str(version) for version in sorted(versions)]
    assert store.next_version("tiny") == str(max(versions) + 1)


def test_what_is_no_model_is_passed_over(store: ModelStore) -> None:
    publish(store, "b")
    publish(store, "a")
    for folder in (".staging-x/1", "UPPER/1", "empty", "c/v1", "d/01", "e/1"):
        (store.root / folder).mkdir(parents=True)
    (store.root / "README").touch()
    (store.root / "f").touch()
    (store.root / "a" / "2").touch()
    assert store.names() == ["a", "b"]
    assert store.versions("a") == ["1"]
    assert store.versions("e") == []
    assert store.versions("f") == []


def test_a_store_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such model store"):
        ModelStore(tmp_path / "none").names()
    with pytest.raises(StoreError):
        ModelStore(tmp_path / "none").resolve("tiny")


def test_an_unknown_model_is_told_with_those_there(store: ModelStore) -> None:
    publish(store, "a")
    publish(store, "b")
    with pytest.raises(StoreError, match=r"no model 'c' .*; there: a, b"):
        store.resolve("c")
    with pytest.raises(StoreError, match=r"no version 7; there: 1"):
        store.resolve("a", "7")


@pytest.mark.parametrize("name", ["..", ".", "/", "../models", "a/../../b", "", "A", "\x00"])
def test_names_never_lead_out_of_the_store(store: ModelStore, name: str) -> None:
    publish(store)
    for use in (store.resolve, store.versions, store.next_version):
        with pytest.raises(StoreError):
            use(name)


@pytest.mark.parametrize("version", ["..", "", "0", "1/../1", "latest"])
def test_versions_never_lead_out_of_the_store(store: ModelStore, version: str) -> None:
    publish(store)
    with pytest.raises(StoreError):
        store.resolve("tiny", version)


def test_a_folder_with_another_models_manifest_is_refused(store: ModelStore) -> None:
    stored = publish(store)
    stored.folder.rename(stored.folder.with_name("2"))
    with pytest.raises(StoreError, match="the manifest is of tiny version 1"):
        store.resolve("tiny")


def test_a_broken_manifest_is_a_store_error_of_one_line(store: ModelStore) -> None:
    stored = publish(store)
    (stored.folder / MANIFEST_FILE).write_text("{}")
    with pytest.raises(StoreError, match=MANIFEST_FILE) as caught:
        store.resolve("tiny")
    assert "\n" not in str(caught.value)


# Labels


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\nb\n", ("a", "b")),
        ("a\nb", ("a", "b")),
        ("a\r\nb\r\n", ("a", "b")),
        ("Ärmel\n犬 dog\n", ("Ärmel", "犬 dog")),
        ("a\u2028b\nc\x0bd\n", ("a\u2028b", "c\x0bd")),
        ("a\n\n", ("a", "")),
        ("with, comma\nwith\ttab\n", ("with, comma", "with\ttab")),
    ],
)
def test_labels_are_lines(store: ModelStore, text: str, wanted: tuple[str, ...]) -> None:
    outputs = {"classes": 2, "embedding": 1, "cam": None}
    assert publish(store, labels=text.encode(), outputs=outputs).labels() == wanted


@pytest.mark.parametrize("labels", [LABELS + b"one more\n", LABELS[8:], b"\n" * 12, b"\xff\xfe" + LABELS])
def test_labels_that_do_not_fit_are_a_store_error(store: ModelStore, labels: bytes) -> None:
    with pytest.raises(StoreError):
        publish(store, labels=labels).labels()


def test_labels_that_are_gone_are_a_store_error(store: ModelStore) -> None:
    stored = publish(store)
    (stored.folder / LABELS_FILE).unlink()
    with pytest.raises(StoreError):
        stored.labels()


# The models that come with the service


def test_embedded_models_are_whole() -> None:
    store = ModelStore(EMBEDDED_MODELS)
    for name in store.names():
        for version in store.versions(name):
            stored = store.resolve(name, version)
            stored.verify()
            assert len(stored.labels()) == stored.manifest.outputs.classes
