"""WebSocket frames: what is written is read, however it is cut up on its way, and what is no such frame is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.peers.frames import CLOSE, PING, PONG, TEXT, BadFrame, Frames, close_code, close_frame, frame, opened

MOST = 70_000
SIZES = st.sampled_from([0, 1, 3, 125, 126, 127, 65_535, 65_536])
MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.just(TEXT), SIZES.map(lambda size: b"x" * size)),
        st.tuples(st.sampled_from([CLOSE, PING, PONG]), st.sampled_from([b"", b"x", b"x" * 125])),
    ),
    max_size=5,
)


@given(MESSAGES, st.booleans(), st.lists(st.integers(0, 200_000), max_size=8))
def test_frames_are_read_as_they_were_written_wherever_they_are_cut(
    messages: list[tuple[int, bytes]], masked: bool, cuts: list[int]
) -> None:
    data = b"".join(frame(opcode, payload, masked) for opcode, payload in messages)
    frames = Frames(MOST, masked)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    read = [each for begin, end in pairwise(places) for each in frames.feed(data[begin:end])]
    assert read == messages


def test_a_frame_may_come_byte_by_byte() -> None:
    frames = Frames(MOST, masked=True)
    data = frame(TEXT, b"a" * 300, True)
    assert [each for i in range(len(data)) for each in frames.feed(data[i : i + 1])] == [(TEXT, b"a" * 300)]


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\x01a",  # The first part of a message in several.
        b"\x82\x01a",  # Bytes.
        b"\xc1\x01a",  # Compressed.
        frame(TEXT, b"a" * (MOST + 1), masked=False),
        frame(PING, b"a" * 126, masked=False),
        frame(CLOSE, b"a" * 65_536, masked=False),
    ],
)
def test_what_is_no_whole_short_text_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        Frames(MOST, masked=False).feed(data)


@pytest.mark.parametrize("opcode", [TEXT, CLOSE, PING, PONG])
@pytest.mark.parametrize("masked", [True, False])
def test_a_client_that_does_not_mask_and_a_server_that_does_are_refused(opcode: int, masked: bool) -> None:
    with pytest.raises(BadFrame, match="masked"):
        Frames(MOST, masked).feed(frame(opcode, b"a", not masked))


def test_a_close_says_why_or_not() -> None:
    ((opcode, payload),) = Frames(MOST, masked=False).feed(close_frame(4001, "why", masked=False))
    assert (opcode, close_code(payload), payload[2:]) == (CLOSE, 4001, b"why")
    assert close_code(b"") == 1006


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept:  good", 101),
        (b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: bad", 0),
        (b"HTTP/1.1 101 Switching Protocols", 0),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0", 401),
        (b"SSH-2.0-OpenSSH_9.6", 0),
        (b"", 0),
    ],
)
def test_an_answer_opens_a_connection_or_not(head: bytes, status: int) -> None:
    assert opened(head, "good") == status
