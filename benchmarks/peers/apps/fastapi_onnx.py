"""FastAPI with an uploaded file, and one run of ONNX Runtime's CPU provider a request.

https://fastapi.tiangolo.com/tutorial/request-files/ and https://onnxruntime.ai/docs/get-started/with-python.html
"""

from __future__ import annotations

import io
from typing import Annotated, Any

import numpy as np
import onnxruntime
from fastapi import FastAPI, File
from PIL import Image

from benchmarks.peers.apps.photos import FP32, best, pixels

app = FastAPI()
session = onnxruntime.InferenceSession(FP32, providers=["CPUExecutionProvider"])


@app.get("/ready")
def ready() -> bool:
    return True


@app.post("/classify")
def classify(file: Annotated[bytes, File()]) -> dict[str, Any]:
    tensor = pixels(Image.open(io.BytesIO(file)))
    (logits,) = session.run(["logits"], {"image": tensor[np.newaxis]})
    return best(logits[0])
