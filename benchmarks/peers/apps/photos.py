"""What the ONNX Runtime peers share: where the model lies, and pixels as it takes them, by plain Pillow.

``PEER_MODEL`` names a version's folder of a model store. Its graph takes uint8
and normalises in itself, which spares the peers that work.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FOLDER = Path(os.environ["PEER_MODEL"])
FP32 = FOLDER / "model.fp32.onnx"
LABELS = (FOLDER / "labels.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
_SPEC = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))["preprocessing"]


def pixels(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """``image`` resized by its shorter side and cut to the centre: uint8 ``[height, width, 3]``."""
    image = image.convert("RGB")
    scale = _SPEC["resize"] / min(image.size)
    width, height = (max(_SPEC["resize"], int(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling[_SPEC["interpolation"].upper()])
    left, upper = round((width - _SPEC["width"]) / 2), round((height - _SPEC["height"]) / 2)
    return np.asarray(image.crop((left, upper, left + _SPEC["width"], upper + _SPEC["height"])))


def best(logits: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, Any]:
    """The most probable class of one image, with its probability."""
    exponentials = np.exp(logits - logits.max())
    index = int(exponentials.argmax())
    return {"label": LABELS[index], "probability": float(exponentials[index] / exponentials.sum())}
