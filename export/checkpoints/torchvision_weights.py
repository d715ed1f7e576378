"""torchvision's published weights, recognised by their hash wherever a file lies and whatever it is called.

The name of each file ends in the first eight hexadecimal digits of its SHA-256,
and torchvision's table of weights says what belongs to it:
https://docs.pytorch.org/vision/stable/models.html#table-of-all-available-classification-weights.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from export.checkpoints.origins import Description
from export.networks import specs
from export.preprocessing import InputOptions

_HASH: Final = re.compile(r"-([0-9a-f]{8,64})\.pth$")


def published(sha256: str) -> Description | None:
    """What torchvision says of the file with this SHA-256; None where it is none of torchvision's."""
    return next((about for digits, about in _table().items() if sha256.startswith(digits)), None)


@cache
def _table() -> dict[str, Description]:
    """Every published file of an architecture that is known here, by the leading digits of its hash."""
    # Imported only here: it takes seconds.
    from torchvision.models import get_model_weights, list_models  # type: ignore[import-untyped]

    table: dict[str, Description] = {}
    for name in set(list_models()) & set(specs.SPECS):
        for weights in get_model_weights(name):
            if found := _HASH.search(weights.url):
                table[found[1]] = _describe(name, weights)
    return table


def _describe(name: str, weights: Any) -> Description:
    transforms = weights.transforms()
    (size,), (resize,) = transforms.crop_size, transforms.resize_size
    return Description(
        architecture=name,
        labels=tuple(weights.meta["categories"]),
        input=InputOptions(
            size=size,
            resize=resize,
            interpolation=transforms.interpolation.value,
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
        ),
        source=f"torchvision's {name} {weights.name}",
    )
