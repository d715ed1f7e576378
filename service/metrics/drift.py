"""The gauges of drift: there once there is something to say.

Workers' values become one by their largest, and prometheus_client can take none
back from the files they share. So "nothing to say" is a value below all others,
which the page leaves out (service/metrics/served.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import Gauge

from model_store.reference import FEATURES
from service.inference.drift import Distances
from service.metrics.definitions import DRIFT_EMBEDDING, DRIFT_IMAGES, DRIFT_PSI, Definition

NOTHING: Final = -1.0


class DriftGauges:
    """Of all model versions with a reference."""

    def __init__(self, gauges: Mapping[Definition, Gauge]) -> None:
        self._psi, self._embedding, self._images = (gauges[of] for of in (DRIFT_PSI, DRIFT_EMBEDDING, DRIFT_IMAGES))

    def show(self, model: str, version: str, found: Distances) -> None:
        self._images.labels(model, version).set(found.images)
        psi = {} if found.psi is None else found.psi
        for feature in FEATURES:
            self._psi.labels(model, version, feature).set(psi.get(feature, NOTHING))
        self._embedding.labels(model, version).set(NOTHING if found.embedding is None else found.embedding)
