"""Images made to cost much: the worst of each format, at the pixel bound where that is what costs.

Names say the format first; what a file is named for is what costs.
"""

from tests.security.costly import jpegs, others, pngs, webps
from tests.security.costly.making import MADE as MADE

__all__ = ["MADE", "jpegs", "others", "pngs", "webps"]
