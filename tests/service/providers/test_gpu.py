from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime
import pytest

from model_store.stored_model import StoredModel
from service.providers import ProviderUnavailable, Share, close, open_session
from service.providers.base import ProviderSession
from service.providers.gpu import GpuSession, check_gpu
from service.settings import ProviderSettings
from tests.service.conftest import TinyModel
from tests.service.providers.conftest import MODEL, FakeRuntime, Value, check_answers, driver, some_images

GRAPHS = ProviderSettings(cuda_graphs=True)


@pytest.mark.parametrize(
    ("gpus", "provider", "reason"),
    [
        (None, "CUDAExecutionProvider", "Driver Not Loaded"),
        (0, "CUDAExecutionProvider", "no NVIDIA GPU"),
        (1, "OtherExecutionProvider", "no OtherExecutionProvider; install the gpu extra"),
    ],
)
def test_what_a_gpu_provider_needs(
    fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch, gpus: int | None, provider: str, reason: str
) -> None:
    driver(monkeypatch, gpus)
    with pytest.raises(ProviderUnavailable, match=reason):
        check_gpu(provider)


def test_a_gpu_that_is_there(fake: FakeRuntime) -> None:
    check_gpu("CUDAExecutionProvider")


@pytest.mark.parametrize("graphs", [False, True])
def test_memory_is_allocated_once_a_size_and_slot(fake: FakeRuntime, graphs: bool) -> None:
    session = open_session(MODEL, "cuda", Share(4), ProviderSettings(cuda_graphs=graphs, gpu_device=3)).session
    check_answers(session, fake.model, [1, 1, 2, 2] * 5)
    assert len(fake.sessions) == (2 if graphs else 1)
    bindings = {id(binding): binding for s in fake.sessions for binding, _ in s.runs}
    assert len(bindings) == 4  # two sizes in two slots
    for binding in bindings.values():
        (image,), (logits, _) = binding.inputs.values(), binding.outputs.values()
        assert image.device == logits.device == ("cuda", 3)
        assert (image.data.dtype, logits.data.dtype) == (np.uint8, np.float32)


def test_outputs_come_in_the_order_asked_for(fake: FakeRuntime) -> None:
    session = open_session(MODEL, "cuda", Share(4), GRAPHS).session
    images = some_images(3)
    for names in (["embedding", "logits"], ["logits", "embedding"], ["embedding"]) * 3:
        found = dict(zip(names, session.run(names, {"image": images}), strict=True))
        np.testing.assert_allclose(found["embedding"], images.mean(axis=(1, 2)), rtol=1e-5)
        if "logits" in names:
            np.testing.assert_allclose(found["logits"], fake.model.logits(images), atol=1e-4)


def test_answers_stay_when_the_next_batch_runs(fake: FakeRuntime) -> None:
    session = open_session(MODEL, "cuda", Share(1, 1)).session
    first, second = some_images(2, 1), some_images(2, 2)
    kept = session.run(["logits"], {"image": first})[0]
    session.run(["logits"], {"image": second})
    np.testing.assert_allclose(kept, fake.model.logits(first), atol=1e-4)


# CUDA graphs


def test_a_graph_for_each_batch_size(fake: FakeRuntime) -> None:
    session = open_session(MODEL, "cuda", Share(4, 1), GRAPHS).session
    check_answers(session, fake.model, [1, 2, 3, 1, 2, 3])
    (inner,) = fake.sessions
    ids = [options.entries["gpu_graph_id"] for _, options in inner.runs if options is not None]
    # Of each size a run that is not captured, the capture, and the answer; that of 1 was tried out before.
    assert ids == ["-1", "1", "1", "1", "-1", "2", "2", "-1", "3", "3", "1", "2", "3"]
    assert fake.captures == 3


def test_a_graph_serves_whichever_outputs_are_asked_for(fake: FakeRuntime) -> None:
    session = open_session(MODEL, "cuda", Share(4, 1), GRAPHS).session
    for names in (["logits"], ["embedding"], ["embedding", "logits"], ["logits"]):
        session.run(names, {"image": some_images(2)})
    assert fake.captures == 2  # that of one image, which was tried out, and this


def test_with_graphs_a_slot_has_a_session_and_a_thread_of_its_own(fake: FakeRuntime) -> None:
    session = open_session(MODEL, "cuda", Share(4), GRAPHS).session
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(check_answers, session, fake.model, [1, 2]) for _ in range(10)]:
            done.result()
    assert [len(inner.threads) for inner in fake.sessions] == [1, 1]


def test_warming_up_reaches_every_slot(fake: FakeRuntime) -> None:
    """As many runs of a size as there are slots capture it in all of them, one after the other too."""
    session = open_session(MODEL, "cuda", Share(4, 3), GRAPHS).session
    for size in (1, 2):
        check_answers(session, fake.model, [size] * 3)
    assert fake.captures == 6
    check_answers(session, fake.model, [1, 2] * 9)
    assert fake.captures == 6


@contextmanager
def held_capture(fake: FakeRuntime, session: ProviderSession, size: int) -> Iterator[None]:
    """A graph of ``size`` is being captured while the block lasts, and other captures are not held up."""
    begun, over = threading.Event(), threading.Event()

    def at_capture() -> None:
        begun.set()
        assert over.wait(60)

    fake.at_capture = at_capture
    with ThreadPoolExecutor(1) as pool:
        capture = pool.submit(check_answers, session, fake.model, [size])
        try:
            assert begun.wait(60)
            fake.at_capture = lambda: None
            yield
        finally:
            over.set()
        capture.result(60)


def test_nothing_else_runs_while_a_graph_is_captured(fake: FakeRuntime) -> None:
    session = open_session(MODEL, "cuda", Share(4, 3), GRAPHS).session
    check_answers(session, fake.model, [1] * 3)
    with ThreadPoolExecutor(2) as pool:
        with held_capture(fake, session, 2):
            others = [pool.submit(check_answers, session, fake.model, [1]) for _ in range(2)]
            assert not any(other.done() for other in others)
        for done in others:
            done.result(60)


def test_sessions_without_graphs_keep_out_of_captures_too(fake: FakeRuntime) -> None:
    plain = open_session(MODEL, "cuda", Share(4, 2), ProviderSettings(cuda_graphs=False)).session
    captured = open_session(MODEL, "cuda", Share(4, 2), GRAPHS).session
    random = np.random.default_rng(0)
    with ThreadPoolExecutor(8) as pool:
        asked = [(session, random.integers(1, 9, 20)) for session in (plain, captured) * 4]
        for done in [pool.submit(check_answers, session, fake.model, sizes) for session, sizes in asked]:
            done.result()


def test_opening_and_closing_keep_out_of_captures(fake: FakeRuntime) -> None:
    """A version that is replaced is closed while the next one warms up."""
    kept = open_session(MODEL, "cuda", Share(4, 2), GRAPHS).session
    with ThreadPoolExecutor(1) as pool:
        with held_capture(fake, kept, 2):
            opened = pool.submit(open_session, MODEL, "cuda", Share(4, 2), GRAPHS)
            assert not wait([opened], 0.05).done
        old = opened.result(60).session
        del fake.sessions[2:]
        with held_capture(fake, kept, 3):
            closed = pool.submit(close, old)
            assert not wait([closed], 0.05).done
        closed.result(60)
    del old, opened
    gc.collect()
    assert (fake.freed, fake.faults) == (2, [])


def test_any_mix_of_sizes_from_many_threads(fake: FakeRuntime) -> None:
    """The fake GPU raises where a capture meets any other call, or a graph the wrong buffers or thread."""
    session = open_session(MODEL, "cuda", Share(4, 4), GRAPHS).session
    random = np.random.default_rng(0)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(check_answers, session, fake.model, random.integers(1, 9, 20)) for _ in range(8)]:
            done.result()
    assert fake.captures <= 4 * 8


@pytest.mark.parametrize("graphs", [False, True])
def test_a_failed_run_gives_its_slot_back(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch, graphs: bool) -> None:
    session = open_session(MODEL, "cuda", Share(1, 1), ProviderSettings(cuda_graphs=graphs)).session
    (inner,) = fake.sessions

    def broken(binding: Any, options: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(inner, "run_with_iobinding", broken)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="out of memory"):
                session.run(["logits"], {"image": some_images(2)})
    check_answers(session, fake.model, [2, 1])


def test_a_graph_whose_first_run_failed_is_captured_anew(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number belongs to buffers that are gone."""
    session = open_session(MODEL, "cuda", Share(1, 1), GRAPHS).session

    def broken(_: Any) -> Any:
        raise RuntimeError("cannot copy")

    with monkeypatch.context() as patched:
        patched.setattr(Value, "numpy", broken)
        with pytest.raises(RuntimeError, match="cannot copy"):
            session.run(["logits"], {"image": some_images(2)})
    check_answers(session, fake.model, [2, 2])
    assert fake.captures == 2


# Real I/O binding, on the CPU's memory


@pytest.mark.parametrize("graphs", [False, True])
def test_real_io_binding(tiny_stored: StoredModel, tiny: TinyModel, graphs: bool) -> None:
    sessions = [
        onnxruntime.InferenceSession(tiny_stored.folder / "fp32.onnx", providers=["CPUExecutionProvider"])
        for _ in range(2)
    ]
    session = GpuSession(sessions, ("cpu", 0), graphs)
    assert [(i.name, i.type) for i in session.get_inputs()] == [("image", "tensor(uint8)")]
    assert [o.name for o in session.get_outputs()] == ["logits", "embedding", "cam"]
    images = some_images(4)
    views = images[:, ::-1]
    (logits,) = session.run(["logits"], {"image": views})
    np.testing.assert_allclose(logits, tiny.logits(views), atol=1e-4)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(check_answers, session, tiny, (1, 8, 2, 1)) for _ in range(8)]:
            done.result()
