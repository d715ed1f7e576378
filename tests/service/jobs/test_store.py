from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from service.errors import StorageFull, TooManyJobs, UnknownJob
from service.jobs.claims import Claim
from service.jobs.record import Contents, Image, Job
from service.jobs.store import CONTENTS, INPUT, RECORD, RESULTS, JobGone, JobStore, Upload
from tests.service.jobs.conftest import Clock, a_job, a_store

MIB = 2**20


def test_a_job_is_what_was_accepted(store: JobStore) -> None:
    job = a_job(store, [b"one", b"three"], options={"top_k": 2})
    assert store.find(job.id) == job
    assert store.jobs() == [job]
    assert store.contents(job.id) == Contents(kind="packed", images=[Image("0", 0, 3), Image("1", 3, 5)])
    assert (store.folder(job.id) / INPUT).read_bytes() == b"onethree"
    assert store.held()[0] == 1


def test_nobody_else_may_read_it(store: JobStore) -> None:
    job = a_job(store)
    assert [path.stat().st_mode & 0o777 for path in (store.root, store.folder(job.id))] == [0o700, 0o700]


@pytest.mark.parametrize("job_id", ["", "..", "../etc", "0" * 32, ".lock", "job.json"])
def test_unknown_jobs(store: JobStore, job_id: str) -> None:
    a_job(store)
    for call in (store.find, store.remove):
        with pytest.raises(UnknownJob):
            call(job_id)


def test_ids_say_nothing_of_each_other(store: JobStore) -> None:
    ids = {Upload(store).id for _ in range(100)}
    assert len(ids) == 100
    assert all(len(bytes.fromhex(job_id)) == 16 for job_id in ids)


def test_jobs_are_in_the_order_they_came(store: JobStore, clock: Clock) -> None:
    made = []
    for _ in range(5):
        clock.advance(1)
        made.append(a_job(store))
    assert store.jobs() == made


def test_a_job_that_ended_keeps_its_results_for_a_while(store: JobStore, clock: Clock) -> None:
    job = a_job(store)
    (store.folder(job.id) / RESULTS).write_bytes(b"lines")
    assert store.expires(job) is None
    clock.advance(10 * store.settings.jobs_ttl_s)
    ended = store.end(job, "done")
    assert {path.name for path in store.folder(job.id).iterdir()} == {RECORD, RESULTS, "claim"}
    clock.advance(store.settings.jobs_ttl_s - 1)
    store.sweep()
    assert store.find(job.id) == ended
    clock.advance(1)
    assert store.expires(ended) == clock.time
    with pytest.raises(UnknownJob):
        store.find(job.id)
    assert store.exists(job.id), "it is not shown any more, though nobody has swept yet"
    store.sweep()
    assert not store.exists(job.id)
    assert store.held() == (0, 0)


def test_room_for_so_many_jobs(tmp_path: Path, clock: Clock) -> None:
    store = a_store(tmp_path, clock, jobs_max=2)
    first, _ = a_job(store), a_job(store)
    with pytest.raises(TooManyJobs, match="2 jobs are held"):
        a_job(store)
    store.remove(first.id)
    last = a_job(store)
    clock.advance(1)
    store.end(last, "done")
    clock.advance(store.settings.jobs_ttl_s)
    a_job(store)  # what is expired takes no room, swept or not


def test_uploads_take_room_from_their_beginning(tmp_path: Path, clock: Clock) -> None:
    store = a_store(tmp_path, clock, jobs_max=1)
    upload = Upload(store)
    upload.begin(10)
    with pytest.raises(TooManyJobs):
        a_job(store)
    assert store.jobs() == []
    upload.close()
    a_job(store)


def test_room_for_so_many_bytes(tmp_path: Path, clock: Clock) -> None:
    """Three quarters for what is sent, as much as its sender says before it came; the rest is for results."""
    store = a_store(tmp_path, clock, jobs_max_bytes=4 * MIB)
    upload = Upload(store)
    upload.begin(2 * MIB)
    assert upload.input.stat().st_blocks == 0
    for most in (MIB + 1, 3 * MIB):
        with pytest.raises(TooManyJobs, match="no room"):
            Upload(store).begin(most)
    other = Upload(store)
    other.begin(MIB)
    other.close()
    upload.close()
    assert store.held() == (0, 0)


def test_a_disk_that_is_nearly_full_refuses_before_anything_comes(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))  # type: ignore[attr-defined]
    with pytest.raises(StorageFull):
        Upload(store).begin(2)
    assert store.held() == (0, 0)


@pytest.mark.parametrize("name", [CONTENTS, RECORD])
def test_a_disk_that_fills_up_leaves_nothing_half(store: JobStore, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real: Callable[..., Any] = Path.open

    def full(path: Path, *args: Any, **options: Any) -> Any:
        if path.name.startswith(name):
            raise OSError(errno.ENOSPC, "no space")
        return real(path, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(StorageFull):
            a_job(store)
    assert store.held() == (0, 0)
    assert [path.name for path in store.root.iterdir()] == [".lock"]


def test_other_errors_of_the_disk_are_no_full_disk(store: JobStore) -> None:
    store.root.write_text("a file where the folder should be")
    with pytest.raises(FileExistsError):
        Upload(store).begin(1)


def test_saving_replaces_the_record_as_a_whole(store: JobStore) -> None:
    job = a_job(store)
    for durable in (False, True):
        changed = job.model_copy(update={"done": 1, "state": "running"})
        store.save(changed, durable=durable)
        assert store.find(job.id) == changed
    assert not list(store.folder(job.id).glob("*.new"))


def test_a_record_is_on_the_disk_before_it_takes_the_place_of_another(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job(store)
    synced: list[tuple[int, int]] = []

    def sync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced.append((found.st_ino, found.st_size))

    monkeypatch.setattr(os, "fsync", sync)
    store.save(job.model_copy(update={"state": "running"}))
    record = (store.folder(job.id) / RECORD).stat()
    assert synced == [(record.st_ino, record.st_size)]


def test_who_works_at_a_removed_job_finds_it_gone(store: JobStore) -> None:
    job = a_job(store)
    claim = Claim.take(store.folder(job.id))
    assert claim is not None
    with claim:
        store.remove(job.id)
        assert not store.exists(job.id)
        for call in (lambda: store.save(job), lambda: store.end(job, "done"), lambda: store.end(job, "failed")):
            with pytest.raises(JobGone):
                call()
    assert store.held() == (0, 0)


def test_an_upload_whose_worker_died_is_swept_and_no_other(store: JobStore) -> None:
    alive, dead = Upload(store), Upload(store)
    alive.begin(1)
    dead.begin(1)
    assert dead._claim is not None
    dead._claim.release()  # as the kernel does
    store.sweep()
    assert store.held()[0] == 1
    assert alive.input.exists()
    alive.close()


def test_what_a_dying_worker_half_removed_is_swept(store: JobStore) -> None:
    job = a_job(store)
    store.folder(job.id).rename(store.root / ".gone-0")
    store.sweep()
    assert [path.name for path in store.root.iterdir()] == [".lock"]


def test_a_record_of_another_version_is_no_job_and_goes(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    job = a_job(store)
    (store.folder(job.id) / RECORD).write_text('{"from": "the future"}')
    with pytest.raises(UnknownJob):
        store.find(job.id)
    assert store.jobs() == []
    store.sweep()
    assert store.held() == (0, 0)
    assert job.id not in caplog.text, "ids let in whoever reads them"


def test_what_else_lies_there_is_left_alone(store: JobStore) -> None:
    a_job(store)
    (store.root / "lost+found").mkdir()
    (store.root / "README").write_text("hands off")
    store.sweep()
    assert len(store.jobs()) == store.held()[0] == 1
    assert (store.root / "lost+found").exists()


def test_nothing_is_there_before_the_first_job(store: JobStore) -> None:
    store.sweep()
    assert store.jobs() == []
    assert store.held() == (0, 0)
    assert not store.root.exists()


class Model(RuleBasedStateMachine):
    """Whatever is done in whatever order, the store holds what it should, within its bounds, and no more."""

    uploads = Bundle("uploads")
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.store = a_store(self.root, self.clock, jobs_max=4, jobs_max_bytes=MIB, jobs_ttl_s=100)
        self.expected: dict[str, Job] = {}
        self.coming: dict[str, Upload] = {}

    def teardown(self) -> None:
        for upload in self.coming.values():
            upload.close()
        shutil.rmtree(self.root)

    @rule(target=uploads, size=st.integers(1, MIB))
    def begin(self, size: int) -> str:
        upload = Upload(self.store)
        held, size_held = len(self.live()) + len(self.coming), self.store.held()[1]
        try:
            upload.begin(size)
        except TooManyJobs:
            upload.close()
            assert held >= 4 or size_held + size > 3 * MIB // 4
            return ""
        assert held < 4
        self.coming[upload.id] = upload
        return upload.id

    @rule(target=ids, upload_id=consumes(uploads))
    def accept(self, upload_id: str) -> str:
        upload = self.coming.pop(upload_id, None)
        if upload is None:
            return ""
        upload.input.write_bytes(b"image")
        job = Job(id=upload.id, task="classify", options={}, model=("tiny", "1"), images=1, created=self.store.now())
        upload.accept(job, Contents(kind="packed", images=[Image(None, 0, 5)]))
        upload.close()
        self.expected[job.id] = job
        return job.id

    @rule(upload_id=consumes(uploads))
    def abandon(self, upload_id: str) -> None:
        if upload := self.coming.pop(upload_id, None):
            upload.close()

    @rule(upload_id=consumes(uploads))
    def die(self, upload_id: str) -> None:
        if (upload := self.coming.pop(upload_id, None)) and upload._claim:
            upload._claim.release()
            self.store.sweep()

    @rule(job_id=ids, failed=st.booleans())
    def end(self, job_id: str, failed: bool) -> None:
        if (job := self.live().get(job_id)) and job.ended is None:
            self.expected[job_id] = self.store.end(job, "failed" if failed else "done")

    @rule(job_id=ids)
    def remove(self, job_id: str) -> None:
        if job_id in self.live():
            self.store.remove(job_id)
            del self.expected[job_id]
        else:
            with pytest.raises(UnknownJob):
                self.store.remove(job_id)

    @rule(seconds=st.integers(0, 60))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.store.sweep()
        assert self.store.held()[0] == len(self.live()) + len(self.coming)

    def live(self) -> dict[str, Job]:
        return {
            job_id: job
            for job_id, job in self.expected.items()
            if job.ended is None or (self.clock.time - job.ended).total_seconds() < 100
        }

    @invariant()
    def all_is_as_expected(self) -> None:
        assert {job.id: job for job in self.store.jobs()} == self.live()


TestModel = Model.TestCase
TestModel.settings = hypothesis_settings(max_examples=30, stateful_step_count=25, deadline=None)
