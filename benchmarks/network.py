"""The default model of some settings, opened as the service opens it, for programs that run it without the service."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.config import Settings
from service.images.decode import Decoder
from service.inference.postprocess import Floats
from service.inference.session import Images, Session
from service.process.cpus import available_cpus
from service.providers import Share
from service.runtime import chosen_models


class Network:
    """Decoder and session of the model that answers where a request names none, with all of this process's cores."""

    def __init__(self, settings: Settings) -> None:
        self.stored = chosen_models(settings)[0]
        self.labels = self.stored.labels()
        self.spec = self.stored.manifest.preprocessing
        self.threads = available_cpus()
        self.decoder = Decoder(settings.decode)
        inference = settings.inference
        share = Share(self.threads, None, inference.max_batch)
        self.session = Session(self.stored, inference.provider, share, inference.precision, settings.providers)

    def batch(self, size: int) -> Images:
        """Room for ``size`` images as the network takes them."""
        return np.empty((size, self.spec.height, self.spec.width, 3), np.uint8)

    def pixels(self, body: bytes, out: Images | None = None) -> Images:
        """An encoded image as the network takes it, in ``out`` where it is given."""
        return self.decoder.tensor(body, self.spec, out).pixels

    def infer(self, bodies: Sequence[bytes], batch: Images) -> Floats:
        """Logits of encoded images, decoded into ``batch``, which has room for just as many."""
        for body, row in zip(bodies, batch, strict=True):
            self.pixels(body, row)
        return self.session.run(batch)["logits"]
