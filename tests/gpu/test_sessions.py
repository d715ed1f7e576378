"""What a session gives on the GPU is what the CPU gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from service.providers import ProviderUnavailable, Share, open_session
from service.settings import ProviderSettings
from tests.gpu.conftest import Outputs, has_tensorrt, on_gpu, outputs

Images = npt.NDArray[np.uint8]

TF32 = 5e-4  # half of what ten bits of mantissa leave: fp32 is far below, TF32 is above
GRAPHS: list[dict[str, Any]] = [{"cuda_graphs": True}, {"cuda_graphs": False}]


def check(found: Outputs, expected: Outputs, bound: float) -> None:
    """Every output within ``bound`` of its largest value."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        given, values = (_by_class(side) if name == "cam" else side[name] for side in (found, expected))
        assert np.abs(given - values).max() < bound * np.abs(values).max(), name


def _by_class(side: Outputs) -> npt.NDArray[np.float32]:
    """The maps, which come in the order of the logits, in that of the classes, of which all have one."""
    order = np.argsort(np.argsort(-side["logits"], axis=1, kind="stable"), axis=1)
    assert side["cam"].shape[1] == side["logits"].shape[1]
    return np.take_along_axis(side["cam"], order[:, :, None, None], axis=1)


@pytest.mark.parametrize("options", GRAPHS)
def test_fp32_is_fp32(model: bytes, images: Images, expected: Outputs, options: dict[str, Any]) -> None:
    session = on_gpu(model, **options)
    for batch in (40, 1, 7, 16, 40):
        for _ in range(3):  # both slots, and what was captured replayed
            check(outputs(session, images[:batch]), {n: v[:batch] for n, v in expected.items()}, TF32 / 10)


@pytest.mark.parametrize("options", GRAPHS)
def test_any_outputs_in_any_order(model: bytes, images: Images, expected: Outputs, options: dict[str, Any]) -> None:
    session = on_gpu(model, **options)
    for names in (["logits"], ["embedding", "logits"], ["embedding"]) * 3:
        for name, values in zip(names, session.run(names, {"image": images[:5]}), strict=True):
            np.testing.assert_allclose(values, expected[name][:5], atol=1e-3)


@pytest.mark.parametrize("options", GRAPHS)
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_threads_get_their_own_answers(
    model: bytes, images: Images, expected: Outputs, options: dict[str, Any], slots: int
) -> None:
    session = on_gpu(model, slots, **options)
    random = np.random.default_rng(0)
    asked = [random.integers(0, len(images), random.integers(1, 17)) for _ in range(300)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda chosen: session.run(["logits"], {"image": images[chosen]})[0], asked))
    for chosen, logits in zip(asked, answers, strict=True):
        check({"logits": logits}, {"logits": expected["logits"][chosen]}, TF32 / 10)


def test_other_options(model: bytes, images: Images, expected: Outputs) -> None:
    """Searching all of cuDNN's algorithms takes seconds for each size, so there is one."""
    session = on_gpu(model, gpu_arena="same_as_requested", cudnn_search="exhaustive")
    for _ in range(4):
        check(outputs(session, images), expected, TF32 / 10)


def test_by_itself_the_gpu_is_taken(model: bytes) -> None:
    opened = open_session(lambda _: (model, "fp32"), "auto", Share(2))
    assert (opened.provider, opened.slots, opened.passed_over) == ("cuda", 2, ())


def test_a_batch_beyond_the_memory_fails_alone(model: bytes, images: Images, expected: Outputs) -> None:
    session = on_gpu(model, gpu_memory_bytes=2**26)
    for _ in range(3):
        with pytest.raises(Exception, match=r"(?i)memory|allocate"):  # ONNX Runtime's own
            session.run(["logits"], {"image": np.repeat(images, 100, axis=0)})
        check(outputs(session, images[:4]), {name: values[:4] for name, values in expected.items()}, TF32 / 10)


def test_no_such_device(model: bytes) -> None:
    with pytest.raises(ProviderUnavailable, match=r"cuda: .*Invalid device ID: 63"):
        on_gpu(model, gpu_device=63)
    opened = open_session(lambda _: (model, "fp32"), "auto", Share(2), ProviderSettings(gpu_device=63))
    assert opened.provider != "cuda"
    assert "Invalid device ID: 63" in opened.passed_over[0]


# TensorRT


def test_tensorrt(model: bytes, images: Images, expected: Outputs, tmp_path: Path) -> None:
    if not has_tensorrt():
        pytest.skip("NVIDIA's TensorRT libraries (libnvinfer.so.10) are not where the loader looks")
    settings = ProviderSettings(cache_dir=tmp_path)
    opened = open_session(lambda _: (model, "fp32"), "tensorrt", Share(2, max_batch=40), settings)
    for batch in (40, 1, 7):
        check(outputs(opened.session, images[:batch]), {n: v[:batch] for n, v in expected.items()}, TF32 / 10)
    assert list(tmp_path.rglob("*.engine"))


def test_without_its_libraries_tensorrt_is_refused(model: bytes) -> None:
    if has_tensorrt():
        pytest.skip("they are here")
    with pytest.raises(ProviderUnavailable, match=r"^tensorrt: .*(start|install) TensorRT"):
        open_session(lambda _: (model, "fp32"), "tensorrt", Share(2, max_batch=8))
