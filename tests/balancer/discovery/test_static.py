"""A list, and a file that is edited, replaced, broken and mended while it is watched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from balancer.discovery import Status, create
from balancer.discovery.static import FileDiscovery
from balancer.settings import Settings, load


@pytest.fixture
def follow_file(read: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def start(file: Path = tmp_path / "backends") -> Any:
        discovery = FileDiscovery(file, Status("static"))
        discovery.poll = 0.01
        return read(discovery)

    return start


async def test_the_list_of_the_setting(read: Callable[..., Any]) -> None:
    reader = read(create(load({"LB_BACKENDS": "10.0.0.1:80, [::1]:81;weight=3"})))
    await reader.until(lambda: reader.snapshots)
    assert reader.last == ["10.0.0.1:80", "[::1]:81"]
    assert reader.snapshots[0][1].weight == 3
    assert reader.status.source == "static"
    assert reader.status.error is None


async def test_the_file_of_the_setting_with_comments(read: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "backends"
    file.write_text("# ours\n10.0.0.1:80  # the old one\n\n10.0.0.2:80;weight=2\n")
    events: dict[str, int] = {}
    reader = read(create(load({"LB_BACKENDS_FILE": str(file)}), events))
    await reader.until(lambda: reader.last == ["10.0.0.1:80", "10.0.0.2:80"])
    assert events == {"snapshot": 1}


async def test_an_edit_in_place(follow_file: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "backends"
    file.write_text("10.0.0.1:80\n")
    reader = follow_file()
    await reader.until(lambda: reader.last == ["10.0.0.1:80"])
    file.write_text("10.0.0.1:80\n10.0.0.2:80\n")
    await reader.until(lambda: reader.last == ["10.0.0.1:80", "10.0.0.2:80"])


async def test_a_file_replaced_by_another_of_the_same_size_and_time(
    follow_file: Callable[..., Any], tmp_path: Path
) -> None:
    file, other = tmp_path / "backends", tmp_path / "new"
    file.write_text("10.0.0.1:80\n")
    reader = follow_file()
    await reader.until(lambda: reader.last == ["10.0.0.1:80"])
    other.write_text("10.0.0.2:80\n")
    stat = file.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(file)
    await reader.until(lambda: reader.last == ["10.0.0.2:80"])


async def test_a_config_map_whose_symlink_is_swapped(follow_file: Callable[..., Any], tmp_path: Path) -> None:
    """As the kubelet does it: the file is a link into `..data`, itself a link that is replaced whole."""
    for version, text in (("..1", "10.0.0.1:80\n"), ("..2", "10.0.0.2:80\n")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "backends").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "backends").symlink_to("..data/backends")
    reader = follow_file()
    await reader.until(lambda: reader.last == ["10.0.0.1:80"])
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    await reader.until(lambda: reader.last == ["10.0.0.2:80"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.0.0.1:80\n10.0.0.2\n", "line 2, '10.0.0.2': no port"),
        ("10.0.0.1:80\n# hm\n10.0.0.1:80\n", "line 3, '10.0.0.1:80': given twice"),
        ("# nothing\n", "lists no endpoint"),
        ("", "lists no endpoint"),
        ("x\n" * 9, "and 4 more"),
    ],
)
async def test_a_bad_file_keeps_the_last_good_list_and_names_the_line_once(
    follow_file: Callable[..., Any], tmp_path: Path, logs: list[Any], text: str, told: str
) -> None:
    file = tmp_path / "backends"
    file.write_text("10.0.0.9:80\n")
    reader = follow_file()
    await reader.until(lambda: reader.snapshots)
    file.write_text(text)
    await reader.until(lambda: reader.status.stale)
    assert told in reader.status.error
    assert "last good list goes on serving" in reader.status.error
    assert reader.last == ["10.0.0.9:80"]
    file.write_text("10.0.0.9:80\n")
    await reader.until(lambda: reader.status.error is None)
    assert [line["event"] for line in logs] == ["discovery_failing", "discovery_recovered"]
    assert len(reader.snapshots) == 1, "nothing changed in the end"


async def test_a_file_that_is_not_there_yet(follow_file: Callable[..., Any], tmp_path: Path) -> None:
    reader = follow_file()
    await reader.until(lambda: reader.status.stale)
    assert "No such file" in reader.status.error
    assert "No endpoint is known yet" in reader.status.error
    assert reader.status.fresh_at is None
    (tmp_path / "backends").write_text("10.0.0.1:80\n")
    await reader.until(lambda: reader.last == ["10.0.0.1:80"])


async def test_a_file_that_is_no_text(follow_file: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "backends").write_bytes(b"\xff\xfe\x00")
    reader = follow_file()
    await reader.until(lambda: reader.status.stale)


def test_each_discovery_of_the_settings_can_be_made() -> None:
    for given in (
        {"discovery": "static", "backends": ()},
        {"discovery": "dns", "dns_name": "localhost", "dns_port": 80},
        {"discovery": "kubernetes", "kubernetes_service": "pi"},
    ):
        settings = Settings.model_construct(**given)
        assert create(settings).status.source == given["discovery"]
