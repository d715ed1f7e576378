"""Tests on a real GPU; without one each is skipped and says what is missing."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.stored_model import StoredModel
from service.providers import ProviderUnavailable, Share, open_session
from service.providers.base import ProviderSession
from service.providers.gpu import check_gpu
from service.settings import ProviderSettings

Outputs = dict[str, npt.NDArray[Any]]


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    try:
        check_gpu("CUDAExecutionProvider")
    except ProviderUnavailable as reason:
        pytest.skip(f"no GPU to test on: {reason}")


def has_tensorrt() -> bool:
    """Whether the loader finds NVIDIA's libraries, which no extra of ours brings."""
    try:
        ctypes.CDLL("libnvinfer.so.10")
    except OSError:
        return False
    return "TensorrtExecutionProvider" in ort.get_available_providers()


@pytest.fixture(scope="session")
def stored() -> StoredModel:
    store = ModelStore(EMBEDDED_MODELS)
    return store.resolve(store.names()[0])


@pytest.fixture(scope="session")
def model(stored: StoredModel) -> bytes:
    """The embedded model's fp32 file."""
    return stored.read_graph(stored.variant("fp32"))


@pytest.fixture(scope="session")
def images(stored: StoredModel) -> npt.NDArray[np.uint8]:
    """40 of them, smooth as photos are: a few random pixels each, blown up."""
    shape = stored.manifest.preprocessing
    coarse = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), np.uint8)
    return coarse.repeat(shape.height // 4, axis=1).repeat(shape.width // 4, axis=2)


def outputs(session: ProviderSession, images: npt.NDArray[np.uint8]) -> Outputs:
    """All outputs, by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": images}), strict=True))


@pytest.fixture(scope="session")
def expected(model: bytes, images: npt.NDArray[np.uint8]) -> Outputs:
    """By ONNX Runtime's CPU provider."""
    return outputs(ort.InferenceSession(model, providers=["CPUExecutionProvider"]), images)


def on_gpu(model: bytes, slots: int | None = None, **options: Any) -> ProviderSession:
    return open_session(lambda _: (model, "fp32"), "cuda", Share(2, slots, 40), ProviderSettings(**options)).session
