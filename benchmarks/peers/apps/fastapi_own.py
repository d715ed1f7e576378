"""FastAPI around this project's own session: same provider, precision and file, so that the server alone differs.

The settings are the service's own ``RESNET_`` variables.
"""

from __future__ import annotations

import io
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File
from PIL import Image

from benchmarks.network import Network
from benchmarks.peers.apps.photos import best, pixels
from service.config import load_settings

app = FastAPI()
network = Network(load_settings())


@app.get("/ready")
def ready() -> bool:
    return True


@app.post("/classify")
def classify(file: Annotated[bytes, File()]) -> dict[str, Any]:
    tensor = pixels(Image.open(io.BytesIO(file)))
    return best(network.session.run(tensor[np.newaxis])["logits"][0])
