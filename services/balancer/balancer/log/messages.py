"""Messages about transitions, by structlog: JSON, or for a person at a terminal."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING

from balancer.log.chart_values import FIELDS, beside
from balancer.log.output import Output

# structlog imports rich if it is there, for tracebacks that we do not use: 4 MB and 0.1 s at every start.
_hide_rich = "rich" not in sys.modules
if _hide_rich:
    sys.modules["rich"] = None  # type: ignore[assignment]
try:
    import structlog
finally:
    if _hide_rich:
        del sys.modules["rich"]

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(level: str = "info", fmt: str | None = None, fd: int = 2) -> Output:
    """Send structlog's and the standard library's messages of `level` and above to `fd`; returns where they go.

    `fmt` is `json` or `console`; None is console on a terminal and json elsewhere.
    """
    output = Output(fd)
    console = fmt == "console" or (fmt is None and os.isatty(fd))
    colours = os.isatty(fd)
    last: list[Processor] = [escaped, _console(colours)] if console else [_known_first, _json]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _with_exception,
            _with_chart_values,
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _Lines(output),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(level)
    atexit.register(output.close)
    return output


_json = structlog.processors.JSONRenderer(default=str)


class _Lines:
    """Where structlog hands over each finished line."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def debug(self, line: str) -> None:
        self._output.write(line + "\n")

    info = warning = error = critical = debug


def _console(colours: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=colours,
        pad_event_to=0,
        pad_level=False,
        sort_keys=False,
        timestamp_key="time",
        exception_formatter=structlog.dev.plain_traceback,
    )


def _known_first(logger: object, method: str, event: EventDict) -> EventDict:
    return {"time": event.pop("time"), "level": event.pop("level"), "event": event.pop("event"), **event}


def _with_exception(logger: object, method: str, event: EventDict) -> EventDict:
    """The traceback as text, in the field `exception`."""
    info = event.pop("exc_info", None)
    if info:
        error = info if isinstance(info, BaseException) else (info if isinstance(info, tuple) else sys.exc_info())[1]
        if error is not None:
            event["exception"] = "".join(traceback.format_exception(error)).rstrip()
    return event


def _with_chart_values(logger: object, method: str, event: EventDict) -> EventDict:
    """Each remedy with the chart's value beside the variable, where the balancer runs in a pod."""
    for field in FIELDS:
        if isinstance(event.get(field), str):
            event[field] = beside(event[field])
    return event


def escaped(logger: object, method: str, event: EventDict) -> EventDict:
    """Every text without control characters; the lines of a traceback indented, so that none passes for a message."""
    for key, value in event.items():
        if key == "exception":
            event[key] = "\n".join("    " + printable(line) for line in str(value).split("\n"))
        elif not isinstance(value, bool | int | float | None):
            event[key] = printable(str(value))
    return event


def printable(text: str) -> str:
    """`text` with whatever is not printable (line ends and escape sequences too) as a Python escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _ToStructlog(logging.Handler):
    """Messages of aiohttp, asyncio and the like, written in our form."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger().bind(logger=record.name)
        level = max(10, min(40, record.levelno // 10 * 10))
        logger.log(level, record.getMessage(), exc_info=record.exc_info)


def _route_standard_library(level: str) -> None:
    """No debug messages of libraries: the Kubernetes client's carry tokens and whole responses."""
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(max(LEVELS[level], logging.INFO))
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
