"""The embedded model is as sure as its manifest says: nearer to how often it is right than the network by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.calibration.detection import Scores, reached
from export.calibration.temperature import BINS, negative_log_likelihood, reliability
from export.images.files import read_images
from export.images.subsets import Source
from export.variants.gate import cpu_logits, logits_of
from model_store.manifest import Calibration
from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.stored_model import StoredModel

SAMPLE = 2000


@pytest.fixture(scope="module")
def stored() -> StoredModel:
    return ModelStore(EMBEDDED_MODELS).resolve("cifar10-resnet16")


@pytest.fixture(scope="module")
def calibration(stored: StoredModel) -> Calibration:
    assert stored.manifest.calibration is not None
    return stored.manifest.calibration


def test_its_own_figures(stored: StoredModel, calibration: Calibration) -> None:
    assert calibration.error_after < calibration.error_before / 2
    assert (calibration.images, calibration.held_out, calibration.bins) == (5000, 5000, BINS)
    assert calibration.report is not None
    page = stored.path(calibration.report).read_text()
    assert f"{100 * calibration.error_after:.2f} % after" in page
    card = (stored.folder / "README.md").read_text()
    assert f"**{calibration.error_after:.2%}** with it and {calibration.error_before:.2%} without" in card
    assert "not calibrated" not in card


def test_a_sample_of_the_images_set_apart_says_the_same(
    stored: StoredModel, calibration: Calibration, shared: Path
) -> None:
    preprocessing, labels = stored.manifest.preprocessing, stored.labels()
    source = Source.open(shared / "data" / calibration.image_source, preprocessing, labels)
    held_out = source.halves()[1]
    chosen = held_out.files[:: len(held_out.files) // SAMPLE]
    assert len(chosen) >= SAMPLE

    pixels = (file.tensor(preprocessing) for file in read_images(source.path, list(chosen)))
    logits = logits_of(pixels, cpu_logits(stored.path(stored.variant("fp32"))))
    targets = np.array([labels.index(file.split("/")[0]) for file in chosen])

    before, after = (reliability(logits, targets, t).error for t in (1.0, calibration.temperature))
    assert before == pytest.approx(calibration.error_before, abs=0.015)
    assert after == pytest.approx(calibration.error_after, abs=0.015)
    assert after < before
    likelihoods = [negative_log_likelihood(logits, targets, t) for t in (1.0, calibration.temperature)]
    assert likelihoods[1] < likelihoods[0]
    scores = Scores.of(logits)
    assert reached(scores.energy, calibration.energy) == pytest.approx(calibration.coverage, abs=0.015)
    assert reached(scores.max_logit, calibration.max_logit) == pytest.approx(calibration.coverage, abs=0.015)
