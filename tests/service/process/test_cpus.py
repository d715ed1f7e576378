from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.process.cpus import available_cpus, cgroup_quota


def v2(group: Path, text: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.max").write_text(text)


def v1(group: Path, quota: str, period: str = "100000") -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.cfs_quota_us").write_text(quota + "\n")
    (group / "cpu.cfs_period_us").write_text(period + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Stands for /sys/fs/cgroup."""
    folder = tmp_path / "cgroup"
    folder.mkdir()
    return folder


def member(root: Path, *lines: str) -> Path:
    """Stands for /proc/self/cgroup."""
    file = root.parent / "membership"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


@pytest.mark.parametrize(
    ("text", "quota"),
    [("200000 100000\n", 2.0), ("50000 100000\n", 0.5), ("150000 100000", 1.5), ("max 100000\n", None)],
)
def test_version_2(root: Path, text: str, quota: float | None) -> None:
    v2(root, text)
    assert cgroup_quota(root, member(root, "0::/")) == quota


@pytest.mark.parametrize(("text", "quota"), [("300000", 3.0), ("-1", None), ("0", None)])
def test_version_1(root: Path, text: str, quota: float | None) -> None:
    v1(root / "cpu", text)
    assert cgroup_quota(root, member(root, "1:cpu:/")) == quota


@pytest.mark.parametrize("text", ["", "garbage", "1 2 3", "x y", "1 0"])
def test_what_cannot_be_read_sets_no_limit(root: Path, text: str) -> None:
    if text == "1 0":
        v1(root / "cpu", *text.split())
    else:
        v2(root, text)
    assert cgroup_quota(root, member(root, "0::/")) is None


def test_no_control_group_at_all(root: Path) -> None:
    assert cgroup_quota(root / "none", root / "none") is None


# Groups within groups


@pytest.mark.parametrize(
    ("quotas", "quota"),
    [
        ({"": "max 100000", "a": "400000 100000", "a/b": "max 100000"}, 4.0),
        ({"a": "400000 100000", "a/b": "300000 100000", "a/b/c": "200000 100000"}, 2.0),
        ({"a": "200000 100000", "a/b/c": "800000 100000"}, 2.0),
        ({"a/b/c": "800000 100000"}, 8.0),
        ({"a": "max 100000", "a/b": "max 100000"}, None),
        ({"a/b/c/d": "100000 100000", "other": "100000 100000"}, None),
    ],
)
def test_version_2_the_tightest_level_counts(root: Path, quotas: dict[str, str], quota: float | None) -> None:
    for level, text in quotas.items():
        v2(root / level, text)
    assert cgroup_quota(root, member(root, "0::/a/b/c")) == quota


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_version_1_the_tightest_level_counts(root: Path, mount: str) -> None:
    v1(root / mount / "kube", "500000")
    v1(root / mount / "kube" / "pod", "250000")
    v1(root / mount / "kube" / "pod" / "container", "-1")
    v1(root / "memory" / "kube" / "pod" / "container", "100000")
    controllers = "cpu" if mount == "cpu" else mount
    membership = member(
        root, "4:memory:/kube/pod/container", f"2:{controllers}:/kube/pod/container", "0::/kube/pod/container"
    )
    assert cgroup_quota(root, membership) == 2.5


def test_both_versions_at_once(root: Path) -> None:
    v1(root / "cpu" / "a", "300000")
    v2(root / "b", "400000 100000")
    assert cgroup_quota(root, member(root, "1:cpu:/a", "0::/b")) == 3.0


@pytest.mark.parametrize("path", ["/docker/0123abc", "/../../elsewhere", "/"])
def test_a_container_sees_its_own_group_at_the_mount(root: Path, path: str) -> None:
    """The path is the host's, and is not there."""
    v2(root, "200000 100000")
    v2(root.parent / "elsewhere", "100000 100000")
    assert cgroup_quota(root, member(root, f"0::{path}")) == 2.0


@pytest.mark.parametrize("line", ["", "0", "0:", "a:b", "::", "0::no/slash", "0::/a:b"])
def test_odd_lines_are_no_failure(root: Path, line: str) -> None:
    v2(root, "200000 100000")
    v2(root / "a:b", "100000 100000")
    assert cgroup_quota(root, member(root, line)) == (1.0 if line == "0::/a:b" else 2.0)


# With the affinity mask


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
    root: Path, monkeypatch: pytest.MonkeyPatch, quota: str, allowed: int, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    v2(root / "pod", quota)
    assert available_cpus(root, member(root, "0::/pod")) == cpus


def test_a_system_without_masks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus(root, member(root)) == 1


def test_here() -> None:
    assert available_cpus() >= 1
