"""The jobs on disk: a folder each, bounded in number and bytes. Any worker reads them; whoever has the claim writes.

    ROOT/.lock             held while room for a new job is taken
    ROOT/.part-ID/         an upload that comes in; stale where nobody has its claim
    ROOT/.gone-ID/         being removed
    ROOT/ID/job.json       the record, replaced as a whole
    ROOT/ID/claim          the lock of the worker at it
    ROOT/ID/input          the images, and contents.json where they lie in it; until the job ends
    ROOT/ID/results.ndjson a line an image

A folder is made, accepted and removed by renames, so that no other worker sees half of it.
All of it blocks; call it in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from model_store.durable import sync
from service.errors import StorageFull, TooManyJobs, UnknownJob
from service.jobs.claims import Claim, alone
from service.jobs.record import Contents, Job, State, is_job_id
from service.settings import JobSettings

logger = logging.getLogger(__name__)

RECORD: Final = "job.json"
CONTENTS: Final = "contents.json"
INPUT: Final = "input"
RESULTS: Final = "results.ndjson"
_LOCK: Final = ".lock"
_PART: Final = ".part-"
_GONE: Final = ".gone-"


class JobGone(Exception):
    """The job was removed while it was worked at."""


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """A full disk is ``StorageFull``; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("the disk for jobs is full") from error
        raise


def no_such_job() -> UnknownJob:
    return UnknownJob("there is no such job; it may have been removed after its time")


def _now() -> datetime:
    return datetime.now(UTC)


class JobStore:
    """Jobs below ``root``, which is made when the first one comes."""

    def __init__(self, root: Path, settings: JobSettings, now: Callable[[], datetime] = _now) -> None:
        self.root = root
        self.settings = settings
        self.now = now

    def folder(self, job_id: str) -> Path:
        return self.root / job_id

    def prepare(self) -> None:
        """Make the root; ``OSError`` where nothing can be kept there."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with alone(self.root / _LOCK):
            pass

    def find(self, job_id: str) -> Job:
        """The job's record; ``UnknownJob`` where there is none, or not any more."""
        if is_job_id(job_id):
            with contextlib.suppress(FileNotFoundError, ValidationError):
                job = Job.model_validate_json((self.folder(job_id) / RECORD).read_bytes())
                if not self._expired(job):
                    return job
        raise no_such_job()

    def jobs(self) -> list[Job]:
        """All jobs there are, the oldest first."""
        found = []
        for folder in self._folders():
            with contextlib.suppress(UnknownJob):
                found.append(self.find(folder.name))
        return sorted(found, key=lambda job: (job.created, job.id))

    def save(self, job: Job, *, durable: bool = False) -> None:
        """Replace the job's record, by its claim's holder. A loss of power leaves this record, if ``durable``, or the
        one before.
        """
        _replace(self.folder(job.id), RECORD, job.model_dump_json().encode(), durable=durable)

    def contents(self, job_id: str) -> Contents:
        return Contents.model_validate_json((self.folder(job_id) / CONTENTS).read_bytes())

    def exists(self, job_id: str) -> bool:
        return self.folder(job_id).exists()

    def held(self) -> tuple[int, int]:
        """How many jobs and uploads there are, and their bytes; those of an upload are the most that it may have."""
        folders = self._folders()
        return len(folders), sum(map(_size, folders))

    def end(self, job: Job, state: State) -> Job:
        """Save ``job`` as ended; its input goes, its results stay until it expires."""
        ended = job.model_copy(update={"state": state, "ended": self.now()})
        if state == "failed":  # on a full disk there may be no room for the record before that
            self._forget_input(job.id)
        self.save(ended, durable=True)
        self._forget_input(job.id)
        return ended

    def expires(self, job: Job) -> datetime | None:
        """When an ended job will be removed."""
        return None if job.ended is None else job.ended + timedelta(seconds=self.settings.jobs_ttl_s)

    def remove(self, job_id: str) -> None:
        """Remove the job, whoever works at it; they find it gone. ``UnknownJob`` where there is none."""
        self.find(job_id)
        if not self._drop(self.folder(job_id)):
            raise UnknownJob("there is no such job any more")

    def sweep(self) -> None:
        """Remove what is expired, and what dead workers left behind."""
        # Alone, as an upload is not claimed yet when its folder is made.
        with contextlib.suppress(FileNotFoundError), alone(self.root / _LOCK):
            for folder in self._folders():
                if folder.name.startswith(_PART):
                    self._drop_stale(folder)
                elif self._is_over(folder):
                    self._drop(folder)
            for left in self.root.glob(f"{_GONE}*"):
                shutil.rmtree(left, ignore_errors=True)

    def _is_over(self, folder: Path) -> bool:
        try:
            return self._expired(Job.model_validate_json((folder / RECORD).read_bytes()))
        except FileNotFoundError:
            return False  # removed meanwhile
        except ValidationError:  # of another version of this service, say
            logger.warning("jobs: a record in %s cannot be read; its job is removed", self.root)
            return True

    def _expired(self, job: Job) -> bool:
        expires = self.expires(job)
        return expires is not None and expires <= self.now()

    def _folders(self) -> list[Path]:
        """Of jobs and uploads; nothing else that may lie in ``root``."""
        try:
            return [folder for folder in self.root.iterdir() if is_job_id(folder.name.removeprefix(_PART))]
        except FileNotFoundError:
            return []

    def _forget_input(self, job_id: str) -> None:
        for name in (INPUT, CONTENTS):
            (self.folder(job_id) / name).unlink(missing_ok=True)

    def _drop_stale(self, folder: Path) -> None:
        claim = Claim.take(folder)
        if claim is not None:
            with claim:
                self._drop(folder)

    def _drop(self, folder: Path) -> bool:
        """Remove ``folder``; False where another did."""
        gone = self.root / f"{_GONE}{secrets.token_hex(8)}"
        try:
            folder.rename(gone)
        except FileNotFoundError:
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True


class Upload:
    """A job that comes in: ``begin`` it, write its images to ``input``, ``accept`` it, and at last ``close`` it.

    ``close`` waits for what another thread is still at, as when the request that began it is cancelled, and leaves
    nothing of what was not accepted.
    """

    def __init__(self, store: JobStore) -> None:
        self.id = secrets.token_hex(16)
        self._store = store
        self._folder = store.root / f"{_PART}{self.id}"
        self.input = self._folder / INPUT
        self._claim: Claim | None = None
        self._one_at_a_time = threading.Lock()

    def begin(self, most_bytes: int) -> None:
        """Take room for an input of up to ``most_bytes``, beside all that there is.

        ``TooManyJobs`` where there is none for now, ``StorageFull`` where the disk has none.
        """
        store, settings = self._store, self._store.settings
        with self._one_at_a_time, disk_errors():
            store.prepare()
            store.sweep()
            with alone(store.root / _LOCK):
                held, size = store.held()
                if held >= settings.jobs_max:
                    raise TooManyJobs(f"{settings.jobs_max} jobs are held; remove one, or try later")
                if size + most_bytes > settings.inputs_max_bytes:
                    raise TooManyJobs("the jobs held leave no room for this one; remove one, or try later")
                if shutil.disk_usage(store.root).free < most_bytes:
                    raise StorageFull("the disk for jobs is full")
                self._folder.mkdir(mode=0o700)
                self._claim = Claim.take(self._folder)
                with self.input.open("wb") as file:
                    file.truncate(most_bytes)  # sparse: it counts as held, and takes nothing yet

    def accept(self, job: Job, contents: Contents) -> None:
        """The job is there, for all workers, and stays over a loss of power."""
        with self._one_at_a_time, disk_errors():
            sync(self.input)
            _replace(self._folder, CONTENTS, contents.model_dump_json().encode(), durable=True)
            _replace(self._folder, RECORD, job.model_dump_json().encode(), durable=True)
            self._folder.rename(self._store.folder(self.id))
            sync(self._store.root)

    def close(self) -> None:
        with self._one_at_a_time:
            shutil.rmtree(self._folder, ignore_errors=True)  # it has another name where it was accepted
            if self._claim is not None:
                self._claim.release()


def _replace(folder: Path, name: str, data: bytes, *, durable: bool) -> None:
    """Write the file as a whole; ``JobGone`` where its folder is gone."""
    written = folder / f"{name}.new"
    try:
        with disk_errors(), written.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # some file systems would keep the name, and nothing of what it is of
        written.replace(folder / name)
        if durable:
            sync(folder)
    except FileNotFoundError as error:
        raise JobGone from error


def _size(folder: Path) -> int:
    """Bytes of the files in ``folder``; 0 where it is gone."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_size
    return total
