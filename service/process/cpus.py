"""How many cores this process may use: the affinity mask and the control groups' quotas, not the host's count."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def cgroup_quota(root: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> float | None:
    """Cores that the control groups allow, or None where none sets a limit.

    A group is held by every group above it, so the tightest level counts. ``root`` is where the hierarchies are
    mounted (version 2, or version 1 with a folder a controller), ``membership`` says where in them this process is.
    Format: https://man7.org/linux/man-pages/man7/cgroups.7.html
    """
    return min((quota for group in _groups(root, membership) if (quota := _quota(group)) is not None), default=None)


def _groups(root: Path, membership: Path) -> Iterator[Path]:
    """Folders of the groups that this process is in, each level up to the mount.

    The mounts themselves always: in a container they are its own group, whatever path the host knows it by.
    """
    yield from (root, root / "cpu")
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        path = PurePosixPath(group.lstrip("/"))
        if ".." in path.parts:  # outside this process's namespace, so not mounted here
            continue
        for mount in {root / "cpu", root / controllers} if controllers else {root}:
            yield from (mount / level for level in (path, *path.parents))


def _quota(group: Path) -> float | None:
    """Microseconds of work in a period over its length; no number, or none above 0, means no limit."""
    for read in (_version_2, _version_1):
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = map(int, read(group))
            return quota / period if quota > 0 else None
    return None


def _version_2(group: Path) -> list[str]:
    return (group / "cpu.max").read_text().split()


def _version_1(group: Path) -> list[str]:
    return [(group / file).read_text() for file in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]


def allowed_cpus() -> int:
    """Cores that this process may run on, whatever share of them it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_cpus(root: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """Whole cores this process may use; at least 1."""
    quota = cgroup_quota(root, membership)
    return allowed_cpus() if quota is None else max(1, min(allowed_cpus(), math.ceil(quota)))
