"""Images to pixels, with what that took counted and told to the request's trace."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from model_store.manifest import Preprocessing
from service.errors import ImageError
from service.images.decode import Decoded, Decoder, Ready, sniff
from service.inference.session import Images
from service.metrics import Metrics
from service.tracing import Note

AnyImage = bytes | Images | Ready
"""Encoded; or RGB pixels, uint8 ``[height, width, 3]`` of any size; or decoded already."""


class Decoding:
    """Decodes for one model, in whichever thread calls."""

    def __init__(self, decoder: Decoder, preprocessing: Preprocessing, metrics: Metrics) -> None:
        self.decoder = decoder
        self._preprocessing = preprocessing
        self._metrics = metrics

    def ready(self, image: bytes | Images, noted: Note | None, out: Images | None = None) -> Ready:
        """The image as the network takes it, written to ``out`` where that is given; raises as ``Decoder.tensor``."""
        return self.noted(image, noted, lambda: self.decoder.tensor(image, self._preprocessing, out))

    def noted(self, image: bytes | Images, noted: Note | None, decode: Callable[[], Decoded]) -> Ready:
        """What ``decode`` makes of ``image``."""
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
