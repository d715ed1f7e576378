from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import StatusCode

from service import __version__
from service.grpc import open_inference_pb2 as pb
from service.metrics import Metrics
from service.process.workers import Workers
from service.runtime import Runtime
from tests.service.conftest import CLASSES, SIDE, Hold, TinyModel, a_picture, a_png, eventually, some_settings
from tests.service.grpc.conftest import Client, connected, infer_request, serve


def logits(answer: pb.ModelInferResponse) -> Any:
    (at,) = (i for i, output in enumerate(answer.outputs) if output.name == "logits")
    return np.frombuffer(answer.raw_output_contents[at], "<f4").reshape(answer.outputs[at].shape)


def counted(runtime: Runtime, method: str) -> list[str]:
    """The codes that a method's calls were counted with."""
    lines = runtime.metrics.page().decode().splitlines()
    mine = [line for line in lines if line.startswith("resnet_requests_total") and f'"grpc/{method}"' in line]
    return sorted(line.partition('code="')[2].partition('"')[0] for line in mine)


def test_metadata_and_health(tiny_root: Path) -> None:
    async def use(client: Client, runtime: Runtime) -> None:
        assert (await client.call("ServerLive", pb.ServerLiveRequest())).live
        assert (await client.call("ServerReady", pb.ServerReadyRequest())).ready
        assert (await client.call("ModelReady", pb.ModelReadyRequest(name="tiny"))).ready
        server = await client.call("ServerMetadata", pb.ServerMetadataRequest())
        assert (server.name, server.version) == ("resnet-serving", __version__)
        model = await client.call("ModelMetadata", pb.ModelMetadataRequest(name="tiny", version="1"))
        assert (model.name, list(model.versions)) == ("tiny", ["1"])
        assert [(i.name, i.datatype, list(i.shape)) for i in model.inputs] == [("image", "BYTES", [-1])]
        assert list(model.outputs[0].shape) == [-1, CLASSES]
        for method in ("ModelReady", "ModelMetadata"):
            request = getattr(pb, f"{method}Request")
            assert (await client.refused(method, request(name="nobody")))[0] is StatusCode.NOT_FOUND
            assert counted(runtime, method) == ["200", "404"]

    serve(tiny_root, use)


def test_raw_and_typed_contents(tiny_root: Path, tiny: TinyModel) -> None:
    images = [np.asarray(a_picture(seed)) for seed in (0, 1)]
    files, array = [a_png(0), a_png(1)], np.stack(images)
    tensor = pb.ModelInferRequest.InferInputTensor
    of_files = tensor(name="image", datatype="BYTES", shape=[2])
    of_pixels = tensor(name="image", datatype="UINT8", shape=array.shape)
    typed_files, typed_pixels = tensor(), tensor()
    typed_files.CopyFrom(of_files)
    typed_files.contents.bytes_contents.extend(files)
    typed_pixels.CopyFrom(of_pixels)
    typed_pixels.contents.uint_contents.extend(array.ravel().tolist())
    requests = [
        infer_request(*files),
        pb.ModelInferRequest(model_name="tiny", inputs=[of_pixels], raw_input_contents=[array.tobytes()]),
        pb.ModelInferRequest(model_name="tiny", inputs=[typed_files]),
        pb.ModelInferRequest(model_name="tiny", inputs=[typed_pixels]),
    ]

    async def use(client: Client, _: Runtime) -> None:
        for request in requests:
            request.id = "an-id"
            answer = await client.call("ModelInfer", request)
            assert (answer.model_name, answer.model_version, answer.id) == ("tiny", "1", "an-id")
            assert [output.name for output in answer.outputs] == ["probabilities", "logits"]
            np.testing.assert_allclose(logits(answer), tiny.logits(images), atol=1e-4)

    serve(tiny_root, use)


def with_parameter(request: pb.ModelInferRequest, name: str, **value: Any) -> pb.ModelInferRequest:
    request.parameters[name].CopyFrom(pb.InferParameter(**value))
    return request


def an_input(**fields: Any) -> pb.ModelInferRequest:
    values = {"name": "image", "datatype": "BYTES", "shape": [1]} | fields
    return pb.ModelInferRequest(model_name="tiny", inputs=[pb.ModelInferRequest.InferInputTensor(**values)])


def of_numbers(*values: int) -> pb.InferTensorContents:
    return pb.InferTensorContents(uint_contents=values)


def test_what_is_wrong_is_told(tiny_root: Path) -> None:
    pixel = {"datatype": "UINT8", "shape": [1, 1, 1, 3]}
    output = pb.ModelInferRequest.InferRequestedOutputTensor(name="nothing")
    both = an_input(contents=pb.InferTensorContents(bytes_contents=[a_png()]))
    both.raw_input_contents.append(b"")
    wrong = StatusCode.INVALID_ARGUMENT
    cases: list[tuple[pb.ModelInferRequest | bytes, StatusCode, str]] = [
        (b"\xff\xff\xff", wrong, "no message of this method"),
        (b"\x2a\x00" * 2**17, wrong, "too many fields"),
        (pb.ModelInferRequest(), StatusCode.NOT_FOUND, "no model ''"),
        (pb.ModelInferRequest(model_name="tiny", model_version="9"), StatusCode.NOT_FOUND, "version '9'"),
        (pb.ModelInferRequest(model_name="tiny"), wrong, "the request has 0 inputs"),
        (an_input(), wrong, "has no data"),
        (an_input(name="other"), wrong, "unknown input 'other'"),
        (an_input(datatype="FP32"), wrong, "datatype 'FP32' is not taken"),
        (an_input(shape=[-1]), wrong, "whole numbers from 0"),
        (an_input(contents=of_numbers(1)), wrong, "the shape says 1 strings, the data has 0"),
        (an_input(**pixel, contents=of_numbers(1, 2)), wrong, "the shape says 3 values, the data has 2"),
        (an_input(**pixel, contents=of_numbers(1, 2, 256)), wrong, "whole numbers from 0 to 255"),
        (an_input(parameters={"shared_memory_region": pb.InferParameter(string_param="x")}), wrong, "shared memory"),
        (both, wrong, "raw_input_contents must hold one tensor"),
        (infer_request(a_png(), outputs=[output]), wrong, "unknown output 'nothing'"),
        (infer_request(a_png(), b"no image"), wrong, "image 1 of 2: the data is no image"),
        (infer_request(*[a_png()] * 65), wrong, "at most 64"),
        (with_parameter(infer_request(a_png()), "preprocessed", bool_param=True), wrong, "only UINT8 pixels"),
        (with_parameter(infer_request(a_png()), "timeout", double_param=1), wrong, "'timeout' must be"),
    ]

    async def use(client: Client, runtime: Runtime) -> None:
        for request, code, says in cases:
            status, message = await client.refused("ModelInfer", request)
            assert (status, says in message) == (code, True), message
        assert set(counted(runtime, "ModelInfer")) == {"400", "404", "413", "415"}
        assert (await client.refused("NoSuchMethod", b""))[0] is StatusCode.UNIMPLEMENTED
        assert (await client.refused("ModelReady", b"\xff"))[0] is wrong

    serve(tiny_root, use)


def test_a_message_over_the_limit(tiny_root: Path) -> None:
    async def use(client: Client, runtime: Runtime) -> None:
        for request in (infer_request(bytes(2**16)), bytes(2**20)):
            status, message = await client.refused("ModelInfer", request)
            assert status is StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max" in message
        assert (await client.call("ModelInfer", infer_request(a_png()))).model_name == "tiny"
        assert counted(runtime, "ModelInfer") == ["200", "413"]

    serve(tiny_root, use, max_body_bytes=2**16)


def test_a_full_gate(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: Client, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        first = client.call("ModelInfer", infer_request(a_png()))
        await hold.wait_entered()
        assert (await client.refused("ModelInfer", infer_request(a_png())))[0] is StatusCode.RESOURCE_EXHAUSTED
        hold.released.set()
        await first
        assert counted(runtime, "ModelInfer") == ["200", "429"]

    serve(tiny_root, use, max_queue=1)


@pytest.mark.parametrize("deadline_s", [0.05, 60])
def test_the_sooner_deadline_counts(tiny_root: Path, hold_model: Callable[[Runtime], Hold], deadline_s: float) -> None:
    """The service's own, and the client's."""

    async def use(client: Client, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        timeout = 60 if deadline_s < 1 else 0.05
        status, _ = await client.refused("ModelInfer", infer_request(a_png()), timeout=timeout)
        assert status is StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: runtime.gate.images == 0, "an empty gate")
        hold.released.set()

    serve(tiny_root, use, deadline_s=deadline_s)


def test_a_cancelled_call_leaves_the_queue(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: Client, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        first = client.call("ModelInfer", infer_request(a_png(0)))
        await hold.wait_entered()
        second = client.call("ModelInfer", infer_request(a_png(1), a_png(2)))
        await eventually(lambda: runtime.gate.images == 3, "the second request")
        second.cancel()
        await eventually(lambda: runtime.gate.images == 1, "the end of the second request")
        hold.released.set()
        await first
        assert len(hold.batches) == 1
        assert counted(runtime, "ModelInfer") == ["200", "499"]

    serve(tiny_root, use)


def test_a_clients_deadline_counts_as_one_though_the_client_cancels_first(
    tiny_root: Path, hold_model: Callable[[Runtime], Hold]
) -> None:
    async def use(client: Client, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        first = client.call("ModelInfer", infer_request(a_png(0)))
        await hold.wait_entered()
        status, _ = await client.refused("ModelInfer", infer_request(a_png(1)), timeout=0.2)
        assert status is StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: runtime.gate.images == 1, "the end of the second request")
        hold.released.set()
        await first
        assert counted(runtime, "ModelInfer") == ["200", "504"]

    serve(tiny_root, use)


def test_a_fault_is_told_without_its_details(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(client: Client, runtime: Runtime) -> None:
        monkeypatch.setattr(runtime, "use", lambda *_: 1 / 0)
        status, message = await client.refused("ModelInfer", infer_request(a_png()))
        assert status is StatusCode.INTERNAL
        assert "zero" not in message
        assert "division by zero" in caplog.text
        monkeypatch.undo()

    serve(tiny_root, use)


def test_a_stream(tiny_root: Path, tiny: TinyModel) -> None:
    async def use(client: Client, runtime: Runtime) -> None:
        stream = client.stream()
        for seed in (0, 1):
            await stream.write(infer_request(a_png(seed), id=str(seed)))
        await stream.write(infer_request(b"no image", id="bad"))
        await stream.write(infer_request(a_png(3), id="3"))
        await stream.done_writing()
        answers = [answer async for answer in stream]
        assert [a.infer_response.id for a in answers] == ["0", "1", "bad", "3"]
        assert [bool(a.error_message) for a in answers] == [False, False, True, False]
        for seed, answer in ((0, answers[0]), (1, answers[1]), (3, answers[3])):
            wanted = tiny.logits([np.asarray(a_picture(seed))])
            np.testing.assert_allclose(logits(answer.infer_response), wanted, atol=1e-4)
        assert counted(runtime, "ModelStreamInfer") == ["200", "415"]

    serve(tiny_root, use)


def test_as_many_streams_as_the_queue_holds(tiny_root: Path) -> None:
    async def use(client: Client, _: Runtime) -> None:
        first = client.stream()
        await first.write(infer_request(a_png()))
        assert (await first.read()).infer_response.model_name == "tiny"
        second = client.stream()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await second.read()
        assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
        await first.done_writing()
        assert await first.read() is grpc.aio.EOF

    serve(tiny_root, use, max_queue=1)


def test_an_idle_stream_gives_its_place_back(tiny_root: Path) -> None:
    async def use(client: Client, _: Runtime) -> None:
        first = client.stream()
        assert await first.code() is StatusCode.ABORTED
        second = client.stream()
        await second.write(infer_request(a_png()))
        assert (await second.read()).infer_response.model_name == "tiny"
        second.cancel()

    serve(tiny_root, use, max_queue=1, keep_alive_s=0.5)


def test_a_stream_whose_answers_nobody_takes_gives_its_place_back(tiny_root: Path) -> None:
    async def use(client: Client, _: Runtime) -> None:
        first = client.stream(timeout=None)

        async def send() -> None:
            while True:  # each answer brings the id back
                await first.write(infer_request(id="x" * 2**18))

        async def has_place() -> bool:
            stream = client.stream()
            try:
                await stream.write(infer_request(a_png()))
                return bool((await stream.read()).infer_response.model_name)
            except grpc.aio.AioRpcError:
                return False
            finally:
                stream.cancel()

        await first.write(infer_request(id="first"))
        await first.read()
        sending = asyncio.create_task(send())
        async with asyncio.timeout(30):
            while not await has_place():
                assert not first.done()
        first.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    serve(tiny_root, use, max_queue=1, keep_alive_s=0.5)


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelInfer"])
def test_the_deadline_counts_while_the_request_comes(tiny_root: Path, method: str) -> None:
    async def use(client: Client, _: Runtime) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unfinished(method)
        assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED

    serve(tiny_root, use, deadline_s=0.05)


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ServerMetadata"])
def test_an_empty_request_is_not_waited_for(tiny_root: Path, method: str) -> None:
    async def use(client: Client, _: Runtime) -> None:
        assert await client.unfinished(method)

    serve(tiny_root, use)


def test_while_the_models_load(tiny_root: Path) -> None:
    async def use() -> None:
        runtime = Runtime(some_settings(tiny_root), Metrics(None), Workers(None, 1))
        async with connected(runtime) as (client, _):
            assert (await client.call("ServerLive", b"")).live
            assert not (await client.call("ServerReady", b"")).ready
            assert not (await client.call("ModelReady", pb.ModelReadyRequest(name="tiny"))).ready
            status, message = await client.refused("ModelInfer", infer_request(a_png()))
            assert (status, "loading" in message) == (StatusCode.UNAVAILABLE, True)

    asyncio.run(use())


def test_preprocessed_pixels(tiny_root: Path, tiny: TinyModel) -> None:
    pixels = np.asarray(a_picture(4))[np.newaxis]
    request = an_input(datatype="UINT8", shape=[1, SIDE, SIDE, 3])
    request.raw_input_contents.append(pixels.tobytes())

    async def use(client: Client, _: Runtime) -> None:
        answer = await client.call("ModelInfer", with_parameter(request, "preprocessed", bool_param=True))
        np.testing.assert_allclose(logits(answer), tiny.logits(list(pixels)), atol=1e-4)

    serve(tiny_root, use)
