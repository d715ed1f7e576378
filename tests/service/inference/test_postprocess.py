from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from service.inference.postprocess import Prediction, energy, softmax, top_k

_LOGITS = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 50)),
    elements=st.floats(-1e4, 1e4, width=32),
)
# Few values, so that many are equal.
_PROBABILITIES = npst.arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]))


@given(_LOGITS)
def test_softmax_is_numpys_in_double_precision(logits: npt.NDArray[np.float32]) -> None:
    exact = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    exact /= exact.sum(axis=-1, keepdims=True)
    found = softmax(logits)
    assert found.dtype == np.float32
    assert found.shape == logits.shape
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-4)


@pytest.mark.parametrize("row", [[3e38, -3e38], [1000.0, 1000.0], [-1e30, -1e30], [0.0, -np.inf]])
def test_softmax_of_extreme_logits_is_finite(row: list[float]) -> None:
    with np.errstate(over="ignore"):
        found = softmax(np.array([row], np.float32))
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1)


def test_softmax_leaves_its_input_alone() -> None:
    logits = np.array([[1.0, 2.0]], np.float32)
    softmax(logits)
    assert logits.tolist() == [[1.0, 2.0]]


@given(probabilities=_PROBABILITIES, k=st.integers(1, 40))
def test_top_k_is_numpys_stable_sort(probabilities: npt.NDArray[np.float32], k: int) -> None:
    k = min(k, len(probabilities))
    labels = [f"label {i}" for i in range(len(probabilities))]
    order = np.argsort(-probabilities.astype(np.float64), kind="stable")[:k]
    assert top_k(probabilities, labels, k) == [Prediction(f"label {i}", int(i), float(probabilities[i])) for i in order]


@given(npst.arrays(np.float32, st.integers(1, 2000), elements=st.floats(0, 1, width=32)), st.integers(1, 10))
def test_top_k_of_many_classes(probabilities: npt.NDArray[np.float32], k: int) -> None:
    k = min(k, len(probabilities))
    found = top_k(probabilities, range(len(probabilities)), k)  # type: ignore[arg-type]
    assert [p.probability for p in found] == sorted(probabilities.tolist(), reverse=True)[:k]
    assert len({p.index for p in found}) == k


def test_predictions_hold_plain_numbers() -> None:
    """They go into JSON."""
    (best,) = top_k(np.array([0.25, 0.75], np.float32), ["a", "b"], 1)
    assert best == Prediction("b", 1, 0.75)
    assert (type(best.index), type(best.probability)) == (int, float)


@given(npst.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e4, 1e4, width=32)))
def test_energy_is_logsumexp(logits: npt.NDArray[np.float32]) -> None:
    exact = np.logaddexp.reduce(logits.astype(np.float64))
    assert energy(logits) == pytest.approx(exact, rel=1e-6, abs=1e-5)


def test_energy_of_extreme_logits_is_finite() -> None:
    assert energy(np.array([1e30, -1e30], np.float32)) == pytest.approx(1e30)
    assert energy(np.array([-1e30, -1e30], np.float32)) == pytest.approx(-1e30)
