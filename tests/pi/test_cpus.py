from __future__ import annotations

import os
from pathlib import Path

import pytest

from pi.cpus import available_cpus


@pytest.fixture(autouse=True)
def _sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def _files(root: Path, **contents: str) -> Path:
    for path, text in contents.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_without_a_quota_all_that_the_scheduler_allows(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == 16


def test_the_quota_of_cgroup_v2_in_a_container(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}
    assert available_cpus(_files(tmp_path, **files)) == 3


def test_a_quota_of_max_is_none(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}
    assert available_cpus(_files(tmp_path, **files)) == 16


def test_the_strictest_group_above_decides(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pods/one\n",
        "sys/fs/cgroup/pods/one/cpu.max": "800000 100000\n",
        "sys/fs/cgroup/pods/cpu.max": "400000 100000\n",
    }
    assert available_cpus(_files(tmp_path, **files)) == 4


def test_the_quota_of_cgroup_v1_where_the_path_is_the_hosts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    assert available_cpus(_files(tmp_path, **files)) == 2


def test_a_part_of_a_cpu_is_left_to_the_event_loop(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}
    assert available_cpus(_files(tmp_path, **files)) == 2


def test_less_than_a_cpu_is_one_worker(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "25000 100000\n"}
    assert available_cpus(_files(tmp_path, **files)) == 1


def test_a_group_outside_what_is_mounted_is_no_error(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/cpu.max": "500000 100000\n"}
    assert available_cpus(_files(tmp_path, **files)) == 5
