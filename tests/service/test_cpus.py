from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.cpus import available_cpus, cgroup_quota


def v2(root: Path, text: str) -> Path:
    (root / "cpu.max").write_text(text)
    return root


def v1(root: Path, quota: str, period: str = "100000") -> Path:
    (root / "cpu").mkdir()
    (root / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (root / "cpu" / "cpu.cfs_period_us").write_text(period + "\n")
    return root


@pytest.mark.parametrize(
    ("text", "quota"),
    [("200000 100000\n", 2.0), ("50000 100000\n", 0.5), ("150000 100000", 1.5), ("max 100000\n", None)],
)
def test_version_2(tmp_path: Path, text: str, quota: float | None) -> None:
    assert cgroup_quota(v2(tmp_path, text)) == quota


@pytest.mark.parametrize(("text", "quota"), [("300000", 3.0), ("-1", None), ("0", None)])
def test_version_1(tmp_path: Path, text: str, quota: float | None) -> None:
    assert cgroup_quota(v1(tmp_path, text)) == quota


@pytest.mark.parametrize("text", ["", "garbage", "1 2 3", "x y"])
def test_what_cannot_be_read_sets_no_limit(tmp_path: Path, text: str) -> None:
    assert cgroup_quota(v2(tmp_path, text)) is None


def test_no_control_group_at_all(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("quota", "allowed", "cpus"),
    [
        ("200000 100000", 8, 2),
        ("150000 100000", 8, 2),
        ("10000 100000", 8, 1),
        ("1600000 100000", 8, 8),
        ("max 100000", 8, 8),
        ("max 100000", 1, 1),
    ],
)
def test_the_smaller_of_mask_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, allowed: int, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    assert available_cpus(v2(tmp_path, quota)) == cpus


def test_a_system_without_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus(tmp_path) == 1


def test_here() -> None:
    assert available_cpus() >= 1
