from __future__ import annotations

import gc

import pytest

from service.providers import Arithmetic, ProviderUnavailable, Share, cuda, open_session
from service.settings import ProviderSettings
from tests.service.providers.conftest import MODEL, FakeRuntime, check_answers, provider_options


def test_its_libraries_come_from_python_packages(fake: FakeRuntime) -> None:
    open_session(MODEL, "cuda", Share(2))
    assert fake.preloaded == 1


def test_one_session_with_two_slots_in_fp32(fake: FakeRuntime) -> None:
    opened = open_session(MODEL, "cuda", Share(8), ProviderSettings(cuda_graphs=False))
    assert (opened.provider, opened.slots) == ("cuda", 2)
    (inner,) = fake.sessions
    assert inner.asked[1:] == ["CPUExecutionProvider"]
    assert provider_options(inner) == {
        cuda.NAME: {
            "device_id": "0",
            "arena_extend_strategy": "kNextPowerOfTwo",
            "cudnn_conv_algo_search": "HEURISTIC",
            "use_tf32": "0",
        }
    }
    check_answers(opened.session, fake.model)
    assert [options for _, options in inner.runs] == [None] * 4  # the first tries it out


def test_every_option_of_the_operator(fake: FakeRuntime) -> None:
    settings = ProviderSettings(
        gpu_device=2,
        gpu_memory_bytes=2**31,
        gpu_arena="same_as_requested",
        cudnn_search="exhaustive",
        cuda_graphs=True,
    )
    opened = open_session(MODEL, "cuda", Share(8, 3), settings)
    assert (opened.slots, len(fake.sessions)) == (3, 3)
    for inner in fake.sessions:
        assert provider_options(inner)[cuda.NAME] == {
            "device_id": "2",
            "gpu_mem_limit": str(2**31),
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "use_tf32": "0",
            "enable_cuda_graph": "1",
        }


@pytest.mark.parametrize(("precision", "last"), [("fp32", None), ("fp16", "1"), ("int8", None)])
def test_half_precision_has_its_channels_last(fake: FakeRuntime, precision: Arithmetic, last: str | None) -> None:
    open_session(lambda _: (MODEL, precision), "cuda", Share(2))
    for inner in fake.sessions:
        assert provider_options(inner)[cuda.NAME].get("prefer_nhwc") == last


def test_by_itself_graphs_are_captured(fake: FakeRuntime) -> None:
    open_session(MODEL, "cuda", Share(2))
    assert [provider_options(inner)[cuda.NAME]["enable_cuda_graph"] for inner in fake.sessions] == ["1", "1"]


def test_a_model_that_takes_no_graphs_goes_without(fake: FakeRuntime, caplog: pytest.LogCaptureFixture) -> None:
    fake.no_graphs = True
    opened = open_session(MODEL, "auto", Share(2))
    assert (opened.provider, opened.passed_over) == ("cuda", ())
    assert "CUDA graphs are not used, and every change of batch size is slow: This session cannot" in caplog.text
    check_answers(opened.session, fake.model)


def test_a_model_that_cannot_be_captured_goes_without(fake: FakeRuntime, caplog: pytest.LogCaptureFixture) -> None:
    fake.no_captures = True
    session = open_session(MODEL, "cuda", Share(2)).session
    assert "CUDA graphs are not used" in caplog.text
    assert "operation not permitted when stream is capturing" in caplog.text
    del fake.sessions[:2]
    gc.collect()
    assert fake.freed == 2  # what could not be captured is held no longer
    check_answers(session, fake.model)


def test_errors_are_logged_until_it_runs(fake: FakeRuntime) -> None:
    """Why its libraries cannot be loaded is an error in the log; so are later the ways that cuDNN tries in vain."""
    open_session(MODEL, "cuda", Share(1, 1))
    assert fake.severities == [3, 4]
    fake.failing = frozenset({cuda.NAME})
    with pytest.raises(ProviderUnavailable):
        open_session(MODEL, "cuda", Share(1, 1))
    assert set(fake.severities[2:]) == {3}


@pytest.mark.parametrize("graphs", [False, True])
def test_a_session_that_fell_back_to_the_cpu_is_no_cuda_session(fake: FakeRuntime, graphs: bool) -> None:
    fake.failing = frozenset({cuda.NAME})
    settings = ProviderSettings(cuda_graphs=graphs)
    opened = open_session(MODEL, "auto", Share(32), settings)
    assert (opened.provider, opened.slots) == ("openvino", 32)
    assert opened.passed_over == ("cuda: ONNX Runtime could not start CUDA; are its libraries where the loader looks?",)
    with pytest.raises(ProviderUnavailable, match="could not start CUDA"):
        open_session(MODEL, "cuda", Share(2), settings)
