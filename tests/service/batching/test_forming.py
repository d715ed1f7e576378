from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.forming import Forming, Load, Wait, next_batch


def load(waiting: int, computing: int = 0, oldest_s: float = 0.0, free: int = 1, slots: int = 2) -> Load:
    return Load(waiting, computing, oldest_s, free, slots)


@pytest.mark.parametrize(
    ("now", "size"),
    [
        (load(1, free=2), 1),
        (load(64, free=2), 8),  # no more than the largest batch
        (load(10, free=2), 5),  # two free slots share
        (load(7, free=2), 4),
        (load(1, computing=8), 1),
        (load(8, computing=8), 6),  # of 16 on two slots a third is left for the next slot
        (load(6, computing=5), 4),
        (load(64, computing=8), 8),
        (load(3, computing=0, slots=1), 3),
        (load(4, computing=4, slots=1), 4),
    ],
)
def test_without_delay(now: Load, size: int) -> None:
    assert next_batch(Forming(8), now) == size


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (load(3), Wait(0.01)),
        (load(3, oldest_s=0.004), Wait(0.006)),
        (load(3, oldest_s=0.01), 3),  # waited long enough
        (load(8), 8),
        (load(20, free=2), 8),
    ],
)
def test_with_a_delay_batches_fill(now: Load, found: int | Wait) -> None:
    got = next_batch(Forming(8, max_delay_s=0.01), now)
    if isinstance(found, Wait):
        assert isinstance(got, Wait)
        assert got.seconds == pytest.approx(found.seconds)
    else:
        assert got == found


@pytest.mark.parametrize(("waiting", "size"), [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (8, 4)])
def test_preferred_sizes(waiting: int, size: int) -> None:
    assert next_batch(Forming(8, preferred=(2, 4)), load(waiting, slots=1)) == size


def test_a_preferred_size_leaves_without_delay() -> None:
    assert next_batch(Forming(8, 0.01, (2, 4)), load(4)) == 4
    assert isinstance(next_batch(Forming(8, 0.01, (2, 4)), load(3)), Wait)


@given(
    forming=st.builds(
        Forming,
        max_batch=st.integers(1, 32),
        max_delay_s=st.sampled_from([0.0, 0.01]),
        preferred=st.sampled_from([(), (1,), (4, 8), (32,)]),
    ),
    now=st.integers(1, 8).flatmap(
        lambda slots: st.builds(
            Load,
            waiting=st.integers(1, 200),
            computing=st.integers(0, 200),
            oldest_s=st.floats(0, 0.02),
            free=st.integers(1, slots),
            slots=st.just(slots),
        )
    ),
)
def test_a_batch_is_never_empty_nor_too_large(forming: Forming, now: Load) -> None:
    found = next_batch(forming, now)
    if isinstance(found, Wait):
        assert 0 < found.seconds <= forming.max_delay_s
        assert now.oldest_s < forming.max_delay_s
    else:
        assert 1 <= found <= min(forming.max_batch, now.waiting)
