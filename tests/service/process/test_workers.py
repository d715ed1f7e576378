from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.process import workers as module
from service.process.workers import Workers, make_run_dir, worker_count


def as_process(monkeypatch: pytest.MonkeyPatch, pid: int) -> None:
    monkeypatch.setattr(os, "getpid", lambda: pid)


def test_a_process_alone_is_started_and_replaces_nobody() -> None:
    alone = Workers(None, 1)
    alone.mark_ready()
    assert alone.started
    assert not alone.replacing


def test_the_service_has_started_when_all_workers_are_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "alive", lambda pid: pid < 200)
    workers = [Workers(tmp_path, 3) for _ in range(3)]
    as_process(monkeypatch, 200)
    workers[0].mark_ready()  # and died: it does not count
    for pid, worker in enumerate(workers, start=100):
        assert not any(worker.started or worker.replacing for worker in workers)
        as_process(monkeypatch, pid)
        worker.mark_ready()
        worker.mark_ready()  # twice counts once
    assert all(worker.started for worker in workers)


def test_a_worker_that_comes_later_replaces_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Workers(tmp_path, 1)
    first.mark_ready()
    assert first.started
    as_process(monkeypatch, 4_000_001)
    assert Workers(tmp_path, 1).replacing
    assert Workers(tmp_path, 1).started


def test_on_a_full_disk_a_worker_takes_anothers_place_but_no_service_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as no_room:
        no_room.setattr(Path, "touch", full)
        with pytest.raises(OSError, match="No space"):
            Workers(tmp_path, 1).mark_ready()
    Workers(tmp_path, 1).mark_ready()
    monkeypatch.setattr(Path, "touch", full)
    Workers(tmp_path, 1).mark_ready()
    assert "No space" in caplog.text


def test_a_worker_is_alone_where_no_other_that_was_ready_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "alive", lambda pid: pid == 1)
    worker = Workers(tmp_path, 3)
    worker.mark_ready()
    assert worker.alone
    as_process(monkeypatch, 2)
    worker.mark_ready()
    assert worker.alone
    as_process(monkeypatch, 1)
    worker.mark_ready()
    as_process(monkeypatch, 3)
    assert not worker.alone


def test_a_temporary_run_dir_is_empty_and_its_own() -> None:
    one, two = make_run_dir(None), make_run_dir(None)
    assert one != two
    for folder in (one, two):
        assert list(folder.iterdir()) == []
        folder.rmdir()


def test_a_named_run_dir_is_made_and_cleared_of_the_last_run(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "run"
    assert make_run_dir(wanted) == wanted
    worker = Workers(wanted, 1)
    worker.mark_ready()
    assert worker.started
    for name in ("counter_12.db", "gauge_livesum_3.db", "keep.txt"):
        (wanted / name).touch()
    assert make_run_dir(wanted) == wanted
    assert [path.name for path in wanted.iterdir()] == ["keep.txt"]
    assert not Workers(wanted, 1).started
    assert not Workers(wanted, 1).replacing


def test_a_run_dir_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make_run_dir(tmp_path / "file" / "run")


@pytest.mark.parametrize("failed", [False, True])
def test_a_named_run_dir_is_never_removed_even_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: bool
) -> None:
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(os, "kill", lambda pid, signal: None)
    (tmp_path / "theirs").write_text("keep")
    if failed:
        Workers(tmp_path, 1).end_service()
    module._leave(tmp_path, temporary=False)
    assert (tmp_path / "theirs").read_text() == "keep"
    assert statuses == [1] * failed
    module._leave(tmp_path, temporary=True)
    assert not tmp_path.exists()


@pytest.mark.parametrize(("cpus", "count", "decoding"), [(1, 1, 1), (8, 1, 2), (9, 2, 3), (64, 8, 16)])
def test_auto_workers_follow_the_cores(monkeypatch: pytest.MonkeyPatch, cpus: int, count: int, decoding: int) -> None:
    monkeypatch.setattr(module, "available_cpus", lambda: cpus)
    assert worker_count("auto", on_gpu=False) == count
    assert worker_count("auto", on_gpu=True) == decoding
    assert worker_count(3, on_gpu=False) == worker_count(3, on_gpu=True) == 3
