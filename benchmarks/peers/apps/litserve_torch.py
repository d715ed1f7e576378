"""LitServe with batching and PyTorch; the image comes as base64 in JSON.

https://lightning.ai/docs/litserve/speed-up-serving-by-200x and https://lightning.ai/docs/litserve/features/batching
"""

from __future__ import annotations

import base64
import io
import os
import sys
from typing import Any

import litserve
import torch
import torchvision
from PIL import Image

from benchmarks.peers.apps.photos import LABELS


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.transforms = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()
        self.model = torchvision.models.resnet50()
        self.model.load_state_dict(torch.load(os.environ["PEER_CHECKPOINT"], weights_only=True))
        self.model = self.model.eval().to(device)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe would parse by the annotation
        image = Image.open(io.BytesIO(base64.b64decode(request["image_data"]))).convert("RGB")
        return self.transforms(image)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(x).softmax(1)

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        probability, index = output.max(0)
        return {"label": LABELS[int(index)], "probability": float(probability)}


if __name__ == "__main__":
    api = Classifier(max_batch_size=8, batch_timeout=0.01)
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
