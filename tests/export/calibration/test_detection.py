"""Scores of logits by hand, thresholds that keep what they promise, and the two figures of a detector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.calibration.detection import Scores, detect, reached, threshold

NUMBERS = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40).map(np.array)


def test_scores_by_hand() -> None:
    found = Scores.of(np.log(np.array([[1, 2, 3], [4, 1, 1]], np.float32)))
    assert found.energy == pytest.approx(np.log([6, 6]))
    assert found.max_logit == pytest.approx(np.log([3, 4]))


def test_large_logits_do_not_overflow() -> None:
    assert Scores.of(np.full((1, 4), 1e4, np.float32)).energy == pytest.approx([1e4 + np.log(4)])


@pytest.mark.parametrize(("coverage", "limit"), [(1.0, 0), (0.95, 5), (0.955, 4), (0.5, 50), (0.01, 99), (0.001, 99)])
def test_the_threshold_is_the_highest_that_so_many_reach(coverage: float, limit: float) -> None:
    scores = np.random.default_rng(0).permutation(100).astype(np.float64)
    assert threshold(scores, coverage) == limit


@given(NUMBERS, st.floats(0.01, 1))
def test_at_least_so_many_reach_the_threshold(scores: np.ndarray, coverage: float) -> None:
    limit = threshold(scores, coverage)
    assert reached(scores, limit) >= coverage - 1e-9
    if (higher := scores[scores > limit]).size:
        assert reached(scores, higher.min()) < coverage


@given(NUMBERS, NUMBERS)
def test_auroc_is_the_share_of_pairs_in_order(known: np.ndarray, outliers: np.ndarray) -> None:
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in known for b in outliers]
    assert detect(known, outliers, 0.0).auroc == pytest.approx(np.mean(pairs))


def test_accepted_outliers_reach_the_threshold() -> None:
    found = detect(np.array([1.0, 2, 3]), np.array([0.0, 1, 2, 3]), 2.0)
    assert found.accepted == 0.5
    assert found.auroc == pytest.approx((1.5 + 2.5 + 3.5) / 12)
