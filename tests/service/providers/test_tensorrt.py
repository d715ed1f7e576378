from __future__ import annotations

from pathlib import Path

import pytest

from service.providers import Arithmetic, ProviderUnavailable, Share, cuda, open_session, tensorrt
from service.settings import ProviderSettings
from tests.service.providers.conftest import MODEL, FakeRuntime, check_answers, provider_options


@pytest.mark.parametrize(
    ("precision", "fp16", "int8"), [("fp32", False, False), ("fp16", True, False), ("int8", False, True)]
)
def test_arithmetic_is_the_files(fake: FakeRuntime, precision: Arithmetic, fp16: bool, int8: bool) -> None:
    open_session(lambda _: (MODEL, precision), "tensorrt", Share(2))
    options = provider_options(fake.sessions[-1])[tensorrt.NAME]
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (fp16, int8)


def test_what_it_does_not_take_runs_on_cuda(fake: FakeRuntime) -> None:
    settings = ProviderSettings(gpu_device=1, gpu_memory_bytes=2**30, cuda_graphs=True)
    opened = open_session(MODEL, "tensorrt", Share(8), settings)
    assert (opened.provider, opened.slots) == ("tensorrt", 2)
    (inner,) = fake.sessions
    assert [entry if isinstance(entry, str) else entry[0] for entry in inner.asked] == [
        tensorrt.NAME,
        cuda.NAME,
        "CPUExecutionProvider",
    ]
    options = provider_options(inner)
    assert options[tensorrt.NAME]["device_id"] == 1
    assert options[cuda.NAME] == {
        "device_id": "1",
        "gpu_mem_limit": str(2**30),
        "arena_extend_strategy": "kNextPowerOfTwo",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
    }
    check_answers(opened.session, fake.model)
    assert all(options is None for _, options in inner.runs)


def test_one_engine_for_all_batch_sizes(fake: FakeRuntime) -> None:
    open_session(MODEL, "tensorrt", Share(2, max_batch=16))
    reading, inner = fake.sessions
    assert (reading.asked, reading.options.graph_optimization_level) == (["CPUExecutionProvider"], "none")
    options = provider_options(inner)[tensorrt.NAME]
    assert {name: value for name, value in options.items() if name.startswith("trt_profile")} == {
        "trt_profile_min_shapes": "image:1x8x8x3",
        "trt_profile_opt_shapes": "image:16x8x8x3",
        "trt_profile_max_shapes": "image:16x8x8x3",
    }


def test_without_a_known_size_or_a_folder_there_is_neither_profile_nor_cache(fake: FakeRuntime) -> None:
    open_session(MODEL, "tensorrt", Share(2), ProviderSettings(tensorrt_workspace_bytes=2**28))
    assert provider_options(fake.sessions[-1])[tensorrt.NAME] == {
        "device_id": 0,
        "trt_max_workspace_size": 2**28,
        "trt_fp16_enable": False,
        "trt_int8_enable": False,
    }


def test_engines_are_kept_for_a_file_and_a_release(fake: FakeRuntime, tmp_path: Path) -> None:
    settings = ProviderSettings(cache_dir=tmp_path / "cache")
    folders = []
    for content in (b"one", b"two", b"one"):
        (tmp_path / "model.onnx").write_bytes(content)
        open_session(tmp_path / "model.onnx", "tensorrt", Share(2), settings)
        options = provider_options(fake.sessions[-1])[tensorrt.NAME]
        assert options["trt_engine_cache_enable"] is options["trt_timing_cache_enable"] is True
        assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"]
        folders.append(Path(options["trt_engine_cache_path"]))
    assert folders[0] == folders[2] != folders[1]
    for folder in folders:
        assert folder.parent == tmp_path / "cache" / "tensorrt" / fake.__version__
        for level in (folder, folder.parent, folder.parent.parent):
            assert level.stat().st_mode & 0o777 == 0o700


def test_a_session_without_it_is_no_tensorrt_session(fake: FakeRuntime) -> None:
    fake.failing = frozenset({tensorrt.NAME})
    with pytest.raises(ProviderUnavailable, match="could not start TensorRT"):
        open_session(MODEL, "tensorrt", Share(2))
