"""The temperature that was put into the logits is found again, and the error is the one counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.calibration.temperature import (
    HIGHEST,
    LOWEST,
    CalibrationError,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)


def sampled(n: int, classes: int = 10, seed: int = 0, spread: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn by the very probabilities that these stand for: their best temperature is 1."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, spread, (n, classes))
    # The largest of logits with Gumbel noise is drawn by softmax.
    return logits, (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)


def of_confidence(*confidences: float) -> np.ndarray:
    """Logits of two classes, the first with these probabilities."""
    p = np.array(confidences)
    return np.stack([np.log(p), np.log(1 - p)], axis=1)


# The temperature


@pytest.mark.parametrize("factor", [0.05, 0.3, 1, 2.5, 20])
def test_a_known_factor_is_found(factor: float) -> None:
    logits, targets = sampled(20_000)
    assert fit_temperature(logits * factor, targets) == pytest.approx(factor, rel=0.03)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 20), st.integers(0, 1000))
def test_scaled_logits_have_a_scaled_temperature(factor: float, seed: int) -> None:
    logits, targets = sampled(200, seed=seed)
    assert fit_temperature(logits * factor, targets) == pytest.approx(
        factor * fit_temperature(logits, targets), rel=1e-6
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 4))
def test_it_is_the_least_likelihood_and_no_answer_changes(seed: int, spread: float) -> None:
    logits, targets = sampled(300, classes=5, seed=seed, spread=spread)
    temperature = fit_temperature(logits, targets)
    best = negative_log_likelihood(logits, targets, temperature)
    for other in (0.5, 0.9, 0.99, 1.01, 1.1, 2):
        assert best <= negative_log_likelihood(logits, targets, temperature * other)
    assert np.array_equal((logits / temperature).argmax(axis=1), logits.argmax(axis=1))


def test_logits_may_be_float32_large_and_shifted() -> None:
    logits, targets = sampled(1000)
    expected = fit_temperature(logits, targets)
    assert fit_temperature((logits + 10_000).astype(np.float64), targets) == pytest.approx(expected)
    assert fit_temperature(logits.astype(np.float32), targets) == pytest.approx(expected, rel=1e-4)


def test_two_images_by_hand() -> None:
    """Two of three alike images are right: p = 2/3, so the difference of the logits over T is log 2."""
    logits = np.array([[3.0, 0.0]] * 3)
    assert fit_temperature(logits, np.array([0, 0, 1])) == pytest.approx(3 / np.log(2))


def test_a_model_that_is_always_right_tells_no_temperature() -> None:
    logits = np.eye(5)[np.arange(50) % 5] * 10
    with pytest.raises(CalibrationError, match=f"lowest bound, {LOWEST:g}: .* every image is answered rightly"):
        fit_temperature(logits, np.arange(50) % 5)


@pytest.mark.parametrize("logits", [np.eye(5)[np.arange(50) % 5] * 10, np.zeros((50, 5))])
def test_labels_of_something_else_tell_no_temperature(logits: np.ndarray) -> None:
    match = "bound"
    if logits.any():
        match = f"highest bound, {HIGHEST:g}: the logits say nothing of the labels"
    with pytest.raises(CalibrationError, match=match):
        fit_temperature(logits, (np.arange(50) + 1) % 5)


def test_the_likelihood_by_hand() -> None:
    logits = of_confidence(0.8, 0.6)
    expected = -(np.log(0.8) + np.log(0.4)) / 2
    assert negative_log_likelihood(logits, np.array([0, 1]), 1.0) == pytest.approx(expected)


# The error


def test_the_error_by_hand() -> None:
    """Two bins: (0.5, 0.75] has 0.6 and 0.7, one of them right; (0.75, 1] has 0.9 and 0.8, both right."""
    logits = of_confidence(0.6, 0.9, 0.7, 0.8)
    found = reliability(logits, np.array([0, 0, 1, 0]), 1.0, bins=4)
    assert found.counts.tolist() == [0, 0, 2, 2]
    assert found.confidence[2:] == pytest.approx([0.65, 0.85])
    assert found.accuracy[2:].tolist() == [0.5, 1.0]
    assert np.isnan(found.confidence[:2]).all()
    assert np.isnan(found.accuracy[:2]).all()
    assert found.error == pytest.approx((2 * 0.15 + 2 * 0.15) / 4)


def test_gaps_within_a_bin_cancel_and_between_bins_do_not() -> None:
    logits = of_confidence(0.9, 0.9, 0.6, 0.6)
    targets = np.array([0, 1, 0, 0])
    assert reliability(logits, targets, 1.0, bins=1).error == pytest.approx(0)
    assert reliability(logits, targets, 1.0, bins=2).error == pytest.approx(0)
    assert reliability(logits, targets, 1.0, bins=4).error == pytest.approx(0.4)


@pytest.mark.parametrize(("confidence", "number"), [(0.75, 2), (0.7500001, 3), (0.5, 1), (1 - 1e-16, 3)])
def test_a_bin_includes_its_upper_end(confidence: float, number: int) -> None:
    with np.errstate(divide="ignore"):  # log 0: as sure as can be
        found = reliability(of_confidence(confidence), np.array([0]), 1.0, bins=4)
    assert found.counts.argmax() == number


def test_the_temperature_moves_confidence_and_leaves_accuracy() -> None:
    logits, targets = sampled(5000)
    cold, right, hot = (reliability(logits, targets, t) for t in (0.3, 1, 3))
    shares = [np.nansum(found.counts * np.nan_to_num(found.accuracy)) for found in (cold, right, hot)]
    assert shares == pytest.approx([shares[0]] * 3)
    means = [float((found.counts * np.nan_to_num(found.confidence)).sum()) for found in (cold, right, hot)]
    assert means == sorted(means, reverse=True)
    assert right.error < 0.03 < min(cold.error, hot.error)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.floats(0.05, 20), st.integers(0, 100))
def test_the_error_is_a_share_of_all_images(n: int, bins: int, temperature: float, seed: int) -> None:
    logits, targets = sampled(n, classes=4, seed=seed)
    found = reliability(logits, targets, temperature, bins)
    assert found.counts.sum() == n
    assert 0 <= found.error <= 1
