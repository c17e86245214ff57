"""The small frames, read by the library `hyperframe`."""

from __future__ import annotations

import pytest
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as draw

from balancer.proxy.http2 import frames

STREAMS = draw.integers(1, frames.MAX_STREAM_ID)
CODES = draw.integers(0, 13)


def read(data: bytes) -> Frame:
    frame, length = Frame.parse_frame_header(memoryview(data[:9]))
    assert length == len(data) - 9
    frame.parse_body(memoryview(data[9:]))
    return frame


@given(
    STREAMS, CODES, draw.integers(1, frames.MAX_WINDOW), draw.binary(min_size=8, max_size=8), draw.binary(max_size=9)
)
def test_what_is_written_is_what_another_reads(stream: int, code: int, size: int, payload: bytes, debug: bytes) -> None:
    reset = read(frames.rst_stream(frames.four(stream), code))
    window = read(frames.window_update(frames.four(stream), size))
    ping, pong = read(frames.ping(payload, False)), read(frames.ping(payload, True))
    goaway = read(frames.goaway(stream, code, debug))

    assert isinstance(reset, RstStreamFrame)
    assert isinstance(window, WindowUpdateFrame)
    assert isinstance(ping, PingFrame)
    assert isinstance(pong, PingFrame)
    assert isinstance(goaway, GoAwayFrame)
    assert (reset.stream_id, reset.error_code) == (stream, code)
    assert (window.stream_id, window.window_increment) == (stream, size)
    assert (ping.opaque_data, "ACK" in ping.flags) == (payload, False)
    assert (pong.opaque_data, "ACK" in pong.flags) == (payload, True)
    assert (goaway.last_stream_id, goaway.error_code, goaway.additional_data) == (stream, code, debug)


@given(draw.dictionaries(draw.sampled_from([1, 3, 4, 6]), draw.integers(0, frames.MAX_WINDOW)))
def test_settings_travel(values: dict[int, int]) -> None:
    data = frames.settings(list(values.items()))
    other = read(data)

    assert isinstance(other, SettingsFrame)
    assert other.settings == values
    assert dict(frames.settings_of(data[9:])) == values


@given(draw.sampled_from(range(10)), draw.integers(0, 255), draw.integers(0, (1 << 24) - 1))
def test_a_frames_head_tells_its_length_kind_and_flags(kind: int, flags: int, length: int) -> None:
    assert frames.head(kind, flags, length) == length.to_bytes(3, "big") + bytes((kind, flags))


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (frames.ENABLE_PUSH, 2, frames.PROTOCOL_ERROR),
        (frames.INITIAL_WINDOW_SIZE, 1 << 31, frames.FLOW_CONTROL_ERROR),
        (frames.MAX_FRAME_SIZE, 16383, frames.PROTOCOL_ERROR),
        (frames.MAX_FRAME_SIZE, 1 << 24, frames.PROTOCOL_ERROR),
    ],
)
def test_settings_that_make_no_sense_end_the_connection(key: int, value: int, code: int) -> None:
    with pytest.raises(frames.ConnectionFault) as caught:
        frames.settings_of(frames.settings([(key, value)])[9:])
    assert caught.value.code == code
