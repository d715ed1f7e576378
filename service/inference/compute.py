"""What a slot does with a batch: pixels into it, the model, then what each request wants of its outputs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from model_store.manifest import Manifest
from service.errors import ImageError, InferenceFailed, ServiceError, bare
from service.images.decode import Costly, Ready
from service.images.decoding import AnyImage, Decoding
from service.inference.drift import Drift
from service.inference.outputs import OutputName, Outputs, Timings, finite, not_finite, union
from service.inference.session import Images, Session
from service.metrics import Metrics
from service.metrics.model import ModelMetrics
from service.tracing import Batch, Note

logger = logging.getLogger(__name__)

T = TypeVar("T")

Reader = Callable[[Outputs], T]
"""Makes of an image's outputs what the request wants; runs in the slot's thread, so it must be quick and not wait."""


@dataclass(slots=True)
class Query:
    """An image, which outputs are wanted of it, what becomes of them, and who traces it.

    timings -- set in the slot, where the image got through it.
    """

    image: AnyImage
    outputs: tuple[OutputName, ...]
    read: Reader[Any]
    queued_s: float
    note: Note | None
    timings: Timings | None = None


class Compute:
    """One model version's batches, of at most ``max_batch`` images; called in the slots' threads.

    A batch is a buffer of its thread, made once. Of each query it gives what its reader makes, or the error that takes
    its place: one image's fault is not its neighbours'.
    """

    def __init__(
        self,
        manifest: Manifest,
        session: Session,
        decoding: Decoding,
        max_batch: int,
        metrics: Metrics,
        counts: ModelMetrics,
        drift: Drift | None,
    ) -> None:
        self._manifest = manifest
        self.session = session
        self._decoding = decoding
        self._metrics = metrics
        self._counts = counts
        self._drift = drift
        self._buffers = threading.local()
        self._batch_shape = (max_batch, manifest.preprocessing.height, manifest.preprocessing.width, 3)

    def __call__(self, queries: list[Query], alone: bool) -> list[Any]:
        """A result a query, in order; noted where one of the requests is traced."""
        began_s = perf_counter()
        notes = [query.note for query in queries if query.note is not None]
        if not notes:
            return self._results(queries, alone, began_s)
        with Batch(self._manifest.name, self._manifest.version, len(queries), notes, began_s):
            results = self._results(queries, alone, began_s)
        for query, result in zip(queries, results, strict=True):
            if query.note is not None and isinstance(result, ServiceError):
                query.note.error = result.code
        return results

    def _results(self, queries: list[Query], alone: bool, began_s: float) -> list[Any]:
        batch = self._buffer()
        results: list[Any] = [None] * len(queries)
        rows: list[int] = []  # which query each row of the batch is of
        ready: list[Ready] = []  # the image of each row
        for number, query in enumerate(queries):
            try:
                filled = self._fill(batch[len(rows)], query)
            except (ImageError, Costly) as error:  # its row is the next image's
                results[number] = bare(error)
            except Exception:
                logger.exception("an image failed in a way that no check foresaw")
                results[number] = InferenceFailed("the service failed on this image")
            else:
                rows.append(number)
                ready.append(filled)
        if rows:
            names = queries[rows[0]].outputs if len(rows) == 1 else union(queries[number].outputs for number in rows)
            if self._drift is not None:
                names = self._drift.wanted(names)
            run_s = perf_counter()
            found = self.session.run(batch[: len(rows)], names, alone)
            infer_s = perf_counter() - run_s
            self._metrics.stage("infer", infer_s)
            self._counts.inferred(len(rows))
            with self._metrics.timed("post"):
                sound = finite(found["logits"])
                if self._drift is not None:
                    self._drift.saw(found, sound)
                self._counts.predicted(found["logits"] if sound.all() else found["logits"][sound])
                for row, number in enumerate(rows):
                    query = queries[number]
                    if query.note is not None:
                        query.note.infer = (run_s, run_s + infer_s)
                    query.timings = timings = Timings(ready[row].decode_s, began_s - query.queued_s, infer_s)
                    outputs = Outputs.of_row(found, row, timings, ready[row].decoded.whole)
                    results[number] = _read(query, outputs) if sound[row] else not_finite()
        return results

    def _buffer(self) -> Images:
        """This thread's batch, uint8 ``[max_batch, height, width, 3]``."""
        try:
            return self._buffers.batch  # type: ignore[no-any-return]
        except AttributeError:
            self._buffers.batch = np.empty(self._batch_shape, np.uint8)
            return self._buffers.batch  # type: ignore[no-any-return]

    def _fill(self, row: Images, query: Query) -> Ready:
        """Write the image into its row of the batch, decoded now where it was not ahead."""
        image = query.image
        if not isinstance(image, Ready):
            return self._decoding.ready(image, query.note, row)
        row[...] = image.decoded.pixels
        return image


def _read(query: Query, outputs: Outputs) -> Any:
    """What the request wants; where that fails, it is this request's failure, not the batch's."""
    try:
        return query.read(outputs)
    except ServiceError as error:
        return bare(error)
    except Exception:
        logger.exception("an answer could not be made of the model's outputs")
        return InferenceFailed("the service failed on this image")
