"""Colour maps: from a level of 0..1 to an RGB colour.

Each is 33 colours, evenly spread, with straight lines between them: at most 3 of 255 levels beside the table it was
taken from. inferno and viridis (Stefan van der Walt and Nathaniel Smith, https://bids.github.io/colormap, CC0) grow in
lightness at an even pace, so equal steps look equal, in print and to the colour-blind, too. turbo (Anton Mikhailov,
Google, 2019, https://research.google/blog/turbo-an-improved-rainbow-colormap-for-visualization, Apache 2.0) shows more
detail, but is no measure of how much: its lightness rises and falls.
"""

from __future__ import annotations

import functools
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

ColorMap = Literal["inferno", "viridis", "turbo", "grey"]

_COLOURS: Final[dict[ColorMap, str]] = {
    "inferno": """
        000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e 7d1e6d 8a226a 972766
        a32c61 b0315b bc3754 c63d4d d04545 da4e3c e35933 eb6429 f1711f f67e14 f98c0a fb9b06 fcaa0f fbba1f
        f9c932 f5d949 f2e865 f3f586 fcffa4
    """,
    "viridis": """
        440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e 2c728e 297a8e
        26828e 23898e 21918c 1f978b 1f9f88 21a685 27ad81 31b57b 3dbc74 4cc26c 5cc863 6ece58 81d34d 95d840
        aadc32 c0df25 d5e21a eae51a fde725
    """,
    "turbo": """
        30123b 392a73 4040a2 4456c7 466be3 4680f6 4294ff 37a8fa 28bceb 1ccdd8 18ddc2 1fe9af 32f298 4ef97d
        6dfe62 8bff4b a4fc3c b7f735 cbed34 dde037 ecd13a f7c13a fdae35 fe992c fb8122 f56918 ec530f e14109
        d23105 c12302 ac1701 950d01 7a0403
    """,
    "grey": "000000 ffffff",
}


@functools.cache
def table(name: ColorMap, size: int) -> npt.NDArray[np.uint8]:
    """The colours of ``size`` even levels from 0 to 1: uint8 ``[size, 3]``, RGB."""
    given = np.array([list(bytes.fromhex(colour)) for colour in _COLOURS[name].split()], np.float64)
    levels, known = np.linspace(0, 1, size), np.linspace(0, 1, len(given))
    channels = [np.interp(levels, known, given[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)
