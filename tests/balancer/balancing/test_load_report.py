"""Load reports in all their forms (ORCA)."""

from __future__ import annotations

import base64
import struct

import pytest

from balancer.balancing.load_report import FIELD, FIELD_BINARY, parse


def doubles(**numbers: float) -> bytes:
    """The message of xds.data.orca.v3 with doubles at these field numbers (`f6=…`), and what is passed over."""
    message = b"\x18\x64"  # rps, deprecated: a varint
    message += b"\x22\x06\x0a\x01a\x12\x01b"  # request_cost: a map's entry
    for name, number in numbers.items():
        message += bytes([int(name[1:]) << 3 | 1]) + struct.pack("<d", number)
    return message


BINARY = base64.b64encode(doubles(f1=0.3, f6=120.0, f7=2.5))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (FIELD, b"TEXT cpu_utilization=0.3,rps_fractional=120,eps=2.5"),
        (FIELD, b"TEXT cpu_utilization=0.3, mem_utilization=0.9, rps_fractional=120, eps=2.5, named_metrics.a=1"),
        (FIELD, b"TEXT cpu_utilization:0.3,rps_fractional:120, eps:2.5,utilization.total:0.5"),
        (FIELD, b"text cpu_utilization=0.3,rps_fractional=120,eps=2.5"),
        (FIELD, b'JSON {"cpu_utilization": 0.3, "rps_fractional": 120, "eps": 2.5, "named_metrics": {"a": 1}}'),
        (FIELD, b'JSON {"cpuUtilization": 0.3, "rpsFractional": "120", "eps": 2.5}'),
        (FIELD, b"BIN " + BINARY),
        (FIELD_BINARY, BINARY),
        (FIELD_BINARY, BINARY.rstrip(b"=")),
    ],
)
def test_every_form_says_the_same(name: bytes, value: bytes) -> None:
    report = parse(name, value)
    assert report is not None
    assert (report.utilization, report.rate, report.errors) == (0.3, 120.0, 2.5)


def test_the_applications_own_utilisation_comes_first() -> None:
    report = parse(FIELD, b"TEXT cpu_utilization=0.3,application_utilization=1.7,mem_utilization=0.9")
    assert report is not None
    assert report.utilization == 1.7


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"TEXT",
        b"cpu_utilization=0.3",
        b"TEXT cpu_utilization",
        b"TEXT cpu_utilization=many",
        b"TEXT cpu_utilization=-1",
        b"TEXT cpu_utilization=nan",
        b"TEXT cpu_utilization=inf",
        b"TEXT cpu_utilization=0.5,rps_fractional=1e308",
        b"JSON",
        b"JSON []",
        b"JSON {",
        b'JSON {"cpu_utilization": true}',
        b'JSON {"cpu_utilization": -1}',
        b'JSON {"cpu_utilization": 1' + b"0" * 400 + b"}",
        b'JSON {"cpu_utilization": 1' + b"0" * 5000 + b"}",
        b"JSON " + b"[" * 5000,
        b"BIN !",
        b"BIN " + base64.b64encode(doubles(f1=0.3)[:-1]),
        b"BIN " + base64.b64encode(b"\xff" * 20),
        b"BIN " + base64.b64encode(b"\x0b"),
        b"TEXT " + b"a=1," * 4000,
        b"\xff\xfe\xfd\xfc\xff",
        b"TEXT cpu_utilization=\xff",
    ],
)
def test_what_is_no_report_is_none(value: bytes) -> None:
    assert parse(FIELD, value) is None
