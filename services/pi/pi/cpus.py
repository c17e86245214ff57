"""How many CPUs this container may use: the default number of workers."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath


def available_cpus(root: Path = Path("/")) -> int:
    """Whole CPUs within the cgroup's quota (v1 or v2, the strictest of its ancestors) and the scheduler's affinity.

    At least 1. A part of a CPU is left to the event loop: a quota of 2.5 gives 2. `root` is the file system to read.
    """
    quotas = [quota for quota in _quotas(root) if quota is not None]
    return max(1, int(min([float(_affinity()), *quotas])))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> list[float | None]:
    """CPUs that each group from ours up to the root of its hierarchy allows."""
    found: list[float | None] = []
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            found += [_quota_v2(group) for group in _ancestors(mounts, path)]
            found += [_quota_v2(group) for group in _ancestors(mounts / "unified", path)]
        elif "cpu" in controllers.split(","):
            for mount in (mounts / "cpu", mounts / controllers):
                found += [_quota_v1(group) for group in _ancestors(mount, path)]
    return found


def _ancestors(mount: Path, path: str) -> list[Path]:
    """The group's folder and those above it. In a container the path may be the host's: the mount's root is ours."""
    relative = PurePosixPath(path.lstrip("/"))
    if ".." in relative.parts:
        return [mount]
    return [mount / parent for parent in (relative, *relative.parents)]


def _quota_v2(group: Path) -> float | None:
    quota, _, period = _read(group / "cpu.max").strip().partition(" ")
    return _share(quota, period)


def _quota_v1(group: Path) -> float | None:
    return _share(_read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip())


def _share(quota: str, period: str) -> float | None:
    """`max` (v2) and `-1` (v1) mean no quota."""
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return int(quota) / int(period)
    return None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
