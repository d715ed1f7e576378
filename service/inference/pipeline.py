"""One image's way through one model, as the event loop sees it: decoded, queued, computed in a slot, answered."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from time import perf_counter
from typing import Any, Final, TypeVar, cast

import numpy as np
from PIL import Image

from model_store.stored_model import StoredModel
from service.batching.batcher import Batcher
from service.batching.forming import Forming
from service.batching.slots import Slots
from service.errors import DeadlineExceeded, ImageError, ServiceError, ShuttingDown, bare
from service.images.apart import Apart
from service.images.decode import Costly, Decoder, Ready
from service.images.decoding import AnyImage, Decoding
from service.inference.compute import Compute, Query, Reader
from service.inference.drift import Drift
from service.inference.outputs import OutputName
from service.inference.postprocess import Floats, Prediction, softmax, top_k
from service.inference.session import Session
from service.logs.stages import CURRENT
from service.metrics import Metrics
from service.metrics.model import ModelMetrics
from service.metrics.predictions import counted_as
from service.tracing import Note, note

T = TypeVar("T")

LOGITS: Final[tuple[OutputName, ...]] = ("logits",)


class Pipeline:
    """Serves one model version.

    An image is its encoded bytes, or RGB pixels as uint8 ``[height, width, 3]`` of any size, which take the same way
    as a lossless file of them, or ``Ready``, which is taken as it is.

    Without a ``decode_pool`` images are decoded in the slot that infers them, right
    before: where slots are cores, that is one hand-off less and never more threads
    at work than cores. With one they are decoded ahead, while an accelerator
    computes. Images that are ``Costly`` come back from there and are decoded
    ``apart``, so that no slot waits for them.
    """

    def __init__(
        self,
        stored: StoredModel,
        session: Session,
        decoder: Decoder,
        decode_pool: ThreadPoolExecutor | None,
        slots: Slots,
        forming: Forming,
        metrics: Metrics,
        drift: Drift | None = None,
        apart: Apart | None = None,
    ) -> None:
        self.stored = stored
        self.drift = drift
        self.labels = stored.labels()
        calibration = stored.manifest.calibration
        self.temperature = 1.0 if calibration is None else calibration.temperature
        self.max_batch = forming.max_batch
        self._decoding = Decoding(decoder, stored.manifest.preprocessing, metrics)
        self._decode_pool = decode_pool
        self._apart = apart
        self._counts = _counts(metrics, stored, self.labels, self.temperature)
        self._compute = Compute(
            stored.manifest, session, self._decoding, forming.max_batch, metrics, self._counts, drift
        )
        self._batcher: Batcher[Query, Any] = Batcher(self._compute, slots, forming, self._counts)

    @property
    def session(self) -> Session:
        return self._compute.session

    def probabilities(self, logits: Floats) -> Floats:
        """Of 0..1 over the last axis, at the model's calibrated temperature."""
        return softmax(logits if self.temperature == 1 else logits / np.float32(self.temperature))

    def top(self, k: int) -> Reader[list[Prediction]]:
        """Reads the ``k`` best classes."""
        return lambda outputs: top_k(self.probabilities(outputs.logits), self.labels, k)

    async def run(
        self,
        image: AnyImage,
        read: Reader[T],
        deadline: float,
        outputs: tuple[OutputName, ...] = LOGITS,
    ) -> T:
        """What ``read`` makes of the image's ``outputs``; ``deadline`` is on the event loop's clock."""
        return _raised(await self._submit(image, read, deadline, outputs))

    async def run_many(
        self,
        images: Sequence[AnyImage],
        read: Reader[T],
        deadline: float,
        outputs: tuple[OutputName, ...] = LOGITS,
    ) -> list[T | ImageError]:
        """One result an image, in order; a bad image gives its error in its place, another failure fails all."""
        if self._decode_pool is None:
            now_s = perf_counter()
            queries = [Query(image, outputs, read, now_s, note()) for image in images]
            results = await self._batcher.submit_all(queries, deadline)
            _tell_request(queries)
            if any(isinstance(result, Costly) for result in results):
                results = await self._with_costly(queries, results, deadline)
        else:
            results = await _all(self._settled(image, read, deadline, outputs) for image in images)
        return [result if isinstance(result, ImageError) else _raised(result) for result in results]

    async def run_each(
        self,
        images: Sequence[AnyImage],
        read: Reader[T],
        deadline: float,
        outputs: tuple[OutputName, ...] = LOGITS,
    ) -> list[T | ImageError]:
        """``run_many``, but where there is one image alone, its error is raised."""
        if len(images) == 1:
            return [await self.run(images[0], read, deadline, outputs)]
        return await self.run_many(images, read, deadline, outputs)

    async def _submit(
        self, image: AnyImage, read: Reader[T], deadline: float, outputs: tuple[OutputName, ...]
    ) -> T | ServiceError:
        ready, noted = image, note()
        if self._decode_pool is not None and not isinstance(image, Ready):
            if self._batcher.closed:
                raise ShuttingDown("the service is shutting down")
            try:
                decode = functools.partial(self._decoding.ready, image, noted)
                ready = await asyncio.get_running_loop().run_in_executor(self._decode_pool, decode)
            except Costly:
                ready = await self._decode_apart(image, noted, deadline)
        query = Query(ready, outputs, read, perf_counter(), noted)
        result: T | ServiceError | Costly = await self._batcher.submit(query, deadline)
        if isinstance(result, Costly):
            return cast("T | ServiceError", await self._again(query, deadline))
        _tell_request((query,))
        return result

    async def _again(self, query: Query, deadline: float) -> Any:
        """What becomes of a query that came back from its slot, as its image is costly."""
        ready = await self._decode_apart(query.image, query.note, deadline)
        query = Query(ready, query.outputs, query.read, perf_counter(), query.note)
        result = await self._batcher.submit(query, deadline)
        _tell_request((query,))
        return result

    async def _decode_apart(self, image: AnyImage, noted: Note | None, deadline: float) -> Ready:
        """A costly image, decoded in a process that is ended where it takes too much."""
        if self._apart is None or not isinstance(image, bytes):
            raise RuntimeError("costly images are files, and there is no process for them")
        tensor = functools.partial(self._apart.tensor, image, self.stored.manifest.preprocessing)
        decode = functools.partial(self._decoding.noted, image, noted, tensor)
        return await _in_time(self._apart.threads, decode, deadline)

    async def _with_costly(self, queries: Sequence[Query], results: Sequence[Any], deadline: float) -> list[Any]:
        """``results`` with those in the place of the costly ones."""

        async def settled(query: Query) -> Any:
            try:
                return await self._again(query, deadline)
            except ImageError as error:
                return bare(error)

        costly = [number for number, result in enumerate(results) if isinstance(result, Costly)]
        found = await _all(settled(queries[number]) for number in costly)
        whole = [*results]
        for number, result in zip(costly, found, strict=True):
            whole[number] = result
        return whole

    async def _settled(
        self, image: AnyImage, read: Reader[T], deadline: float, outputs: tuple[OutputName, ...]
    ) -> T | ServiceError:
        try:
            return await self._submit(image, read, deadline, outputs)
        except ImageError as error:
            return bare(error)

    @property
    def load(self) -> tuple[int, int]:
        """How many images wait for a slot, and how many are in one."""
        return self._batcher.queued, self._batcher.computing

    async def close(self) -> None:
        """Settle all that was taken."""
        await self._batcher.close()
        self._counts.close()

    def release(self) -> Session:
        """The session, which this has no more; for the end, as it is what is large, and this is part of cycles."""
        session = self._compute.session
        del self._compute.session
        return session

    def upright(self, image: bytes) -> Image.Image:
        """The whole ``image``, upright and RGB; ``Costly`` where that is for ``upright_apart``. For a decode thread."""
        return self._decoding.decoder.decode(image)

    async def upright_apart(self, image: bytes, deadline: float) -> Image.Image:
        """As ``upright``, for a costly image."""
        if self._apart is None:
            raise RuntimeError("there is no process for costly images")
        return await _in_time(self._apart.threads, functools.partial(self._apart.decode, image), deadline)


def _counts(metrics: Metrics, stored: StoredModel, labels: Sequence[str], temperature: float) -> ModelMetrics:
    manifest = stored.manifest
    classes = counted_as(labels, None if manifest.reference is None else manifest.reference.top_classes)
    return metrics.for_model(manifest.name, manifest.version, classes, temperature)


async def _in_time(threads: Executor, decode: Callable[[], T], deadline: float) -> T:
    try:
        async with asyncio.timeout_at(deadline):
            return await asyncio.get_running_loop().run_in_executor(threads, decode)
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed while the image was decoded") from error


async def _all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of ``work`` gives, at once; the first failure ends the rest and is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _tell_request(queries: Sequence[Query]) -> None:
    """The request that this task answers hears what its images took."""
    stages = CURRENT.get()
    if stages is not None:
        for query in queries:
            if query.timings is not None:
                stages.computed(query.timings)


def _raised(result: T | ServiceError) -> T:
    """``result``, raised where it is an error."""
    if not isinstance(result, ServiceError):
        return result
    try:
        raise result
    finally:
        del result  # or its traceback, which has this frame, would hold it
