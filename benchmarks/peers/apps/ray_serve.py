"""Ray Serve with ``@serve.batch``; the image is the request's body.

https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html
"""

from __future__ import annotations

import io
import sys
import time
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from ray import serve
from starlette.requests import Request

from benchmarks.peers.apps.photos import FP32, best, pixels


@serve.deployment(max_ongoing_requests=64)
class Classifier:
    def __init__(self) -> None:
        self.session = onnxruntime.InferenceSession(FP32, providers=["CPUExecutionProvider"])

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def predict(self, bodies: list[bytes]) -> list[dict[str, Any]]:
        batch = np.stack([pixels(Image.open(io.BytesIO(body))) for body in bodies])
        (logits,) = self.session.run(["logits"], {"image": batch})
        return [best(row) for row in logits]

    async def __call__(self, request: Request) -> dict[str, Any]:
        return await self.predict(await request.body())


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Classifier.bind())
    while True:
        time.sleep(3600)
