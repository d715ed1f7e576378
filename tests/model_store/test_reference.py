from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from model_store.reference import FEATURES, Bins, Reference, signals

VALUES: dict[str, Any] = {
    "images": 10,
    "image_source": "photos.zip",
    "created": datetime(2026, 1, 1, tzinfo=UTC),
    "temperature": 2.0,
    "top_classes": (3, 1),
    "classes": (6, 3, 1),
    "confidence": (0, 10),
    "entropy": (10, 0),
    "energy_edges": (0.0, 1.0),
    "energy": (3, 4, 3),
}


def test_it_is_what_it_was_after_json() -> None:
    reference = Reference(**VALUES)
    assert Reference.model_validate_json(reference.model_dump_json()) == reference


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("images", 11, "classes counts 10 images of 11"),
        ("top_classes", (3, 3), "twice"),
        ("classes", (9, 1), "one for all others"),
        ("classes", (6, 5, -1), "greater than or equal"),
        ("confidence", (1, 8), "confidence counts 9 images of 10"),
        ("energy", (5, 5), "one bin more"),
        ("energy_edges", (1.0, 0.0), "rise"),
        ("energy_edges", (0.0, float("nan")), "finite"),
        ("temperature", 0.0, "greater than 0"),
        ("top_classes", tuple(range(101)), "at most 100"),
        ("photos", "a.jpg", "not permitted"),
    ],
)
def test_what_does_not_hold_together_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Reference(**VALUES | {field: value})


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_signals_are_what_their_definitions_say(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(0, 5, (40, 7)).astype(np.float32)
    wide = logits.astype(np.float64)
    probabilities = np.exp(wide / temperature) / np.exp(wide / temperature).sum(axis=1, keepdims=True)
    found = signals(logits, temperature)
    assert (found.classes == probabilities.argmax(axis=1)).all()
    assert found.confidence == pytest.approx(probabilities.max(axis=1), abs=1e-5)
    entropy = -(probabilities * np.log(probabilities)).sum(axis=1) / np.log(7)
    assert found.entropy == pytest.approx(entropy, abs=1e-5)
    assert found.energy == pytest.approx(np.log(np.exp(wide).sum(axis=1)), abs=1e-4)


def test_signals_at_the_ends() -> None:
    found = signals(np.array([[1e4, -1e4, 0], [5, 5, 5]], np.float32), 1.0)
    assert found.confidence == pytest.approx([1, 1 / 3])
    assert found.entropy == pytest.approx([0, 1])
    assert np.isfinite(found.energy).all()
    alone = signals(np.array([[3.0]], np.float32), 1.0)
    assert (alone.confidence, alone.entropy) == (1, 0)


def test_images_are_counted_in_their_bins() -> None:
    # Of probabilities 0.5 and 1 in two bins: the upper one. Energies: log 2, 0.5 and 9.
    logits = np.array([[0, 0, -99, -99], [-99, -99, 0.5, -99], [-99, -99, -99, 9]], np.float32)
    counts = Bins.of(Reference(**VALUES), 4).count(signals(logits, 1.0))
    assert {feature: counts[feature].tolist() for feature in FEATURES} == {
        "classes": [1, 0, 2],  # 3, 1, others: 0 and 2
        "confidence": [0, 3],
        "entropy": [2, 1],
        "energy": [0, 2, 1],
    }


def test_a_class_that_there_is_not_has_no_bin() -> None:
    with pytest.raises(ValueError, match="class 3 of 3"):
        Bins.of(Reference(**VALUES), 3)
