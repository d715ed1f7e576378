"""The packages of a lock file that are installed on this kind of machine."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from license_expression import ExpressionError, get_spdx_licensing
from packaging.requirements import Requirement

FOLDER: Final = Path(__file__).parent
_LICENSING: Final = get_spdx_licensing()
# What packages wrote before licences had identifiers (https://spdx.org/licenses/), in small letters.
_OLD_NAMES: Final = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd license": "BSD-3-Clause",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}


@dataclass(frozen=True)
class Locked:
    """One package; ``license`` is an SPDX expression, None where the package does not say one that is known."""

    name: str
    version: str
    license: str | None
    said: str
    line: str


def read_lock(path: Path) -> Iterator[Locked]:
    """The packages of ``path`` whose markers hold here; licences are read of what is installed."""
    entries = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in entries.splitlines():
        words, *_ = line.partition(" --hash")
        if not words.strip() or words.lstrip().startswith("#"):
            continue
        requirement = Requirement(words)
        if requirement.marker is None or requirement.marker.evaluate():
            version = str(requirement.specifier).removeprefix("==")
            yield Locked(requirement.name, version, *_license(requirement.name), line.strip())


def _license(name: str) -> tuple[str | None, str]:
    """The licence as an expression, and as the package says it."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None, "not installed here"
    classifiers = [
        c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License :: OSI")
    ]
    said = [*metadata.get_all("License-Expression", []), *metadata.get_all("License", []), *classifiers]
    for words in said:
        if words and (found := _expression(words)):
            return found, words
    return None, next((words.splitlines()[0][:60] for words in said if words), "nothing")


def _expression(words: str) -> str | None:
    try:
        return str(_LICENSING.parse(_OLD_NAMES.get(words.strip().lower(), words), validate=True, strict=True))
    except ExpressionError:
        return None
