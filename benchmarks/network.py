"""The default model of some settings, opened as the service opens it, for programs that run it without the service."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.config import Settings
from service.cpus import available_cpus
from service.decode import Decoder
from service.postprocess import Floats
from service.providers import Share
from service.runtime import chosen_models
from service.session import Session


class Network:
    """Decoder and session of the model that answers where a request names none, with all of this process's cores."""

    def __init__(self, settings: Settings) -> None:
        self.stored = chosen_models(settings)[0]
        self.labels = self.stored.labels()
        self.spec = self.stored.manifest.preprocessing
        self.threads = available_cpus()
        self.decoder = Decoder(settings.decode)
        inference = settings.inference
        share = Share(self.threads)
        self.session = Session(self.stored, inference.provider, share, inference.precision, settings.providers)

    def infer(self, bodies: Sequence[bytes]) -> Floats:
        """Logits of a batch of encoded images."""
        batch = np.empty((len(bodies), self.spec.height, self.spec.width, 3), np.uint8)
        for body, row in zip(bodies, batch, strict=True):
            self.decoder.tensor(body, self.spec, row)
        return self.session.logits(batch)
