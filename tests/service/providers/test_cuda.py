from __future__ import annotations

import pytest

from service.providers import ProviderUnavailable, Share, cuda, open_session
from service.settings import ProviderSettings
from tests.service.providers.conftest import MODEL, FakeRuntime, check_answers, provider_options


def test_its_libraries_come_from_python_packages(fake: FakeRuntime) -> None:
    open_session(MODEL, "cuda", Share(2))
    assert fake.preloaded == 1


def test_one_session_with_two_slots_in_fp32(fake: FakeRuntime) -> None:
    opened = open_session(MODEL, "cuda", Share(8))
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
    assert [options for _, options in inner.runs] == [None] * 3


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


@pytest.mark.parametrize("graphs", [False, True])
def test_a_session_that_fell_back_to_the_cpu_is_no_cuda_session(fake: FakeRuntime, graphs: bool) -> None:
    fake.failing = frozenset({cuda.NAME})
    settings = ProviderSettings(cuda_graphs=graphs)
    opened = open_session(MODEL, "auto", Share(32), settings)
    assert (opened.provider, opened.slots) == ("openvino", 32)
    assert opened.passed_over == ("cuda: ONNX Runtime could not start CUDA",)
    with pytest.raises(ProviderUnavailable, match="could not start CUDA"):
        open_session(MODEL, "cuda", Share(2), settings)
