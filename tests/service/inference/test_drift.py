"""Distances by hand, the window, and what becomes of too little or broken data."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.manifest import Manifest
from model_store.reference import BINS, FEATURES, Bins, Reference, Signals, signals
from model_store.store import ModelStore, StoreError
from model_store.stored_model import StoredModel
from model_store.verified import describe_file
from service.inference.drift import Distances, Drift, by_chance, embedding_distance, population_stability_index
from service.settings import DriftSettings
from tests.service.conftest import CLASSES, a_png, eventually, publish_tiny, serving, some_settings

Floats = npt.NDArray[np.float32]


@pytest.mark.parametrize(
    ("reference", "window", "expected"),
    [
        ([50, 50], [90, 10], 0.4 * math.log(1.8) + 0.4 * math.log(5)),
        ([500, 500], [9, 1], 0.4 * math.log(1.8) + 0.4 * math.log(5)),
        ([20, 30, 50], [20, 30, 50], 0),
        ([1, 2, 3], [10, 20, 30], 0),
        # An empty bin counts as half an image.
        ([50, 50, 0], [50, 0, 50], 2 * (0.5 - 0.005) * math.log(100)),
        ([0, 7, 0], [0, 3, 0], 0),
    ],
)
def test_the_index_by_hand(reference: Sequence[int], window: Sequence[int], expected: float) -> None:
    assert population_stability_index(reference, window) == pytest.approx(expected)


histograms = st.integers(1, 30).flatmap(
    lambda bins: st.tuples(*[st.lists(st.integers(0, 10_000), min_size=bins, max_size=bins).filter(any)] * 2)
)


@given(histograms)
def test_the_index_is_never_below_zero_and_the_same_both_ways(pair: tuple[list[int], list[int]]) -> None:
    found = population_stability_index(*pair)
    assert found >= 0
    assert math.isfinite(found)
    assert found == pytest.approx(population_stability_index(*reversed(pair)))
    assert population_stability_index(pair[0], pair[0]) == 0


def test_what_chance_makes_is_what_drawing_gives() -> None:
    generator = np.random.default_rng(0)
    shares = np.arange(1, 11) / 55
    drawn = [(generator.multinomial(2000, shares), generator.multinomial(1000, shares)) for _ in range(400)]
    mean = np.mean([population_stability_index(*pair) for pair in drawn])
    assert mean == pytest.approx(9 * (1 / 2000 + 1 / 1000), rel=0.1)
    assert by_chance(*drawn[0]) == pytest.approx(9 * (1 / 2000 + 1 / 1000))
    assert by_chance([5, 0], [3, 0]) == 0


def test_the_embedding_distance_by_hand() -> None:
    reference = np.array([[1, 2], [2, 1]], np.float32)
    assert embedding_distance(np.array([1.0, 2.0]), reference) == 0
    assert embedding_distance(np.array([5.0, 3.0]), reference) == pytest.approx(math.sqrt((4 + 1) / 2))


def test_dimensions_that_never_varied_make_no_infinity() -> None:
    dead = np.array([[0, 0], [0, 1]], np.float32)
    spread = 0.01 * math.sqrt(0.5)
    assert embedding_distance(np.array([0.1, 0.0]), dead) == pytest.approx(0.1 / spread / math.sqrt(2))
    assert embedding_distance(np.array([7.0, 7.0]), np.zeros((2, 2), np.float32)) == 0


def drawn(images: int, seed: int = 0, scale: float = 3, shift: float = 0) -> tuple[Floats, Floats]:
    """Logits ``[images, CLASSES]`` and embeddings ``[images, 3]``."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, scale, (images, CLASSES))
    return logits.astype(np.float32), generator.normal(shift, 1, (images, 3)).astype(np.float32)


def a_reference(seen: Signals, **changes: Any) -> Reference:
    often = tuple(np.argsort(-np.bincount(seen.classes, minlength=CLASSES)).tolist())
    edges = tuple(np.quantile(seen.energy, np.arange(1, BINS) / BINS).tolist())
    counts = Bins.at(often, CLASSES, edges, {"confidence": BINS, "entropy": BINS}).count(seen)
    values: dict[str, Any] = {
        "images": len(seen.classes),
        "image_source": "made up",
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "temperature": 1.0,
        "top_classes": often,
        "energy_edges": edges,
        **{feature: tuple(counts[feature].tolist()) for feature in FEATURES},
    }
    return Reference(**values | changes)


LOGITS, EMBEDDINGS = drawn(1000)
MOMENTS = np.stack([EMBEDDINGS.mean(axis=0), EMBEDDINGS.std(axis=0)])
REFERENCE = a_reference(signals(LOGITS, 1.0))


def a_drift(window: int = 1000, least: int = 200, embedding: Floats | None = MOMENTS) -> Drift:
    return Drift(REFERENCE, embedding, CLASSES, DriftSettings(drift_window=window, drift_min_images=least))


def show(drift: Drift, logits: Floats, embeddings: Floats | None, batch: int = 8) -> None:
    """``logits`` as they come: in batches, counted now and then."""
    for start in range(0, len(logits), batch):
        part = slice(start, start + batch)
        found = {"logits": logits[part]} | ({} if embeddings is None else {"embedding": embeddings[part]})
        drift.saw(found, np.ones(len(logits[part]), bool))
        if start % 56 == 0:
            drift.measure()
    drift.measure()


def test_the_reference_images_are_at_no_distance() -> None:
    drift = a_drift()
    show(drift, LOGITS, EMBEDDINGS)
    assert drift.found.images == 1000
    assert drift.found.psi == dict.fromkeys(FEATURES, 0)
    assert drift.found.embedding == pytest.approx(0, abs=1e-5)


def test_others_like_them_are_near_and_others_far() -> None:
    near, far = a_drift(), a_drift()
    show(near, *drawn(1000, seed=1))
    show(far, *drawn(1000, seed=1, scale=1, shift=0.5))
    assert near.found.psi
    assert far.found.psi
    assert max(near.found.psi.values()) < 0.05
    assert min(far.found.psi[feature] for feature in FEATURES if feature != "classes") > 0.25
    assert near.found.embedding is not None
    assert near.found.embedding < 0.15
    assert far.found.embedding == pytest.approx(0.5, abs=0.1)


def test_the_window_forgets() -> None:
    drift = a_drift(window=400)
    show(drift, *drawn(800, seed=1, scale=1, shift=5))
    assert drift.found.psi
    assert drift.found.psi["energy"] > 0.25
    show(drift, LOGITS[:440], EMBEDDINGS[:440])
    assert 400 <= drift.found.images <= 440  # to a block, and to a batch
    assert drift.found.embedding is not None
    assert drift.found.embedding < 0.3
    assert drift.found.psi["energy"] < 0.1


def test_too_little_data_tells_nothing() -> None:
    drift = a_drift(least=200)
    assert drift.measure() == Distances()
    show(drift, LOGITS[:199], EMBEDDINGS[:199])
    assert drift.found == Distances(199)
    show(drift, LOGITS[199:200], EMBEDDINGS[199:200])
    assert drift.found.psi is not None


def test_nothing_new_changes_nothing() -> None:
    drift = a_drift()
    show(drift, LOGITS[:300], EMBEDDINGS[:300])
    assert drift.measure() is drift.found


def test_what_waits_is_bounded() -> None:
    """Where nobody counts, or so many come in a second."""
    drift = a_drift(window=100, least=50)
    for start in range(0, 1000, 10):
        names = drift.wanted(("logits",))
        found = {"logits": LOGITS[start : start + 10]}
        if "embedding" in names:
            found["embedding"] = EMBEDDINGS[start : start + 10]
        drift.saw(found, np.ones(10, bool))
    assert drift.wanted(("logits",)) == ("logits",)
    assert drift.measure().images == 100
    assert drift.wanted(("logits",)) == ("logits", "embedding")


def test_values_that_are_no_numbers_are_left_out() -> None:
    drift = a_drift(least=1)
    logits = LOGITS[:3].copy()
    logits[1] = np.nan
    drift.saw({"logits": logits, "embedding": EMBEDDINGS[:3]}, np.array([True, False, True]))
    assert drift.measure().images == 2
    drift.saw({"logits": logits[1:2], "embedding": EMBEDDINGS[:1]}, np.array([False]))
    assert drift.measure().images == 2


def test_a_reference_without_embedding_asks_for_none() -> None:
    drift = a_drift(embedding=None)
    assert drift.wanted(("logits",)) == ("logits",)
    show(drift, LOGITS[:300], EMBEDDINGS[:300])  # a client asked for them
    assert drift.found.embedding is None
    assert drift.found.psi is not None


def test_outputs_that_a_request_wants_are_kept() -> None:
    assert a_drift().wanted(("logits", "cam")) == ("logits", "cam", "embedding")
    assert a_drift().wanted(("logits", "embedding", "cam")) == ("logits", "embedding", "cam")


# In a service


def publish(root: Path, embedding: bytes | None = None, dimensions: Floats = MOMENTS) -> StoredModel:
    """The tiny model with a reference of other images than it will get."""
    stored = publish_tiny(root)
    store = ModelStore(root)
    with store.staging() as staged:
        for file in stored.manifest.files:
            (staged / file.file).write_bytes(stored.path(file).read_bytes())
        path = staged / "reference.npy"
        np.save(path, dimensions)
        if embedding is not None:
            path.write_bytes(embedding)
        reference = REFERENCE.model_copy(update={"embedding": describe_file(path)})
        manifest = stored.manifest.model_copy(update={"version": "2", "reference": reference})
        return store.publish(staged, Manifest.model_validate(manifest.model_dump()))


def test_a_service_says_how_far_its_images_are(tmp_path: Path) -> None:
    publish(tmp_path)

    async def use(runtime: Any) -> None:
        with runtime.use(None, None) as pipeline:
            images = [a_png(seed) for seed in range(20)]
            results = await pipeline.run_many(images, lambda outputs: outputs.logits, math.inf)
            assert len(results) == 20
            shown = 'resnet_drift_images{model="tiny",version="2"} 20.0'
            await eventually(lambda: shown in runtime.metrics.page().decode(), "the images were counted")
            found = pipeline.drift.found
            assert found.images == 20
            assert found.psi["energy"] > 0.25
            page = runtime.metrics.page().decode()
            assert f'resnet_drift_psi{{feature="energy",model="tiny",version="2"}} {found.psi["energy"]}' in page
            assert "resnet_drift_embedding_distance{" in page

    serving(some_settings(tmp_path, drift_min_images=20), use)


@pytest.mark.parametrize("without", ["reference", "window"])
def test_no_reference_or_no_window_is_no_drift(tmp_path: Path, without: str) -> None:
    if without == "reference":
        publish_tiny(tmp_path)
    else:
        publish(tmp_path)

    async def use(runtime: Any) -> None:
        with runtime.use(None, None) as pipeline:
            assert pipeline.drift is None
            await pipeline.run(a_png(0), pipeline.top(1), math.inf)
        assert "resnet_drift_images{" not in runtime.metrics.page().decode()

    serving(some_settings(tmp_path, drift_window=1000 if without == "reference" else 0), use)


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{}, {}], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"embedding": b"rubbish"},
        lambda: {"embedding": pickled()},
        lambda: {"dimensions": np.zeros((2, 4), np.float32)},
        lambda: {"dimensions": np.zeros((2, 3), np.float64)},
        lambda: {"dimensions": np.full((2, 3), np.nan, np.float32)},
        lambda: {"dimensions": np.full((2, 3), -1, np.float32)},
        lambda: {"dimensions": np.zeros((2, 9000), np.float32)},
    ],
)
def test_a_broken_reference_is_refused(tmp_path: Path, make: Callable[[], dict[str, Any]]) -> None:
    stored = publish(tmp_path, **make())
    with pytest.raises(StoreError, match=r"reference\.npy"):
        Drift.of(stored, DriftSettings())
