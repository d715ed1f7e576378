"""One image's way through one model: decode, transform, batch, infer, result."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from model_store.store import StoredModel
from model_store.transforms import to_tensor
from service.batcher import Batcher, Slots
from service.decode import Decoder
from service.errors import ImageError, InferenceFailed, ShuttingDown
from service.metrics import Metrics
from service.postprocess import Floats, Prediction, softmax, top_k
from service.session import Image, Session


@dataclass(frozen=True, slots=True)
class _Query:
    """What the batcher carries: a preprocessed image and how many classes are asked for."""

    tensor: Image
    k: int


class Pipeline:
    """Serves one model version."""

    def __init__(
        self,
        stored: StoredModel,
        session: Session,
        decoder: Decoder,
        decode_pool: ThreadPoolExecutor,
        slots: Slots,
        max_batch: int,
        metrics: Metrics,
    ) -> None:
        self.stored = stored
        self.session = session
        self.labels = stored.labels()
        self._preprocessing = stored.manifest.preprocessing
        self._decoder = decoder
        self._decode_pool = decode_pool
        self._metrics = metrics
        self._batcher: Batcher[_Query, list[Prediction] | InferenceFailed] = Batcher(
            self._infer, slots, max_batch, metrics.for_model(stored.manifest.name, stored.manifest.version)
        )

    async def classify(self, data: bytes, k: int, deadline: float) -> list[Prediction]:
        """The ``k`` best classes of one encoded image; ``deadline`` is on the event loop's clock."""
        if self._batcher.closed:
            raise ShuttingDown("the service is shutting down")
        loop = asyncio.get_running_loop()
        tensor = await loop.run_in_executor(self._decode_pool, self._decode, data)
        result = await self._batcher.submit(_Query(tensor, k), deadline)
        if isinstance(result, InferenceFailed):
            raise result
        return result

    async def classify_many(self, images: list[bytes], k: int, deadline: float) -> list[list[Prediction] | ImageError]:
        """One result an image, in order; a bad image gives its error in its place."""
        tasks = [asyncio.create_task(self._settled(data, k, deadline)) for data in images]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _settled(self, data: bytes, k: int, deadline: float) -> list[Prediction] | ImageError:
        try:
            return await self.classify(data, k, deadline)
        except ImageError as error:
            return error

    async def close(self) -> None:
        """Settle all that was taken."""
        await self._batcher.close()

    def _decode(self, data: bytes) -> Image:
        with self._metrics.timed("decode"):
            return to_tensor(self._decoder.decode(data), self._preprocessing)

    def _infer(self, queries: list[_Query]) -> list[list[Prediction] | InferenceFailed]:
        """In a slot's thread: the model, then what a person reads."""
        with self._metrics.timed("infer"):
            logits = self.session.logits([query.tensor for query in queries])
        with self._metrics.timed("post"):
            return [self._read(row, query.k) for row, query in zip(logits, queries, strict=True)]

    def _read(self, logits: Floats, k: int) -> list[Prediction] | InferenceFailed:
        """One image's answer; numbers that are none are its own failure, not its batch's."""
        if not np.isfinite(logits).all():
            return InferenceFailed("the model gave values that are no numbers for this image")
        return top_k(softmax(logits), self.labels, k)
