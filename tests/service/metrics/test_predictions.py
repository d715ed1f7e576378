from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.reference import MOST_CLASSES
from service.metrics import Metrics
from service.metrics.definitions import CONFIDENCE
from service.metrics.predictions import OTHER, counted_as
from tests.service.metrics.test_recorder import samples

NAMES = ("cat", "dog", "ship")
OF_MODEL = (("model", "tiny"), ("version", "1"))


def predicted(page: bytes) -> dict[str, float]:
    return {
        dict(labels)["class"]: value
        for (name, labels), value in samples(page).items()
        if name == "resnet_predictions_total"
    }


def test_few_classes_have_their_labels() -> None:
    labels = [f"{index} " + "x" * 100 for index in range(MOST_CLASSES)]
    assert counted_as(labels, [1]) == [label[:64] for label in labels]


def test_of_many_classes_those_that_are_expected_have_their_labels() -> None:
    labels = [str(index) for index in range(MOST_CLASSES + 1)]
    assert set(counted_as(labels, None)) == {OTHER}
    found = counted_as(labels, [7, 100])
    assert (found[7], found[100]) == ("7", "100")
    assert found.count(OTHER) == len(labels) - 2
    assert len(set(counted_as(labels, range(len(labels))))) == MOST_CLASSES + 1


@given(st.lists(st.integers(0, 70), max_size=5), st.sampled_from([1.0, 2.5]))
def test_every_image_is_counted_once_whatever_the_batches(batches: list[int], temperature: float) -> None:
    """As counting one image after the other would."""
    metrics = Metrics(None)
    model = metrics.for_model("tiny", "1", NAMES, temperature)
    drawn = np.random.default_rng(sum(batches))
    seen = [drawn.normal(0, 3, (size, 3)).astype(np.float32) for size in batches]
    for logits in seen:
        model.predicted(logits)
    page = metrics.page()
    every = np.concatenate([*seen, np.zeros((0, 3), np.float32)])
    wanted = {name: (every.argmax(axis=1) == index).sum() for index, name in enumerate(NAMES)}
    assert predicted(page) == {name: count for name, count in wanted.items() if count}
    exponents = np.exp(every.astype(np.float64) / temperature)
    confidence = exponents.max(axis=1, initial=0) / exponents.sum(axis=1)
    found = samples(page)
    assert found["resnet_prediction_confidence_count", OF_MODEL] == len(every)
    assert found["resnet_prediction_confidence_sum", OF_MODEL] == pytest.approx(confidence.sum(), abs=1e-4)
    for bound in CONFIDENCE.buckets:
        cumulative = found["resnet_prediction_confidence_bucket", (("le", str(bound)), *OF_MODEL)]
        assert (confidence < bound - 1e-5).sum() <= cumulative <= (confidence < bound + 1e-5).sum()


def test_classes_of_one_label_are_one() -> None:
    metrics = Metrics(None)
    metrics.for_model("tiny", "1", ("crane", "crane")).predicted(np.eye(2, dtype=np.float32))
    assert predicted(metrics.page()) == {"crane": 2}


def test_a_sure_model_is_in_the_last_bucket() -> None:
    metrics = Metrics(None)
    metrics.for_model("tiny", "1", NAMES).predicted(np.array([[0, 1000, 0]], np.float32))
    found = samples(metrics.page())
    assert found["resnet_prediction_confidence_bucket", (("le", "0.999"), *OF_MODEL)] == 0
    assert found["resnet_prediction_confidence_bucket", (("le", "+Inf"), *OF_MODEL)] == 1


def test_threads_lose_no_image() -> None:
    metrics = Metrics(None)
    model = metrics.for_model("tiny", "1", NAMES)
    logits = np.eye(3, dtype=np.float32)

    def count(_: int) -> None:
        for _ in range(500):
            model.predicted(logits)
        metrics.flush()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert predicted(metrics.page()) == dict.fromkeys(NAMES, 2000)
