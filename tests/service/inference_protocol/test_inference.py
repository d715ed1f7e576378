from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.errors import BadRequest, DeadlineExceeded, NotAnImage
from service.inference_protocol.inference import InferAnswer, infer
from service.inference_protocol.metadata import model_metadata, outputs_of
from service.inference_protocol.requests import InferRequest, RequestedOutput
from service.runtime import Runtime
from tests.service.conftest import (
    CLASSES,
    SIDE,
    Hold,
    TinyModel,
    a_picture,
    a_png,
    expected,
    publish_tiny,
    serving,
    some_settings,
)


def answer(root: Path, request: InferRequest, **environ: object) -> InferAnswer:
    async def use(runtime: Runtime) -> InferAnswer:
        return await infer(runtime.models[0], request, asyncio.get_running_loop().time() + 60)

    return serving(some_settings(root, **environ), use)


@pytest.mark.parametrize("threads", [0, 2])
def test_the_default_outputs(tiny_root: Path, tiny: TinyModel, threads: int) -> None:
    found = answer(tiny_root, InferRequest([a_png(0), np.asarray(a_picture(1))], id="an-id"), decode_threads=threads)
    assert (found.model_name, found.model_version, found.id) == ("tiny", "1", "an-id")
    probabilities, logits = found.outputs
    assert (probabilities.name, logits.name) == ("probabilities", "logits")
    assert probabilities.shape == logits.shape == (2, CLASSES)
    assert probabilities.datatype == logits.datatype == "FP32"
    wanted = tiny.logits([np.asarray(a_picture(seed)) for seed in (0, 1)])
    np.testing.assert_allclose(logits.data, wanted, atol=1e-4)
    np.testing.assert_allclose(np.sum(probabilities.data, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(np.frombuffer(logits.to_bytes(), "<f4").reshape(2, CLASSES), logits.data)


def test_classes_are_written_as_triton_does(tiny_root: Path, tiny: TinyModel) -> None:
    outputs = [RequestedOutput("probabilities", 2), RequestedOutput("logits", 100)]
    probabilities, logits = answer(tiny_root, InferRequest([a_png(0), a_png(1)], outputs)).outputs
    assert (probabilities.datatype, probabilities.shape, logits.shape) == ("BYTES", (2, 2), (2, CLASSES))
    for seed in (0, 1):
        row = probabilities.data[2 * seed : 2 * seed + 2]
        for string, (label, index, probability) in zip(row, expected(tiny, seed, 2), strict=True):
            value, number, name = string.decode().split(":")  # type: ignore[union-attr]
            assert (int(number), name) == (index, label)
            assert float(value) == pytest.approx(probability, abs=1e-5)
            assert len(value.partition(".")[2]) == 6
    best = tiny.logits([np.asarray(a_picture(0))])[0].max()
    assert float(logits.data[0].decode().split(":")[0]) == pytest.approx(best, abs=1e-4)  # type: ignore[union-attr]


def test_preprocessed_pixels_are_taken_as_they_are(tmp_path: Path, tiny: TinyModel) -> None:
    pixels = np.asarray(a_picture(3))
    for threads in (0, 1):
        request = InferRequest([pixels], [RequestedOutput("logits")], preprocessed=True)
        (logits,) = answer(publish_tiny(tmp_path / str(threads)).folder.parents[1], request).outputs
        np.testing.assert_allclose(logits.data, tiny.logits([pixels]), atol=1e-4)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (
            InferRequest([a_png()], [RequestedOutput("nothing")]),
            "unknown output 'nothing'; the model has",
        ),
        (InferRequest([a_png()], [RequestedOutput("embedding", 2)]), "output 'embedding' has no classes"),
        (
            InferRequest([np.zeros((SIDE, SIDE + 1, 3), np.uint8)], preprocessed=True),
            f"must be UINT8 [n, {SIDE}, {SIDE}, 3]",
        ),
    ],
)
def test_what_the_model_has_not(tiny_root: Path, request_: InferRequest, says: str) -> None:
    with pytest.raises(BadRequest) as caught:
        answer(tiny_root, request_)
    assert says in caught.value.message


def test_a_bad_image_is_named(tiny_root: Path) -> None:
    with pytest.raises(NotAnImage) as caught:
        answer(tiny_root, InferRequest([a_png(), b"no image", a_png()]))
    assert caught.value.message.startswith("image 1 of 3: ")


def test_the_clients_own_timeout(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(runtime: Runtime) -> None:
        hold = hold_model(runtime)
        later = asyncio.get_running_loop().time() + 60
        first = asyncio.create_task(infer(runtime.models[0], InferRequest([a_png()]), later))
        await hold.wait_entered()
        with pytest.raises(DeadlineExceeded, match=r"within the 0\.01 s"):
            await infer(runtime.models[0], InferRequest([a_png()], timeout_s=0.01), later)
        hold.released.set()
        await first
        assert len(hold.batches) == 1  # the late one was never computed

    serving(some_settings(tiny_root), use)


def test_metadata(tiny_root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        pipeline = runtime.models[0]
        found = model_metadata(runtime, pipeline)
        assert (found.name, found.versions, found.platform) == ("tiny", ("1",), "onnxruntime_onnx")
        assert [(i.name, i.datatype, i.shape) for i in found.inputs] == [("image", "BYTES", (-1,))]
        assert found.outputs == tuple(outputs_of(pipeline.stored.manifest).values())
        assert [o.name for o in found.outputs] == ["probabilities", "logits", "embedding", "cam"]
        assert found.outputs[0].shape == (-1, CLASSES)

    serving(some_settings(tiny_root), use)
