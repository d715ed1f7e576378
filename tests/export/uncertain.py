"""Images that the ``colours`` network is sometimes wrong on, by a temperature that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from export.images.image_sets import seeded_images
from export.variants.gate import cpu_logits
from tests.export import colours
from tests.export.conftest import TINY_INPUT


def write(folder: Path, count: int = 400, temperature: float = 2.5, seed: int = 7) -> Path:
    """``count`` PNG files in folders of labels that are drawn by softmax(logits / ``temperature``)."""
    pixels = np.stack(list(seeded_images(TINY_INPUT, count, seed).read()))
    logits = cpu_logits(colours.graph().model.SerializeToString())(pixels)
    drawn = (logits / temperature + np.random.default_rng(seed).gumbel(size=logits.shape)).argmax(axis=1)
    for i, label in enumerate(drawn):
        path = folder / colours.LABELS[label] / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i]).save(path)
    return folder
