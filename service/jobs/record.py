"""What is kept of a job: its record, and where each of its images lies in its input."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

State = Literal["queued", "running", "done", "failed"]
STATES: Final[tuple[State, ...]] = ("queued", "running", "done", "failed")
ENDED: Final = ("done", "failed")

_LONGEST_NAME: Final = 255
_DRIVE: Final = re.compile(r"^(?:.:)+", re.DOTALL)
_ID: Final = re.compile(r"[0-9a-f]{32}")


def is_job_id(text: str) -> bool:
    """Whether ``text`` has the form of an id: 128 bits in lower-case hex, so never a path."""
    return _ID.fullmatch(text) is not None


class Failure(BaseModel):
    """Why a job failed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    message: str


class Job(BaseModel):
    """One job's record, ``job.json`` in its folder.

    options    -- the query it was sent with, as ``task`` reads it.
    model      -- name and version, fixed when it was accepted: all its lines are one model's.
    done       -- images with a line in the results, of which ``failed`` are errors.
    owner      -- the name of the key that it was sent with; None where no keys were asked for.
    ended      -- when it was done or failed, else None.
    resumed_at -- ``done`` when a worker last took it up; ``crashes`` counts the workers that died since, at one place.
    unserved   -- since when workers left it because they do not serve its model; None once one takes it up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    task: str
    options: dict[str, Any]
    model: tuple[str, str]
    images: int
    created: datetime
    owner: str | None = None
    state: State = "queued"
    done: int = 0
    failed: int = 0
    ended: datetime | None = None
    failure: Failure | None = None
    resumed_at: int = 0
    crashes: int = 0
    unserved: datetime | None = None


class Image(NamedTuple):
    """Where one image is: ``start`` and ``length`` in bytes; in an archive its entry's number and unpacked length."""

    name: str | None
    start: int
    length: int


class Contents(BaseModel):
    """What the input file holds, ``contents.json`` beside it, in the order of the results.

    packed -- the images' bytes; zip -- an archive's entries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["packed", "zip"]
    images: list[Image]


def clean_name(name: str) -> str | None:
    """A client's name for an image, fit to be shown and, on their side, to be joined to a folder; None for nothing.

    No root, drive or ``..``, no control characters, ``/`` between folders, at most 255 characters, its last ones.
    """
    text = name[-_LONGEST_NAME:].encode("utf-8", "replace").decode()
    parts = (_DRIVE.sub("", part) for part in re.split(r"[/\\]", text))
    kept = "/".join(part for part in parts if part.strip(". "))
    return "".join(c if c.isprintable() else "\ufffd" for c in kept) or None
