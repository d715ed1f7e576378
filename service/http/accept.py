"""Which of the media types on offer a client wants most (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from service.errors import NotAcceptable

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_RANGE: Final = re.compile(rf"({_NAME})/({_NAME})")
_QUALITY: Final = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


class _Range(NamedTuple):
    """A media range; parameters but for the weight are not looked at, as nothing here is offered with any."""

    kind: str
    subtype: str
    quality: float

    def specificity(self, kind: str, subtype: str) -> int:
        """How closely it names ``kind/subtype``: 2 by name, 1 by its kind, 0 as anything; -1 not at all."""
        if (self.kind, self.subtype) == (kind, subtype):
            return 2
        if self.subtype == "*" and self.kind in (kind, "*"):
            return int(self.kind != "*")
        return -1


def choose(accept: str | None, offered: Sequence[str]) -> str:
    """The one of ``offered`` that the header ``accept`` likes best, the first of equals.

    The closest range decides on each. An absent or empty header takes anything; a part of it that is no media range is
    passed over. Raises ``NotAcceptable``, which names what there is.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [found for part in accept.split(",") if (found := _parse(part)) is not None]
    best = max(offered, key=lambda media_type: _quality(media_type, ranges))
    if not _quality(best, ranges):
        raise NotAcceptable(f"the Accept header takes none of what there is: {', '.join(offered)}")
    return best


def _parse(part: str) -> _Range | None:
    media_range, *parameters = (text.strip() for text in part.split(";"))
    found = _RANGE.fullmatch(media_range.lower())
    if found is None or (found[1] == "*" and found[2] != "*"):
        return None
    quality = "1"
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if equals and name.strip().lower() == "q":
            quality = value.strip()
            break
    return _Range(found[1], found[2], float(quality)) if _QUALITY.fullmatch(quality) else None


def _quality(media_type: str, ranges: Sequence[_Range]) -> float:
    kind, _, subtype = media_type.partition("/")
    matches = [(found.specificity(kind, subtype), found.quality) for found in ranges]
    closest, quality = max(matches, default=(-1, 0.0))
    return quality if closest >= 0 else 0.0
