"""One image's way through one model: decode, transform, batch, infer, result."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, TypeVar, cast

import numpy as np
from PIL import Image

from model_store.store import StoredModel
from service.apart import Apart
from service.batcher import Batcher
from service.decode import Costly, Decoded, Decoder, Ready, sniff
from service.drift import Drift
from service.errors import DeadlineExceeded, ImageError, InferenceFailed, ServiceError, ShuttingDown
from service.forming import Forming
from service.metrics import Metrics
from service.metrics.predictions import counted_as
from service.metrics.recorder import ModelMetrics
from service.outputs import OutputName, Outputs, Timings, union
from service.postprocess import Floats, Prediction, softmax, top_k
from service.session import Images, Session
from service.slots import Slots
from service.stages import CURRENT
from service.tracing import Batch, Note, note

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOGITS: Final[tuple[OutputName, ...]] = ("logits",)

Reader = Callable[[Outputs], T]
"""Makes of an image's outputs what the request wants; runs in the slot's thread, so it must be quick and not wait."""


AnyImage = bytes | Images | Ready


@dataclass(slots=True)
class _Query:
    """What the batcher carries: an image, which outputs are wanted of it, what becomes of them, and who traces it.

    timings -- set in the slot, where the image got through it.
    """

    image: AnyImage
    outputs: tuple[OutputName, ...]
    read: Reader[Any]
    queued_s: float
    note: Note | None
    timings: Timings | None = None


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
        self.session = session
        self.labels = stored.labels()
        calibration = stored.manifest.calibration
        self.temperature = 1.0 if calibration is None else calibration.temperature
        self._preprocessing = stored.manifest.preprocessing
        self._decoder = decoder
        self._decode_pool = decode_pool
        self._apart = apart
        self._metrics = metrics
        self._buffers = threading.local()
        self._batch_shape = (forming.max_batch, self._preprocessing.height, self._preprocessing.width, 3)
        self._counts = _counts(metrics, stored, self.labels, self.temperature)
        self._batcher: Batcher[_Query, Any] = Batcher(self._infer, slots, forming, self._counts)

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
        result = await self._submit(image, read, deadline, outputs)
        if isinstance(result, ServiceError):
            raise result
        return result

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
            queries = [_Query(image, outputs, read, now_s, note()) for image in images]
            results = await self._batcher.submit_all(queries, deadline)
            _tell_request(queries)
            if any(isinstance(result, Costly) for result in results):
                results = await self._with_costly(images, results, read, deadline, outputs)
        else:
            results = await _all(self._settled(image, read, deadline, outputs) for image in images)
        return [_one_of_many(result) for result in results]

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
                ready = await asyncio.get_running_loop().run_in_executor(self._decode_pool, self._decode, image, noted)
            except Costly:
                ready = await self._decode_apart(image, noted, deadline)
        query = _Query(ready, outputs, read, perf_counter(), noted)
        result: T | ServiceError | Costly = await self._batcher.submit(query, deadline)
        if isinstance(result, Costly):
            query = _Query(await self._decode_apart(image, noted, deadline), outputs, read, perf_counter(), noted)
            result = await self._batcher.submit(query, deadline)
        _tell_request((query,))
        return cast("T | ServiceError", result)

    async def _decode_apart(self, image: AnyImage, noted: Note | None, deadline: float) -> Ready:
        """A costly image, decoded in a process that is ended where it takes too much."""
        if self._apart is None or not isinstance(image, bytes):
            raise RuntimeError("costly images are files, and there is no process for them")
        tensor = functools.partial(self._apart.tensor, image, self._preprocessing)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.get_running_loop().run_in_executor(
                    self._apart.threads, self._noted, image, noted, tensor
                )
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed while the image was decoded") from error

    async def _with_costly(
        self,
        images: Sequence[AnyImage],
        results: Sequence[Any],
        read: Reader[T],
        deadline: float,
        outputs: tuple[OutputName, ...],
    ) -> list[Any]:
        """``results`` with those in the place of the costly ones."""

        async def settled(image: AnyImage) -> T | ServiceError:
            try:
                ready = await self._decode_apart(image, note(), deadline)
            except ImageError as error:
                return error
            return await self._submit(ready, read, deadline, outputs)

        costly = [number for number, result in enumerate(results) if isinstance(result, Costly)]
        found = await _all(settled(images[number]) for number in costly)
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
            return error

    @property
    def load(self) -> tuple[int, int]:
        """How many images wait for a slot, and how many are in one."""
        return self._batcher.queued, self._batcher.computing

    async def close(self) -> None:
        """Settle all that was taken."""
        await self._batcher.close()
        self._counts.close()

    def upright(self, image: bytes) -> Image.Image:
        """The whole ``image``, upright and RGB; as slow as decoding is, so nothing for the event loop."""
        try:
            return self._decoder.decode(image)
        except Costly:
            if self._apart is None:
                raise
            return self._apart.decode(image)

    def _decode(self, image: bytes | Images, noted: Note | None, out: Images | None = None) -> Ready:
        return self._noted(image, noted, lambda: self._decoder.tensor(image, self._preprocessing, out))

    def _noted(self, image: bytes | Images, noted: Note | None, decode: Callable[[], Decoded]) -> Ready:
        """What ``decode`` makes of ``image``, timed, counted and told to the request's trace."""
        began_s = perf_counter()
        try:
            decoded = decode()
        except ImageError as error:
            self._metrics.decode_failed(sniff(image) if isinstance(image, bytes) else "pixels", error.code)
            if noted is not None:
                noted.error = error.code
            raise
        finally:
            decode_s = perf_counter() - began_s
            if noted is not None:
                noted.decode = (began_s, began_s + decode_s)
        self._metrics.stage("decode", decode_s - decoded.transform_s)
        self._metrics.stage("transform", decoded.transform_s)
        return Ready(decoded, decode_s)

    def _buffer(self) -> Images:
        """This thread's batch, uint8 ``[max_batch, height, width, 3]``, made once."""
        try:
            return self._buffers.batch  # type: ignore[no-any-return]
        except AttributeError:
            self._buffers.batch = np.empty(self._batch_shape, np.uint8)
            return self._buffers.batch  # type: ignore[no-any-return]

    def _infer(self, queries: list[_Query], alone: bool) -> list[Any]:
        """In a slot's thread: what ``_compute`` gives, noted where one of the requests is traced."""
        began_s = perf_counter()
        notes = [query.note for query in queries if query.note is not None]
        if not notes:
            return self._compute(queries, alone, began_s)
        manifest = self.stored.manifest
        with Batch(manifest.name, manifest.version, len(queries), notes, began_s):
            results = self._compute(queries, alone, began_s)
        for query, result in zip(queries, results, strict=True):
            if query.note is not None and isinstance(result, ServiceError):
                query.note.error = result.code
        return results

    def _compute(self, queries: list[_Query], alone: bool, began_s: float) -> list[Any]:
        """Pixels into the batch, the model, then what each request wants of it."""
        batch = self._buffer()
        results: list[Any] = [None] * len(queries)
        rows: list[int] = []  # which query each row of the batch is of
        ready: list[Ready] = []  # the image of each row
        for number, query in enumerate(queries):
            try:
                filled = self._fill(batch[len(rows)], query)
            except (ImageError, Costly) as error:  # its row is the next image's
                results[number] = error
            except Exception:
                logger.exception("an image failed in a way that no check foresaw")
                results[number] = InferenceFailed("the service failed on this image")
            else:
                rows.append(number)
                ready.append(filled)
        if rows:
            names = queries[rows[0]].outputs if len(rows) == 1 else union(queries[number].outputs for number in rows)
            if self.drift is not None:
                names = self.drift.wanted(names)
            run_s = perf_counter()
            found = self.session.run(batch[: len(rows)], names, alone)
            infer_s = perf_counter() - run_s
            self._metrics.stage("infer", infer_s)
            self._counts.inferred(len(rows))
            with self._metrics.timed("post"):
                sound = np.atleast_1d(np.isfinite(found["logits"]).all(axis=-1))
                if self.drift is not None:
                    self.drift.saw(found, sound)
                self._counts.predicted(found["logits"] if sound.all() else found["logits"][sound])
                for row, number in enumerate(rows):
                    query = queries[number]
                    if query.note is not None:
                        query.note.infer = (run_s, run_s + infer_s)
                    query.timings = timings = Timings(ready[row].decode_s, began_s - query.queued_s, infer_s)
                    outputs = Outputs.of_row(found, row, timings, ready[row].decoded.whole)
                    results[number] = _read(query, outputs) if sound[row] else _no_numbers()
        return results

    def _fill(self, row: Images, query: _Query) -> Ready:
        """Write the image into its row of the batch, decoded now where it was not ahead."""
        image = query.image
        if not isinstance(image, Ready):
            return self._decode(image, query.note, row)
        row[...] = image.decoded.pixels
        return image


def _counts(metrics: Metrics, stored: StoredModel, labels: Sequence[str], temperature: float) -> ModelMetrics:
    manifest = stored.manifest
    classes = counted_as(labels, None if manifest.reference is None else manifest.reference.top_classes)
    return metrics.for_model(manifest.name, manifest.version, classes, temperature)


async def _all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of ``work`` gives, at once; the first failure ends the rest and is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _tell_request(queries: Sequence[_Query]) -> None:
    """The request that this task answers hears what its images took."""
    stages = CURRENT.get()
    if stages is not None:
        for query in queries:
            if query.timings is not None:
                stages.computed(query.timings)


def _no_numbers() -> InferenceFailed:
    return InferenceFailed("the model gave values that are no numbers for this image")


def _read(query: _Query, outputs: Outputs) -> Any:
    """What the request wants; where that fails, it is this request's failure, not the batch's."""
    try:
        return query.read(outputs)
    except ServiceError as error:
        return error
    except Exception:
        logger.exception("an answer could not be made of the model's outputs")
        return InferenceFailed("the service failed on this image")


def _one_of_many(result: Any) -> Any:
    """What one image of several is answered with; a failure that is not its own fails all."""
    if isinstance(result, ServiceError) and not isinstance(result, ImageError):
        raise result
    return result
