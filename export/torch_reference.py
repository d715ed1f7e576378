"""What PyTorch computes: parity's other side."""

from __future__ import annotations

from collections.abc import Callable

import torch

from export.images.image_sets import Pixels
from export.networks.classifier import Classifier
from export.parity import Reference
from export.preprocessing import normalised
from model_store.manifest import Preprocessing


def torch_reference(net: Classifier, preprocessing: Preprocessing) -> Callable[[Pixels], Reference]:
    """PyTorch in fp32 on uint8 ``[n, height, width, 3]``, with its own normalisation."""

    def run(pixels: Pixels) -> Reference:
        with torch.inference_mode():
            features = net.features(torch.from_numpy(normalised(pixels, preprocessing)))
            embedding = features.mean(dim=(2, 3))
            maps = torch.einsum("kc,nchw->nkhw", net.fc.weight, features)
            return Reference(net.fc(embedding).numpy(), embedding.numpy(), maps.numpy(), net.fc.bias.numpy())

    return run
