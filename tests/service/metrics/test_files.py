from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from service.metrics.files import forget_dead_workers, reserve

DEAD = 2**22 - 1  # above the kernel's largest default process id


def test_only_gauges_of_dead_processes_are_forgotten(tmp_path: Path) -> None:
    names = [
        f"gauge_livesum_{DEAD}.db",
        f"gauge_livemax_{DEAD}.db",
        f"gauge_livesum_{os.getpid()}.db",
        "gauge_livesum_1.db",
        f"counter_{DEAD}.db",
        f"histogram_{DEAD}.db",
        "gauge_livesum_x.db",
    ]
    for name in names:
        (tmp_path / name).touch()
    forget_dead_workers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[2:])
    forget_dead_workers(tmp_path / "none")


def test_no_file_is_seen_before_it_has_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a page that another worker makes at that moment fails."""
    pages = []
    allocate = os.posix_fallocate

    def look(descriptor: int, offset: int, size: int) -> None:
        pages.append(generate_latest(MultiProcessCollector(None, path=str(tmp_path))))
        allocate(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", look)
    assert reserve(tmp_path)
    files = list(tmp_path.iterdir())
    assert len(pages) == len(files) > 0
    assert all(file.suffix == ".db" and file.stat().st_size > 0 for file in files)


def test_what_a_process_of_that_number_counted_stays(tmp_path: Path) -> None:
    (tmp_path / f"counter_{os.getpid()}.db").write_bytes(b"counted before")
    assert reserve(tmp_path)
    assert (tmp_path / f"counter_{os.getpid()}.db").read_bytes().startswith(b"counted before")


# A limit on the size of files stands for a full disk: either refuses the room.
_FULL = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from service.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
for number in range(1000):
    metrics.answered("/v1/classify", "tiny", str(number), 200, 0.1)
metrics.sample(slots=1, slots_busy=1, images_held=1)
sys.stdout.write(metrics.page().decode())
"""


def test_without_room_for_the_files_metrics_are_kept_in_memory(tmp_path: Path) -> None:
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "no room for shared metrics" in done.stderr
    assert done.stdout.count("resnet_requests_total{") == 1000
    assert not list(tmp_path.iterdir())
