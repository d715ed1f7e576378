"""Encoded images to rows: the service's decoder, session and arithmetic, without its queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_store.locations import open_store
from model_store.stored_model import StoredModel
from service.bulk.parts import BulkError
from service.config import Settings
from service.errors import ServiceError
from service.images.apart import Apart
from service.images.decode import Costly, Decoded, Decoder
from service.inference.outputs import OutputName, finite, not_finite
from service.inference.postprocess import Floats, Prediction, energy, softmax, top_k
from service.inference.session import Images
from service.metrics import Metrics
from service.models.loader import Loader
from service.process.cpus import available_cpus


@dataclass(frozen=True, slots=True)
class Row:
    """What is said of one image: ``error``, or all the rest.

    energy    -- the out-of-distribution score; docs/api.md.
    size      -- width and height of the upright image.
    embedding -- float32 ``[D]``, where it was asked for.
    """

    key: str
    error: ServiceError | None = None
    predictions: Sequence[Prediction] = ()
    energy: float | None = None
    size: tuple[int, int] | None = None
    embedding: Floats | None = None


def find_model(settings: Settings, reference: str | None) -> StoredModel:
    """The model that ``NAME`` or ``NAME@VERSION`` means, verified; by default the store's only one.

    Raises ``StoreError``, and ``BulkError`` where the store has several.
    """
    store = open_store(settings.store.model_store, settings.store.store_cache)
    if reference is None:
        names = store.names()
        if len(names) != 1:
            raise BulkError(f"{store}: name one with --model: {', '.join(names) or 'it has no model'}")
        reference = names[0]
    stored = store.find(reference)
    stored.verify()
    return stored


class Scorer:
    """One model, open and warm on ``cores``, by default all that this process may use.

    It takes images of at most ``max_bytes`` bytes. ``score`` may run in ``slots`` threads at once, each with a
    ``buffer`` of its own. Raises ``StartError``.
    """

    def __init__(self, settings: Settings, stored: StoredModel, k: int, embed: bool, cores: int | None = None) -> None:
        manifest = stored.manifest
        classes = manifest.outputs.classes
        if k > classes:
            raise BulkError(f"--top-k {k}: the model has {classes} classes")
        if embed and manifest.outputs.embedding is None:
            raise BulkError(f"--embed: model {manifest.name!r} has no embedding: its last layer is no linear one")
        # One image alone is none of bulk's cases, and the second session takes memory.
        inference = settings.inference.model_copy(update={"spread_lone_image": False})
        loader = Loader(settings.model_copy(update={"inference": inference}), Metrics(None), cores or available_cpus())
        opened = loader.open(stored, ())
        self.stored = stored
        self.slots = opened.session.slots
        self.batch = opened.tuned.settings.inference.max_batch
        self.provider = opened.session.provider
        self.precision = opened.session.variant.precision
        self.sha256 = opened.session.variant.sha256
        self.max_bytes = settings.limits.max_body_bytes
        self._session = opened.session
        self._decoder = Decoder(settings.decode, cheap_only=True)
        self._apart = Apart(settings.decode, self.slots)
        self._labels = stored.labels()
        self._k = k
        self._outputs: tuple[OutputName, ...] = ("logits", "embedding") if embed else ("logits",)
        calibration = manifest.calibration
        self._temperature = np.float32(1 if calibration is None else calibration.temperature)

    def close(self) -> None:
        """End the processes that costly images were decoded in."""
        self._apart.close()

    def buffer(self) -> Images:
        """Room for a batch."""
        spec = self.stored.manifest.preprocessing
        return np.empty((self.batch, spec.height, spec.width, 3), np.uint8)

    def score(self, images: Sequence[tuple[str, bytes | ServiceError]], buffer: Images) -> list[Row]:
        """A row each for at most ``batch`` images, keys and encoded bytes, or why there are none; in their order."""
        rows: list[Row | None] = []
        decoded: list[Decoded] = []
        for key, data in images:
            try:
                if isinstance(data, ServiceError):
                    raise data
                decoded.append(self._decoded(data, buffer[len(decoded)]))
            except ServiceError as error:
                rows.append(Row(key, error))
            else:
                rows.append(None)
        found = iter(
            self._inferred([key for (key, _), row in zip(images, rows, strict=True) if row is None], decoded, buffer)
        )
        return [next(found) if row is None else row for row in rows]

    def _decoded(self, data: bytes, row: Images) -> Decoded:
        spec = self.stored.manifest.preprocessing
        try:
            return self._decoder.tensor(data, spec, row)
        except Costly:  # it takes its time from this slot, and is ended where it takes too much
            decoded = self._apart.tensor(data, spec)
            row[...] = decoded.pixels
            return decoded

    def _inferred(self, keys: Sequence[str], decoded: Sequence[Decoded], buffer: Images) -> list[Row]:
        if not keys:
            return []
        found = self._session.run(buffer[: len(keys)], self._outputs)
        logits, embeddings = found["logits"], found.get("embedding")
        probabilities = softmax(logits / self._temperature)
        sound = finite(logits)
        return [
            Row(
                key,
                None,
                top_k(probabilities[row], self._labels, self._k),
                energy(logits[row]),
                decoded[row].whole,
                None if embeddings is None else embeddings[row],
            )
            if sound[row]
            else Row(key, not_finite())
            for row, key in enumerate(keys)
        ]
