"""``inference.GRPCInferenceService``: what each method answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from time import perf_counter
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from service.access.holder import Holder
from service.batching.gate import Gate
from service.errors import (
    CLIENT_GONE,
    BodyTooLarge,
    DeadlineExceeded,
    NotReady,
    ServiceError,
    ShuttingDown,
    SlowClient,
)
from service.grpc import messages
from service.grpc import open_inference_pb2 as pb
from service.grpc.calls import Call, Context, Metadata
from service.grpc.statuses import code_of, status_code
from service.http.keys import holder_of
from service.inference.pipeline import Pipeline
from service.inference_protocol import metadata
from service.inference_protocol.inference import infer
from service.logs.request_log import plain_id
from service.logs.stages import CURRENT
from service.runtime import Runtime
from service.tracing import Traced

logger = logging.getLogger(__name__)

SERVICE: Final = "inference.GRPCInferenceService"

_OPEN: Final = ("ServerLive", "ServerReady")
"""Need no key: orchestrators ask them."""

_PARSE_ASIDE_FROM_BYTES: Final = 2**16

# A client's deadline runs from when it sent the call, ours from when it came: the client is the first to give up.
_CLOCKS_DIFFER_S: Final = 0.1

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Methods:
    """All messages come and go as bytes: what is malformed is then an error of ours, not of gRPC's."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._limits = runtime.settings.limits
        self._idle_s = runtime.settings.connections.keep_alive_s
        self._keys = runtime.access.keys
        self._streams = Gate(self._limits.max_queue)  # an open stream holds a request at most
        self._stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop_streams(self) -> None:
        """End the streams, each after the request it is at."""
        if not self._stopping.done():
            self._stopping.set_result(None)

    def handlers(self) -> grpc.GenericRpcHandler:
        """The service, as gRPC finds its methods.

        Those of one request take a stream of one, which is the same on the wire: else gRPC would read it before it
        calls us, and so before the key, the deadline and the gate.
        """
        unary: dict[str, Callable[[Call, Context], Awaitable[Message]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                **{name: grpc.stream_unary_rpc_method_handler(self._unary(name, do)) for name, do in unary.items()},
                "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._model_stream_infer),
            },
        )

    # The requests of the next three are empty: nobody waits for them.

    async def _server_live(self, call: Call, context: Context) -> Message:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, call: Call, context: Context) -> Message:
        return pb.ServerReadyResponse(ready=self._runtime.unready is None)

    async def _server_metadata(self, call: Call, context: Context) -> Message:
        return messages.server_metadata(metadata.SERVER)

    async def _model_ready(self, call: Call, context: Context) -> Message:
        request = await self._read(pb.ModelReadyRequest, context)
        try:
            with self._use(call, request.name, request.version):
                return pb.ModelReadyResponse(ready=True)
        except (NotReady, ShuttingDown):
            return pb.ModelReadyResponse(ready=False)

    async def _model_metadata(self, call: Call, context: Context) -> Message:
        request = await self._read(pb.ModelMetadataRequest, context)
        with self._use(call, request.name, request.version) as pipeline:
            return messages.model_metadata(metadata.model_metadata(self._runtime, pipeline))

    def _use(self, call: Call, name: str, version: str) -> AbstractContextManager[Pipeline]:
        return self._runtime.use_for(call, name, version or None)

    async def _read(self, kind: type[M], context: Context) -> M:
        return messages.read_message(kind, await self._request(context), self._limits.images_per_request)

    async def _request(self, context: Context) -> bytes:
        data = await context.read()
        if not isinstance(data, bytes):  # EOF: gRPC itself has told the client that it is too large
            raise BodyTooLarge(f"no request came, or one of more than {self._limits.max_body_bytes} bytes")
        return data

    def _unary(
        self, name: str, do: Callable[[Call, Context], Awaitable[Message]]
    ) -> Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]]:
        async def method(_: AsyncIterator[bytes], context: Context) -> bytes:
            async with self._answered(name, context) as call:
                answer = await do(call, context)
            return answer.SerializeToString()

        return method

    async def _model_infer(self, call: Call, context: Context) -> Message:
        with self._runtime.gate.admit(call.holder) as ticket:
            began_s = perf_counter()
            data = await self._request(context)
            call.stages.read_s = perf_counter() - began_s
            self._runtime.metrics.stage("read", call.stages.read_s)
            ticket.hold(len(data))
            return await self._infer(call, data, ticket.extend)

    async def _infer(self, call: Call, data: bytes, room_for: Callable[[int], None]) -> pb.ModelInferResponse:
        self._runtime.metrics.received(len(data))
        call.stages.received_bytes = len(data)
        most = self._limits.images_per_request
        message = await self._aside(data, messages.read_message, pb.ModelInferRequest, data, most)
        call.request_id = message.id
        with self._use(call, message.model_name, message.model_version) as pipeline:
            request = await self._aside(data, messages.read_infer, message, most)
            call.stages.images = len(request.images)
            room_for(len(request.images))
            return messages.infer_response(await infer(pipeline, request, call.deadline))

    async def _aside(self, data: bytes, work: Callable[..., T], *arguments: Any) -> T:
        """What ``work`` gives; in another thread where ``data`` is long enough to hold up the event loop."""
        if len(data) < _PARSE_ASIDE_FROM_BYTES:
            return work(*arguments)
        return await self._runtime.in_decode_pool(work, *arguments)

    async def _model_stream_infer(self, _: AsyncIterator[bytes], context: Context) -> None:
        """One request after the other, answered in their order; one that fails does not end the stream."""
        began = perf_counter()
        try:
            self._check_key(context.invocation_metadata() or ())
            with self._streams.admit() as place:
                place.extend(1)
                while (data := await self._next(context)) is not None:
                    answer = await self._stream_answer(data, context)
                    await self._write(answer.SerializeToString(), context)
        except ServiceError as error:
            if not isinstance(error, (SlowClient, ShuttingDown)):  # refused; those end a stream whose calls are told
                call = self._call("ModelStreamInfer", context, remaining_s=None)
                self._tell(call, error.status, error.code, perf_counter() - began)
            await context.abort(status_code(error), error.message)

    async def _next(self, context: Context) -> bytes | None:
        """The stream's next request; None at its end. ``ShuttingDown`` where the service's end comes first,
        ``SlowClient`` where nothing comes for as long as HTTP keeps a connection without a request."""
        reading = asyncio.ensure_future(context.read())
        either: list[asyncio.Future[Any]] = [reading, self._stopping]
        try:
            done, _ = await asyncio.wait(either, timeout=self._idle_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise SlowClient(f"no request came within {self._idle_s:g} s")
            if reading not in done:
                raise ShuttingDown("the service is shutting down")
            data = reading.result()
        finally:
            reading.cancel()
        return data if isinstance(data, bytes) else None

    async def _write(self, data: bytes, context: Context) -> None:
        """``SlowClient`` where the client does not take it."""
        try:
            async with asyncio.timeout(self._idle_s):
                await context.write(data)
        except TimeoutError as error:
            raise SlowClient(f"an answer was not taken within {self._idle_s:g} s") from error

    async def _stream_answer(self, data: bytes, context: Context) -> pb.ModelStreamInferResponse:
        call = self._call("ModelStreamInfer", context, remaining_s=None)  # the client's deadline is the stream's
        try:
            async with self._settled(call):
                with self._runtime.gate.admit(call.holder) as ticket:
                    ticket.hold(len(data))
                    return pb.ModelStreamInferResponse(infer_response=await self._infer(call, data, ticket.extend))
        except ServiceError as error:
            failed = pb.ModelInferResponse(id=call.request_id)
            return pb.ModelStreamInferResponse(error_message=error.message, infer_response=failed)

    def _check_key(self, sent: Metadata) -> Holder | None:
        """Whose key came with a call; ``Unauthorized`` where one is needed and missing or wrong."""
        if self._keys is None:
            return None
        values = {name: value for name, value in sent if isinstance(value, str)}
        return holder_of(self._keys, values.get)

    def _call(self, method: str, context: Context, remaining_s: float | None) -> Call:
        """A call's deadline is the sooner of the client's and the service's."""
        left_s = self._limits.deadline_s if remaining_s is None else min(self._limits.deadline_s, remaining_s)
        return Call(method, context.invocation_metadata() or (), asyncio.get_running_loop().time() + left_s)

    @asynccontextmanager
    async def _answered(self, method: str, context: Context) -> AsyncIterator[Call]:
        """What happens in the block is the call; what is raised there becomes its status."""
        call = self._call(method, context, context.time_remaining())
        try:
            async with self._settled(call):
                yield call
        except ServiceError as error:
            await context.abort(status_code(error), error.message)

    @asynccontextmanager
    async def _settled(self, call: Call) -> AsyncIterator[None]:
        """Keeps the deadline, counts the call, and makes every failure one of ours."""
        with self._runtime.tracing.rpc(SERVICE, call.method, call.metadata) as traced:
            async with self._counted(call, traced):
                yield

    def _tell(self, call: Call, status: int, code: str, seconds: float) -> None:
        """The metrics and the log of what became of ``call``."""
        self._runtime.metrics.answered(call.route, call.model, call.version, status, seconds, code)
        self._runtime.requests.answered(
            plain_id(call.request_id), "", call.route, status, code, call.model, call.version, seconds, call.stages
        )

    @asynccontextmanager
    async def _counted(self, call: Call, traced: Traced) -> AsyncIterator[None]:
        began = perf_counter()
        status, code = CLIENT_GONE, "client_gone"
        CURRENT.set(call.stages)
        try:
            if call.method not in _OPEN:
                call.holder = self._check_key(call.metadata)
            async with asyncio.timeout_at(call.deadline):
                yield
            status, code = 200, ""
        except ServiceError as error:
            status, code = error.status, error.code
            if status >= 500 and not isinstance(error, (NotReady, ShuttingDown)):
                logger.error("%s %s: %s", call.route, call.request_id[:128], error.message)
            raise
        except TimeoutError as error:
            status, code = DeadlineExceeded.status, DeadlineExceeded.code
            raise DeadlineExceeded("the deadline passed before the answer was there") from error
        except asyncio.CancelledError:
            if call.deadline - asyncio.get_running_loop().time() < _CLOCKS_DIFFER_S:
                status, code = DeadlineExceeded.status, DeadlineExceeded.code
            raise
        except Exception as error:
            logger.exception("%s %s failed", call.route, call.request_id[:128])
            status, code = ServiceError.status, ServiceError.code
            raise ServiceError("the service failed; the request's id helps its operator") from error
        finally:
            self._tell(call, status, code, perf_counter() - began)
            traced.answered(status, call.model, call.version, code_of(status).name)
