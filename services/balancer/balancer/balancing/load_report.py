"""What an endpoint says of its own load: ORCA reports, in each of the forms in which servers send them.

Source: xds.data.orca.v3.OrcaLoadReport, gRFC A51, and Envoy's parser of the header `endpoint-load-metrics`, whose
value begins with its form: `TEXT cpu_utilization=0.3,rps_fractional=120` (with `:` for `=` too), `JSON
{"cpu_utilization": 0.3}` or `BIN ` and base64. `endpoint-load-metrics-bin` is base64 alone.
"""

from __future__ import annotations

import binascii
import json
import struct
from typing import Final

FIELD: Final = b"endpoint-load-metrics"
FIELD_BINARY: Final = b"endpoint-load-metrics-bin"
LONGEST: Final = 8192
"""Bytes of a report: a longer one is not read."""
LARGEST: Final = 1e12
"""Largest number of a report that is read. Sums and quotients of such are far from what a float holds."""

_APPLICATION: Final = "application_utilization"
_CPU: Final = "cpu_utilization"
_MEMORY: Final = "mem_utilization"
_RATE: Final = "rps_fractional"
_ERRORS: Final = "eps"
_NUMBERS: Final = {1: _CPU, 2: _MEMORY, 6: _RATE, 7: _ERRORS, 9: _APPLICATION}
"""The fields of the message that are read, by number; each is a double."""
_CAMEL: Final = {
    "cpuUtilization": _CPU,
    "memUtilization": _MEMORY,
    "rpsFractional": _RATE,
    "applicationUtilization": _APPLICATION,
}


class LoadReport:
    """One report: numbers from 0 to `LARGEST`."""

    __slots__ = ("errors", "rate", "utilization")

    def __init__(self, utilization: float, rate: float, errors: float) -> None:
        self.utilization = utilization
        """The application's where it is given, else the CPU's, else the memory's; 1 is all of it."""
        self.rate = rate
        """Requests a second that it serves, from everybody; 0: it does not say."""
        self.errors = errors
        """Of these, a second, those that failed."""


def parse(name: bytes, value: bytes) -> LoadReport | None:
    """The report in a header or trailer field of this name, in lower case; None for what is none."""
    if len(value) > LONGEST:
        return None
    form = b"BIN" if name == FIELD_BINARY else value[:4].strip().upper()
    rest = value if name == FIELD_BINARY else value[4:].strip()
    try:
        if form == b"TEXT":
            said = _of_text(rest)
        elif form == b"JSON":
            said = _of_json(rest)
        elif form == b"BIN":
            said = _of_binary(binascii.a2b_base64(rest + b"=" * (-len(rest) % 4), strict_mode=True))
        else:
            return None
    except (ValueError, OverflowError, IndexError, struct.error, RecursionError):
        return None
    for number in said.values():
        if not 0.0 <= number <= LARGEST:
            return None
    utilization = said.get(_APPLICATION) or said.get(_CPU) or said.get(_MEMORY) or 0.0
    return LoadReport(utilization, said.get(_RATE, 0.0), said.get(_ERRORS, 0.0))


def _of_text(text: bytes) -> dict[str, float]:
    said: dict[str, float] = {}
    for pair in text.decode("ascii").split(","):
        key, equals, value = pair.partition("=" if "=" in pair else ":")
        if not equals:
            raise ValueError(pair)
        said[key.strip()] = float(value)
    return {key: number for key, number in said.items() if key in _NUMBERS.values()}


def _of_json(text: bytes) -> dict[str, float]:
    report = json.loads(text)
    if not isinstance(report, dict):
        raise ValueError("no object")  # noqa: TRY004 (of what came, not of our own types)
    said: dict[str, float] = {}
    for key, value in report.items():
        name = str(_CAMEL.get(key, key))
        if name in _NUMBERS.values():
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError(key)
            said[name] = float(value)
    return said


def _of_binary(message: bytes) -> dict[str, float]:
    """Read the protocol buffer as far as it is of interest; other fields are passed over by their wire type."""
    said: dict[str, float] = {}
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 1:
            if at + 8 > end:
                raise ValueError("cut short")
            if number in _NUMBERS:
                said[_NUMBERS[number]] = float(struct.unpack("<d", message[at : at + 8])[0])
            at += 8
        elif kind == 2:
            size, at = _varint(message, at)
            at += size
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind == 5:
            at += 4
        else:
            raise ValueError("no such wire type")
    if at > end:
        raise ValueError("cut short")
    return said


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number without end")
