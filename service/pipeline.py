"""One image's way through one model: decode, transform, batch, infer, result."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from model_store.store import StoredModel
from service.batcher import Batcher
from service.decode import Decoder
from service.errors import ImageError, InferenceFailed, ServiceError, ShuttingDown
from service.forming import Forming
from service.metrics import Metrics
from service.postprocess import Floats, Prediction, softmax, top_k
from service.session import Images, Session
from service.slots import Slots

logger = logging.getLogger(__name__)

Outcome = list[Prediction] | ServiceError


@dataclass(frozen=True, slots=True)
class _Query:
    """What the batcher carries: an image, encoded or as pixels, and how many classes are asked for."""

    image: bytes | Images
    k: int


class Pipeline:
    """Serves one model version.

    Without a ``decode_pool`` images are decoded in the slot that infers them, right
    before: where slots are cores, that is one hand-off less and never more threads
    at work than cores. With one they are decoded ahead, while an accelerator
    computes.
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
    ) -> None:
        self.stored = stored
        self.session = session
        self.labels = stored.labels()
        self._preprocessing = stored.manifest.preprocessing
        self._decoder = decoder
        self._decode_pool = decode_pool
        self._metrics = metrics
        self._buffers = threading.local()
        self._batch_shape = (forming.max_batch, self._preprocessing.height, self._preprocessing.width, 3)
        self._batcher: Batcher[_Query, Outcome] = Batcher(
            self._infer, slots, forming, metrics.for_model(stored.manifest.name, stored.manifest.version)
        )

    async def classify(self, data: bytes, k: int, deadline: float) -> list[Prediction]:
        """The ``k`` best classes of one encoded image; ``deadline`` is on the event loop's clock."""
        image: bytes | Images = data
        if self._decode_pool is not None:
            if self._batcher.closed:
                raise ShuttingDown("the service is shutting down")
            image = await asyncio.get_running_loop().run_in_executor(self._decode_pool, self._decode, data)
        outcome = await self._batcher.submit(_Query(image, k), deadline)
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome

    async def classify_many(self, images: list[bytes], k: int, deadline: float) -> list[list[Prediction] | ImageError]:
        """One result an image, in order; a bad image gives its error in its place."""
        if self._decode_pool is None:
            outcomes = await self._batcher.submit_all([_Query(data, k) for data in images], deadline)
        else:
            tasks = [asyncio.create_task(self._settled(data, k, deadline)) for data in images]
            try:
                outcomes = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
        return [_answer(outcome) for outcome in outcomes]

    async def _settled(self, data: bytes, k: int, deadline: float) -> Outcome:
        try:
            return await self.classify(data, k, deadline)
        except ImageError as error:
            return error

    async def close(self) -> None:
        """Settle all that was taken."""
        await self._batcher.close()

    def _decode(self, data: bytes, out: Images | None = None) -> Images:
        with self._metrics.timed("decode"):
            return self._decoder.tensor(data, self._preprocessing, out)

    def _buffer(self) -> Images:
        """This thread's batch, uint8 ``[max_batch, height, width, 3]``, made once."""
        try:
            return self._buffers.batch  # type: ignore[no-any-return]
        except AttributeError:
            self._buffers.batch = np.empty(self._batch_shape, np.uint8)
            return self._buffers.batch  # type: ignore[no-any-return]

    def _infer(self, queries: list[_Query], alone: bool) -> list[Outcome]:
        """In a slot's thread: pixels into the batch, the model, then what a person reads."""
        batch = self._buffer()
        outcomes: list[Outcome | None] = [None] * len(queries)
        rows: list[int] = []  # which query each row of the batch is of
        for number, query in enumerate(queries):
            row = batch[len(rows)]
            if isinstance(query.image, bytes):
                try:
                    self._decode(query.image, row)
                except ImageError as error:  # its row is the next image's
                    outcomes[number] = error
                    continue
                except Exception:
                    logger.exception("an image failed in a way that no check foresaw")
                    outcomes[number] = InferenceFailed("the service failed on this image")
                    continue
            else:
                row[...] = query.image
            rows.append(number)
        if rows:
            with self._metrics.timed("infer"):
                logits = self.session.logits(batch[: len(rows)], alone)
            with self._metrics.timed("post"):
                for number, predictions in zip(rows, self._read(logits, queries, rows), strict=True):
                    outcomes[number] = predictions
        return [outcome for outcome in outcomes if outcome is not None]

    def _read(self, logits: Floats, queries: list[_Query], rows: list[int]) -> Iterator[Outcome]:
        """Each row's answer; numbers that are none are their image's failure, not the batch's."""
        sound = np.atleast_1d(np.isfinite(logits).all(axis=-1))
        for number, is_sound, probabilities in zip(rows, sound, softmax(logits), strict=True):
            if is_sound:
                yield top_k(probabilities, self.labels, queries[number].k)
            else:
                yield InferenceFailed("the model gave values that are no numbers for this image")


def _answer(outcome: Outcome) -> list[Prediction] | ImageError:
    """What one image of several is answered with; a failure that is not its own fails all."""
    if isinstance(outcome, ServiceError) and not isinstance(outcome, ImageError):
        raise outcome
    return outcome
