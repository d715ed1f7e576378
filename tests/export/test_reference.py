from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from export.images.image_sets import seeded_images
from export.parity import open_session
from export.reference import EMBEDDING_FILE, ReferenceImagesError, measure, publish, reference_of
from export.reports.model_card import CARD_FILE
from export.variants.gate import cpu_logits
from model_store.reference import FEATURES, Bins, signals
from model_store.store import ModelStore
from service.inference.drift import Drift, population_stability_index
from service.settings import DriftSettings
from tests.export import colours, uncertain
from tests.export.conftest import TINY_INPUT

QUIET = Console(file=io.StringIO())


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    colours.publish(tmp_path / "store")
    return ModelStore(tmp_path / "store")


def test_it_counts_what_the_model_says(store: ModelStore, tmp_path: Path) -> None:
    stored = store.resolve("colours")
    measured = measure(stored, uncertain.write(tmp_path / "photos", 240), QUIET)
    reference, path = measured.reference, stored.path(stored.variant("fp32"))
    pixels = np.stack(list(seeded_images(TINY_INPUT, 240, 7).read()))
    logits = cpu_logits(path)(pixels)
    assert (reference.images, reference.image_source, reference.temperature) == (240, "photos", 1.0)
    predicted = np.bincount(logits.argmax(axis=1), minlength=len(colours.LABELS))
    assert reference.classes == (*sorted(predicted.tolist(), reverse=True), 0)
    assert [predicted[one] for one in reference.top_classes] == list(reference.classes[:-1])
    assert sum(reference.confidence) == 240
    assert set(reference.energy) == {24}
    (embeddings,) = open_session(path).run(["embedding"], {"image": pixels})
    assert measured.embedding is not None
    assert measured.embedding[0] == pytest.approx(embeddings.mean(axis=0), abs=1e-5)
    assert measured.embedding[1] == pytest.approx(embeddings.std(axis=0), abs=1e-5)


def test_the_service_finds_the_same_images_at_no_distance(store: ModelStore, tmp_path: Path) -> None:
    stored = store.resolve("colours")
    published = publish(store, stored, measure(stored, uncertain.write(tmp_path / "photos", 240), QUIET))
    published.verify()
    drift = Drift.of(published, DriftSettings())
    assert drift is not None
    pixels = np.stack(list(seeded_images(TINY_INPUT, 240, 7).read()))
    logits, embeddings = open_session(published.path(published.variant("fp32"))).run(
        ["logits", "embedding"], {"image": pixels}
    )
    drift.saw({"logits": logits, "embedding": embeddings}, np.ones(240, bool))
    found = drift.measure()
    assert found.psi == dict.fromkeys(FEATURES, 0)
    assert found.embedding == pytest.approx(0, abs=1e-3)


def test_the_next_version_is_the_same_model_with_a_reference(store: ModelStore, tmp_path: Path) -> None:
    stored = store.resolve("colours")
    measured = measure(stored, uncertain.write(tmp_path / "photos", 200), QUIET)
    published = publish(store, stored, measured)
    before, after = stored.manifest, published.manifest
    assert (after.version, after.variants, after.labels) == ("2", before.variants, before.labels)
    assert after.reference
    assert after.reference.embedding
    assert after.reference.embedding.file == EMBEDDING_FILE
    assert "## Reference" in (published.folder / CARD_FILE).read_text()
    again = publish(store, published, measured)
    assert again.manifest.reference == after.reference


def test_few_images_are_refused(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(ReferenceImagesError, match="199 images; a reference needs at least 200"):
        measure(store.resolve("colours"), uncertain.write(tmp_path / "photos", 199), QUIET)


def test_of_many_classes_the_most_frequent_are_kept() -> None:
    logits = np.random.default_rng(0).normal(0, 1, (3000, 300)).astype(np.float32)
    logits[:, :50] += 1
    seen = signals(logits, 1.0)
    reference = reference_of(seen, 300, 1.0, "made up")
    counts = np.bincount(seen.classes, minlength=300)
    assert len(reference.top_classes) == 100
    assert set(range(50)) <= set(reference.top_classes)
    assert reference.classes[-1] == 3000 - counts[list(reference.top_classes)].sum() > 0
    window = Bins.of(reference, 300).count(signals(logits[::-1].copy(), 1.0))
    assert population_stability_index(reference.classes, window["classes"]) == 0
