"""Logs: no line can be forged, and nobody who does not read them holds up the balancer."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from balancer.log import AccessEntry, AccessLog, Output, configure

HOSTILE = 'a\n{"level":"error"}\r\x1b[31m\x00\u2028\x85"\\'


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def messages(tmp_path: Path) -> Iterator[Callable[..., Callable[[], list[str]]]]:
    """Configures the logs; gives what reads the lines written so far, and ends the log."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    file = (tmp_path / "log").open("w+b")

    def start(level: str = "info", fmt: str | None = None) -> Callable[[], list[str]]:
        output = configure(level, fmt, file.fileno())

        def lines() -> list[str]:
            output.close()
            return (tmp_path / "log").read_text().splitlines()

        return lines

    yield start
    file.close()
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


class Lines:
    """Stands for an Output, and keeps what is written."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


def access(**options: Any) -> tuple[AccessLog, Lines]:
    kept = Lines()
    return AccessLog(kept, wall=lambda: 1_700_000_000.0625, **options), kept  # type: ignore[arg-type]


def an_entry(**fields: object) -> AccessEntry:
    entry = AccessEntry()
    for name, value in fields.items():
        setattr(entry, name, value)
    return entry


# Messages.


def test_a_message_is_one_json_object_a_line_with_time_level_and_fields(messages: Any) -> None:
    read = messages(fmt="json")
    structlog.get_logger().warning("endpoint ejected", endpoint="10.0.0.1:80", seconds=10)
    [line] = read()
    told = json.loads(line)
    assert list(told) == ["time", "level", "event", "endpoint", "seconds"]
    assert told["time"].endswith("Z")
    assert (told["level"], told["event"], told["endpoint"], told["seconds"]) == (
        "warning",
        "endpoint ejected",
        "10.0.0.1:80",
        10,
    )


def test_json_is_the_form_where_no_terminal_is(messages: Any) -> None:
    read = messages()
    structlog.get_logger().info("started")
    assert json.loads(read()[0])["event"] == "started"


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_no_field_forges_a_line_or_commands_the_terminal(messages: Any, fmt: str) -> None:
    read = messages(fmt=fmt)
    structlog.get_logger().info(HOSTILE, path=HOSTILE, nested=[HOSTILE], raw=HOSTILE.encode())
    logging.getLogger("aiohttp").error("bad %s", HOSTILE)
    lines = read()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_the_lines_of_a_traceback_cannot_pass_for_messages_on_the_console(messages: Any) -> None:
    read = messages(fmt="console")
    structlog.get_logger().error("failed", exc_info=ValueError("x\n2026-01-01T00:00:00Z [info] all is well \x1b[31m"))
    first, *rest = read()
    assert "failed" in first
    assert any("ValueError" in line for line in rest)
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_a_traceback_in_json_is_a_field_of_its_message(messages: Any) -> None:
    read = messages(fmt="json")
    structlog.get_logger().error("failed", exc_info=ValueError("x"))
    [line] = read()
    assert json.loads(line)["exception"].endswith("ValueError: x")


def test_messages_below_the_level_are_left_out(messages: Any) -> None:
    read = messages(level="warning")
    structlog.get_logger().info("no")
    logging.getLogger("asyncio").info("no")
    structlog.get_logger().error("yes")
    assert [json.loads(line)["event"] for line in read()] == ["yes"]


def test_libraries_log_in_our_form_but_never_their_debug_messages(messages: Any) -> None:
    read = messages(level="debug")
    logging.getLogger("kubernetes").debug("Authorization: Bearer …")
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    structlog.get_logger().debug("ours")
    told = [json.loads(line) for line in read()]
    assert [message["event"] for message in told] == ["Task exception was never retrieved", "ours"]
    assert told[0]["logger"] == "asyncio"


# The access log.


def test_an_access_line_tells_the_whole_request() -> None:
    log, kept = access()
    log.record(
        an_entry(
            request_id="r1",
            client="10.0.0.9",
            method="GET",
            path="/10",
            status=200,
            bytes_received=0,
            bytes_sent=13,
            queue=None,
            connect=0.001,
            first_byte=0.0125,
            total=0.013,
            endpoint="10.0.0.1:80",
            attempts=1,
            strategy="round-robin",
        )
    )
    assert json.loads(kept.lines[0]) == {
        "time": "2023-11-14T22:13:20.062Z",
        "request_id": "r1",
        "client": "10.0.0.9",
        "method": "GET",
        "path": "/10",
        "status": 200,
        "bytes_received": 0,
        "bytes_sent": 13,
        "queue": None,
        "connect": 0.001,
        "first_byte": 0.0125,
        "total": 0.013,
        "endpoint": "10.0.0.1:80",
        "attempts": 1,
        "strategy": "round-robin",
        "reason": None,
    }
    assert kept.lines[0].endswith("}\n")


@pytest.mark.parametrize("field", ["client", "endpoint"])
def test_texts_that_are_remembered_are_right_however_many_there_are(field: str) -> None:
    log, kept = access()
    texts = [f'"{number % 6000}"' for number in range(12_000)]
    for text in texts:
        log.record(an_entry(**{field: text}))
    assert [json.loads(line)[field] for line in kept.lines] == texts


@given(st.floats(min_value=0.0, max_value=1e6))
def test_seconds_have_six_places(seconds: float) -> None:
    log, kept = access()
    log.record(an_entry(total=seconds))
    text = kept.lines[0].partition('"total":')[2].partition(",")[0]
    assert re.fullmatch(r"\d+\.\d{6}", text)
    assert float(text) == pytest.approx(seconds, abs=0.6e-6)


@given(st.text(), st.text(), st.text(), st.text())
def test_whatever_a_client_sends_is_one_line_of_json(path: str, request_id: str, method: str, reason: str) -> None:
    log, kept = access()
    log.record(an_entry(path=path, request_id=request_id, method=method, reason=reason))
    [line] = kept.lines
    assert line.endswith("\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    told = json.loads(line)
    assert (told["path"], told["method"], told["reason"]) == (path, method, reason or None)


def test_a_path_of_great_length_is_cut() -> None:
    log, kept = access()
    log.record(an_entry(path="/" * 16_000, request_id="x" * 16_000))
    assert len(kept.lines[0]) < 3000
    assert json.loads(kept.lines[0])["path"].endswith("/…")


def test_an_entry_may_be_reused_once_it_is_recorded() -> None:
    log, kept = access()
    entry = an_entry(path="/1")
    log.record(entry)
    entry.path = "/2"
    log.record(entry)
    assert [json.loads(line)["path"] for line in kept.lines] == ["/1", "/2"]


def test_a_sample_is_that_share_of_the_requests() -> None:
    log, kept = access(sample=0.1, random=Random(1))
    for _ in range(10_000):
        log.record(an_entry(total=0.1))
    assert 900 < len(kept.lines) < 1100


def test_a_slow_request_is_logged_whatever_the_sample() -> None:
    log, kept = access(sample=0.0, slow=0.5, random=Random(1))
    for total in (0.1, 0.499, 0.5, 3.0):
        log.record(an_entry(total=total))
    assert [json.loads(line)["total"] for line in kept.lines] == [0.5, 3.0]


# Writing.


def test_a_pipe_that_nobody_reads_holds_up_nobody_and_what_is_lost_is_counted(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing, max_pending=200_000)
    line = "x" * 999 + "\n"
    started = time.perf_counter()
    for _ in range(1000):
        output.write(line)
    assert time.perf_counter() - started < 1.0
    assert output.dropped > 500
    os.close(reading)  # whoever read is gone: the thread ends, and says so in the count
    output.close()
    assert output.dropped <= 1000


def test_writing_goes_on_once_the_pipe_is_read_again(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing, max_pending=500_000)
    for number in range(5000):
        output.write(f"{number:>99}\n")
    received = b""
    while received.count(b"\n") < 5000 - output.dropped:
        received += os.read(reading, 1 << 16)
    output.write("after\n")
    while not received.endswith(b"after\n"):
        received += os.read(reading, 1 << 16)
    lines = received.decode().splitlines()
    assert len(lines) == 5001 - output.dropped
    assert all(len(line) in (99, 5) for line in lines)
    output.close()


def test_lines_keep_their_order_and_none_is_lost_at_the_end(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        output = Output(file.fileno(), delay=60.0)
        for number in range(20_000):
            output.write(f"{number}\n")
        output.close()
    assert (tmp_path / "out").read_text().splitlines() == [str(number) for number in range(20_000)]
    assert output.dropped == 0


def test_a_batch_does_not_wait_for_the_delay(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        output = Output(file.fileno(), delay=60.0)
        for _ in range(100):
            output.write("x" * 999 + "\n")
        deadline = time.monotonic() + 10
        while not (tmp_path / "out").stat().st_size and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "out").stat().st_size > 50_000
        output.close()


def test_closing_waits_only_so_long_for_a_reader(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing)
    output.write("x" * 1_000_000 + "\n")
    writer = output._writer
    assert writer is not None
    started = time.perf_counter()
    output.close(timeout=0.1)
    assert time.perf_counter() - started < 2.0
    os.close(reading)
    writer.join(10.0)  # Else it goes on in the next test, which has a descriptor of the same number.
    assert not writer.is_alive()


def test_the_descriptor_stays_as_it_was(pipe: tuple[int, int]) -> None:
    """It may be shared with the shell that started us."""
    _, writing = pipe
    output = Output(writing)
    output.write("x\n")
    output.close()
    assert os.get_blocking(writing)


def test_a_descriptor_that_somebody_made_non_blocking_loses_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += os.write(writing, b"." * 4096)
    output = Output(writing)
    output.write("late\n")
    time.sleep(0.05)  # the writer meets the full pipe
    received = b""
    while not received.endswith(b"late\n"):
        received += os.read(reading, 1 << 16)
    output.close()
    assert (len(received), output.dropped) == (filled + 5, 0)


def test_a_log_that_has_nothing_to_write_takes_no_time(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing)
    output.write("x\n")
    assert os.read(reading, 10) == b"x\n"
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1
    output.close()


def test_a_full_disk_is_counted_and_survived() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    output = Output(descriptor)
    output.write("lost\n")
    output.close()
    os.close(descriptor)
    assert output.dropped == 1
