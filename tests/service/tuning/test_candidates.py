from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from model_store.stored_model import StoredModel
from service.batching.forming import Forming, Load, next_batch
from service.config import Settings
from service.metrics import Metrics
from service.process.cpus import available_cpus
from service.process.workers import Workers
from service.runtime import Runtime
from service.tuning.candidates import FIELDS, best, loads, pairs, quickest, start, variations
from tests.service.conftest import TinyModel, a_gate, publish_tiny, some_settings
from tests.service.tuning.conftest import a_choice, a_trial, some_figures


def of(**environ: object) -> Settings:
    return Settings.from_env({f"RESNET_{name.upper()}": str(value) for name, value in environ.items()})


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    """int8 passed its gate; bf16 and fp16 were published without one."""
    off = a_gate("off", passed=False)
    others = {
        "int8": (TinyModel(seed=1), a_gate()),
        "bf16": (TinyModel(seed=1), a_gate("off", passed=False, provider="openvino")),
        "fp16": (TinyModel(seed=2), off),
    }
    return publish_tiny(tmp_path, others=others)  # type: ignore[arg-type]


# Provider and precision


def test_only_what_passed_its_gate_is_measured(stored: StoredModel) -> None:
    assert pairs(stored, ["openvino", "cpu", "cuda"], of()) == [
        ("openvino", "fp32"),
        ("openvino", "int8"),
        ("cpu", "fp32"),
        ("cpu", "int8"),
        ("cuda", "fp32"),
    ]


def test_a_precision_by_name_is_measured_gated_or_not(stored: StoredModel) -> None:
    assert pairs(stored, ["openvino", "cpu"], of(precision="fp16")) == [("openvino", "fp16"), ("cpu", "fp16")]


def test_a_provider_that_does_not_compute_in_it_is_left_out(stored: StoredModel) -> None:
    assert pairs(stored, ["openvino", "cpu"], of(precision="bf16")) == [("openvino", "bf16")]


@pytest.mark.parametrize("environ", [{}, {"slots": 1}, {"max_batch": 3, "decode_threads": 2}])
def test_the_start_is_what_the_service_does_by_itself(tiny_root: Path, environ: dict[str, object]) -> None:
    settings = some_settings(tiny_root, **({"slots": "auto"} | environ))

    async def main() -> None:
        runtime = Runtime(settings, Metrics(None), Workers(None, 1))
        await runtime.start()
        (pipeline,) = runtime.models
        choice = start("cpu", "fp32", settings, available_cpus())
        assert choice.slots == pipeline.session.slots
        assert choice.max_batch == pipeline.max_batch
        assert (choice.decode_threads == 0) == (pipeline._decode_pool is None)
        await runtime.stop()

    asyncio.run(main())


def test_the_start_on_a_gpu_decodes_ahead() -> None:
    choice = start("cuda", "fp16", of(), 6)
    assert (choice.slots, choice.decode_threads) == (2, 6)


def test_very_many_cores_stay_within_the_settings_bounds() -> None:
    for provider in ("cpu", "cuda"):
        choice = start(provider, "fp32", of(), 1000)  # type: ignore[arg-type]
        for field in FIELDS:
            for other in variations(field, choice, of(), 1000):
                assert max(other.slots, other.max_batch, other.decode_threads) <= 256


# The settings


@pytest.mark.parametrize(
    ("cores", "slots"), [(1, [1]), (2, [2, 1]), (4, [4, 1]), (8, [8, 1, 2, 4]), (12, [12, 1, 2, 4, 8])]
)
def test_slots_on_a_cpu(cores: int, slots: list[int]) -> None:
    base = start("openvino", "int8", of(), cores)
    found = variations("slots", base, of(), cores) or [base]
    assert [choice.slots for choice in found] == slots


def test_slots_on_a_gpu() -> None:
    found = variations("slots", start("cuda", "fp32", of(), 4), of(), 4)
    assert [(choice.slots, choice.max_batch) for choice in found] == [(2, 8), (1, 64), (2, 64), (4, 64)]


@pytest.mark.parametrize("cores", [2, 4, 8, 64])
def test_a_batch_holds_what_the_load_forms_while_slots_vary(cores: int) -> None:
    """Else one slot with all cores would be measured with batches too small for it."""
    base = start("openvino", "int8", of(), cores)
    clients = loads("openvino", cores)[-1]
    for choice in variations("slots", base, of(), cores)[1:]:
        batch = clients // (choice.slots + 1)  # the others' batches compute, one was just answered
        load = Load(batch, batch * (choice.slots - 1), 0.0, 1, choice.slots)
        formed = next_batch(Forming(256), load)
        assert isinstance(formed, int)
        assert choice.max_batch >= min(64, formed)
        assert choice.max_batch >= base.max_batch


@pytest.mark.parametrize(("largest", "tried"), [(8, [8, 1, 4]), (32, [32, 1, 4, 8, 16]), (3, [3, 1]), (1, [])])
def test_batches_below_the_largest(largest: int, tried: list[int]) -> None:
    found = variations("max_batch", a_choice(max_batch=largest), of(), 2)
    assert [choice.max_batch for choice in found] == tried


@pytest.mark.parametrize(("now", "tried"), [(0, [0, 4]), (4, [4, 0]), (2, [2, 0, 4])])
def test_decode_threads(now: int, tried: list[int]) -> None:
    found = variations("decode_threads", a_choice(decode_threads=now), of(), 4)
    assert [choice.decode_threads for choice in found] == tried


def test_a_lone_image_is_spread_only_where_that_pays() -> None:
    for now in (True, False):
        found = variations("spread_lone_image", a_choice(spread_lone_image=now), of(), 2)
        assert [choice.spread_lone_image for choice in found] == [False, True]
    assert not variations("spread_lone_image", a_choice(slots=1), of(), 2), "one slot has all cores anyway"
    assert not variations("spread_lone_image", a_choice(provider="cuda"), of(), 2)


@pytest.mark.parametrize("field", FIELDS)
def test_one_field_at_a_time(field: str) -> None:
    base = a_choice()
    for choice in variations(field, base, of(), 16):
        others = choice.model_dump(exclude={field, "max_batch"} if field == "slots" else {field})
        assert others == {name: value for name, value in base.model_dump().items() if name in others}


@pytest.mark.parametrize(
    ("field", "value"), [("slots", 2), ("max_batch", 8), ("decode_threads", 0), ("spread_lone_image", True)]
)
def test_what_the_operator_fixed_is_not_varied(field: str, value: object) -> None:
    settings = of(**{field: value})
    assert not variations(field, a_choice(), settings, 16)
    for other in FIELDS:
        for choice in variations(other, a_choice(), settings, 16):
            assert getattr(choice, field) == value


def test_preferred_batches_fix_the_largest() -> None:
    settings = of(preferred_batches="4,8")
    assert not variations("max_batch", a_choice(), settings, 16)
    assert {choice.max_batch for choice in variations("slots", a_choice(), settings, 16)} == {8}


def test_loads_ascend() -> None:
    for provider in ("cpu", "openvino", "cuda", "tensorrt"):
        found = loads(provider, 3)  # type: ignore[arg-type]
        assert list(found) == sorted(set(found))
    assert loads("cpu", 2) == (2, 4, 8, 16)


# The best


def test_the_most_images_within_the_goal_win() -> None:
    trials = [
        a_trial(some_figures(100, 10), some_figures(150, 60), slots=1),
        a_trial(some_figures(120, 20), some_figures(140, 49), slots=2),
        a_trial(some_figures(300, 51), slots=3),
    ]
    assert best(trials, 50).choice.slots == 2
    assert best(trials, 55).choice.slots == 3
    assert best(trials, 15).choice.slots == 1
    assert trials[1].at(50) == some_figures(140, 49)
    assert trials[0].at(50) == some_figures(100, 10)


def test_exactly_the_goal_is_within() -> None:
    assert best([a_trial(some_figures(10, 5), slots=1), a_trial(some_figures(20, 50), slots=2)], 50).choice.slots == 2


def test_where_nothing_is_within_the_lowest_p99_wins() -> None:
    trials = [
        a_trial(some_figures(500, 90), slots=1),
        a_trial(some_figures(10, 60), some_figures(300, 200), slots=2),
        a_trial(some_figures(400, 70), slots=3),
    ]
    assert best(trials, 50).choice.slots == 2
    assert trials[1].at(50) == some_figures(10, 60)


def test_noise_does_not_win_over_what_comes_first() -> None:
    trials = [a_trial(some_figures(100, 10), slots=1), a_trial(some_figures(102, 10), slots=2)]
    assert best(trials, 50).choice.slots == 1
    assert best(trials[::-1], 50).choice.slots == 2
    assert best([trials[0], a_trial(some_figures(104, 10), slots=3)], 50).choice.slots == 3
    assert best(trials, 5).choice.slots == 1


def test_what_failed_never_wins() -> None:
    trials = [a_trial(slots=1), a_trial(some_figures(1, 500), slots=2), a_trial(slots=3)]
    assert best(trials, 50).choice.slots == 2
    assert quickest(trials).choice.slots == 2


def test_the_quickest() -> None:
    def alone(p50_ms: float, spread: bool) -> object:
        return a_trial(some_figures(p99_ms=2 * p50_ms, clients=1), spread_lone_image=spread)

    for without, spread, pays in ((10, 5, True), (10, 9.8, False), (10, 12, False)):
        trials = [alone(without, False), alone(spread, True)]
        assert quickest(trials).choice.spread_lone_image is pays  # type: ignore[arg-type]
