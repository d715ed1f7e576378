"""A store of jobs in a temporary folder, with a clock that tests turn, and jobs in it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.jobs.record import Contents, Image, Job
from service.jobs.store import JobStore, Upload
from service.settings import JobSettings


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> JobStore:
    return a_store(tmp_path, clock)


def a_store(root: Path, clock: Clock, **settings: Any) -> JobStore:
    return JobStore(root / "jobs", JobSettings(**settings), clock)


def a_job(store: JobStore, images: Sequence[bytes] = (b"one", b"two", b"three"), **changes: Any) -> Job:
    """A job in ``store`` with these images, called 0, 1, ..."""
    upload = Upload(store)
    try:
        upload.begin(sum(map(len, images)))
        upload.input.write_bytes(b"".join(images))
        starts = [sum(map(len, images[:i])) for i in range(len(images))]
        found = [Image(str(i), starts[i], len(image)) for i, image in enumerate(images)]
        values = {"task": "classify", "options": {}, "model": ("tiny", "1"), "created": store.now()} | changes
        job = Job(id=upload.id, images=len(images), **values)
        upload.accept(job, Contents(kind="packed", images=found))
    finally:
        upload.close()
    return job


def a_zip(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()
