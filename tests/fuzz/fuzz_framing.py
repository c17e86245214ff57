"""Fuzz the pure parsers with coverage (atheris): `python tests/fuzz/fuzz_framing.py [CORPUS] [-max_total_time=60]`.

What it holds: whatever the bytes, a parser answers with a value or with BadMessage, never with another exception;
and what it accepts it reads alike however the bytes are cut.
"""

from __future__ import annotations

import contextlib
import sys

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]  # it has no wheel for each Python

with atheris.instrument_imports(include=["balancer.proxy.http1", "balancer.proxy.fields"]):
    from balancer.proxy.fields import BadMessage
    from balancer.proxy.http1 import client, framing, heads, lines
    from balancer.proxy.http1.framing import ChunkedReader
    from balancer.proxy.messages import Peer

PEER = Peer("192.0.2.1", b"http", trusted=False)
TRUSTED = Peer("192.0.2.2", b"https", trusted=True)


def read_chunked(data: bytes, cut: int) -> tuple[bytes, list[tuple[bytes, bytes]], int] | str:
    """Payload, trailers and the end of a chunked body that comes in two pieces; or the refusal."""
    reader = ChunkedReader(4096, 128)
    try:
        end = reader.feed(data[:cut])
        if not reader.done:
            assert end == cut, "stopped before the end of the data"
            end += reader.feed(data[cut:])
    except BadMessage as bad:
        return f"refused {bad.status}"
    return b"".join(reader.out), list(reader.trailers), end if reader.done else -1


def check_chunked(data: bytes, cut: int) -> None:
    """Two cuts, one reading; and what is written anew reads the same."""
    whole = read_chunked(data, len(data))
    assert whole == read_chunked(data, cut), "another reading in two pieces"
    if isinstance(whole, tuple) and whole[2] >= 0:
        payload, trailers, _ = whole
        anew = (lines.chunk(payload) if payload else b"") + lines.last_chunk(trailers)
        assert read_chunked(anew, len(anew)) == (payload, trailers, len(anew)), "what we write reads otherwise"


def head_of(data: bytes) -> bytes:
    """What the connections cut off as a head: up to the first empty line, which is added where there is none."""
    ended = data + b"\r\n\r\n"
    return ended[: ended.find(b"\r\n\r\n") + 4]


def check_request(data: bytes) -> None:
    """A head: its line, its target, its fields for a stranger and for a trusted peer."""
    head = head_of(data)
    line_end = head.find(b"\r\n")
    with contextlib.suppress(BadMessage):
        line = framing.request_line(head[:line_end])
        authority, target = framing.split_target(line.target, line.method)
        for peer in (PEER, TRUSTED):
            fields = heads.request_fields(head[line_end + 2 :], line.minor, peer, authority)
            check_lines(lines.request_fields(fields))
        assert b"\r" not in target
        assert b"\n" not in target


def check_lines(forward: bytes) -> None:
    """What goes to an endpoint is whole lines, none of them empty, without a bare CR or LF, and framed once."""
    assert forward.endswith(b"\r\n")
    assert b"\r\n\r\n" not in forward
    written = forward[:-2].split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in written), forward
    names = [line.partition(b":")[0].lower() for line in written]
    framed = names.count(b"content-length") + names.count(b"transfer-encoding")
    assert framed < 2, forward
    assert names.count(b"host") < 2, forward


def check_response(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        whole = head_of(data)
        head, _ = client.response_head(whole, len(whole), 128)
        written = head.http1.split(b"\r\n")
        assert not any(b"\r" in line or b"\n" in line for line in written), head.http1


def fuzz(data: bytes) -> None:
    """One input: the first byte says what is looked at, the second where it is cut."""
    if len(data) < 2:
        return
    kind, place, rest = data[0] % 3, data[1], data[2:]
    if kind == 0:
        check_request(rest)
    elif kind == 1:
        check_response(rest)
    else:
        check_chunked(rest, place % (len(rest) + 1))


def main() -> None:
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
