"""Reads the corpus: messages that attack the framing, each with what must come of it. The format: corpus/README.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CORPUS = Path(__file__).parent.parent / "corpus"
_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|([rnt0\\{]))|\{([^{}]*)\*(\d+)\}")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\", b"{": b"{"}
_MACROS = {
    "@get": b"GET / HTTP/1.1\r\nHost: lb.test\r\n",
    "@post": b"POST / HTTP/1.1\r\nHost: lb.test\r\n",
    "@chunked": b"POST / HTTP/1.1\r\nHost: lb.test\r\nTransfer-Encoding: chunked\r\n\r\n",
    "@smuggled": b"GET /smuggled HTTP/1.1\r\nHost: lb.test\r\n\r\n",
    "@second": b"GET /second HTTP/1.1\r\nHost: lb.test\r\n\r\n",
    "@ok": b"HTTP/1.1 200 OK\r\n",
    "@poison": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
}
VERDICTS = ("refused", "broken", "passed", "cut")


@dataclass
class Case:
    """One message and its fate."""

    name: str
    why: str
    sent: bytes = b""
    expected: bytes | None = None
    """What must come out on the other side; None where the verdict says it all."""
    verdict: str = ""
    statuses: list[int] = field(default_factory=list)
    """Those that the client may get with `refused` and `broken`."""
    flags: set[str] = field(default_factory=set)
    method: str = "GET"
    """The request's method, in a case of a response."""

    def __str__(self) -> str:
        return self.name


def _unescaped(text: str) -> bytes:
    def replace(found: re.Match[bytes]) -> bytes:
        if found[1]:
            return bytes([int(found[1], 16)])
        if found[2]:
            return _PLAIN[found[2]]
        return _ESCAPE.sub(replace, found[3]) * int(found[4])

    return _ESCAPE.sub(replace, text.encode())


def _line(text: str) -> bytes:
    """The bytes of one line: ended by CRLF, unless it ends in a lone backslash."""
    if text.endswith("\\") and (len(text) - len(text.rstrip("\\"))) % 2:
        return _unescaped(text[:-1])
    return _unescaped(text) + b"\r\n"


def read_cases(path: Path) -> Iterator[Case]:
    """The cases of one file. Raises ValueError for what does not follow the format."""
    inward, outward = (">", "<") if path.parent.name == "requests" else ("<", ">")
    case: Case | None = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("["):
            if case:
                yield _checked(case, path)
            name, _, why = line[1:].partition("] ")
            case = Case(name, why)
        elif not line or line.startswith("#"):
            continue
        elif case is None:
            raise ValueError(f"{path.name}:{number}: outside a case")
        elif line[0] == inward:
            case.sent += _line(line[2:])
        elif line[0] == outward:
            case.expected = (case.expected or b"") + _line(line[2:])
        elif line in _MACROS:
            if case.verdict:
                case.expected = (case.expected or b"") + _MACROS[line]
            else:
                case.sent += _MACROS[line]
        elif line.startswith("! "):
            case.method = line[2:]
        else:
            _outcome(case, line)
    if case:
        yield _checked(case, path)


def _outcome(case: Case, line: str) -> None:
    verdict, *rest = line.split()
    case.verdict = verdict
    for word in rest:
        if word[0].isdigit():
            case.statuses += [int(status) for status in word.split("|")]
        else:
            case.flags.add(word)


def _checked(case: Case, path: Path) -> Case:
    known = {"closed", "fresh", "close", "half-close", "after"}
    if case.verdict not in VERDICTS or not case.flags <= known or not case.why:
        raise ValueError(f"{path.name}: {case.name}: {case.verdict!r} {case.flags}")
    return case


def all_cases(kind: str) -> list[Case]:
    """Every case of `requests` or `responses`, their names unique."""
    cases = [case for path in sorted((CORPUS / kind).glob("*.txt")) for case in read_cases(path)]
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"names used twice: {sorted(twice)}")
    return cases
