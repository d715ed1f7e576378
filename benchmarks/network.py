"""The default model of some settings, opened as the service opens it, for programs that run it without the service."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model_store.transforms import to_tensor
from service.config import Settings
from service.cpus import available_cpus
from service.decode import Decoder
from service.postprocess import Floats
from service.providers import Share
from service.runtime import chosen_models
from service.session import Session

Pixels = npt.NDArray[np.uint8]


class Network:
    """Decoder and session of the model that answers where a request names none, with all of this process's cores."""

    def __init__(self, settings: Settings) -> None:
        self.stored = chosen_models(settings)[0]
        self.labels = self.stored.labels()
        self.spec = self.stored.manifest.preprocessing
        self.threads = available_cpus()
        self.decoder = Decoder(settings.decode)
        inference = settings.inference
        self.session = Session(self.stored, inference.provider, Share(self.threads), inference.precision)

    def pixels(self, body: bytes) -> Pixels:
        """An encoded image as the network takes it."""
        return to_tensor(self.decoder.decode(body), self.spec)

    def logits(self, images: Sequence[Pixels]) -> Floats:
        """Logits of a batch of such images."""
        return self.session.logits(images)

    def infer(self, bodies: Sequence[bytes]) -> Floats:
        """Logits of a batch of encoded images."""
        return self.logits([self.pixels(body) for body in bodies])
