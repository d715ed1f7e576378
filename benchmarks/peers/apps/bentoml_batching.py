"""BentoML's adaptive batching: a wrapper that takes one image, an inner service that takes a list of them.

https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html
"""

from __future__ import annotations

from typing import Any

import bentoml
import numpy as np
import onnxruntime
from PIL.Image import Image

from benchmarks.peers.apps.photos import FP32, best, pixels


@bentoml.service
class Classifier:
    def __init__(self) -> None:
        self.session = onnxruntime.InferenceSession(FP32, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=True, max_batch_size=8)
    def predict(self, images: list[Image]) -> list[dict[str, Any]]:
        (logits,) = self.session.run(["logits"], {"image": np.stack([pixels(image) for image in images])})
        return [best(row) for row in logits]


@bentoml.service
class Wrapper:
    classifier = bentoml.depends(Classifier)

    @bentoml.api
    async def classify(self, image: Image) -> dict[str, Any]:
        (result,) = await self.classifier.to_async.predict([image])
        return result
