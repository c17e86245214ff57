"""Header compression, beside the library `hpack` at the other end, with changes of the table between any two blocks."""

from __future__ import annotations

from typing import Any

import hpack as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as draw

from balancer.proxy.http2 import hpack
from balancer.proxy.http2.fields import Pair

ROOMY = 1 << 20

NAMES = draw.sampled_from(
    [b":method", b":path", b"accept", b"cookie", b"authorization", b"x-a", b"x-b", b"x-" + b"n" * 90]
)
VALUES = draw.sampled_from([b"", b"GET", b"POST", b"/", b"a", b"b", b"value", b"v" * 300, b"\xff\x00\x01"])
PAIRS = draw.lists(draw.tuples(NAMES, VALUES), max_size=8)
# What a sender does next: a block of fields, with Huffman or not, or another size for its table.
STEPS = draw.lists(draw.one_of(draw.tuples(PAIRS, draw.booleans()), draw.integers(0, 4096)), max_size=12)


def pairs_of(block: hpack.Block) -> list[Pair]:
    return [field.pair for field in block.fields]


def read_by(decoder: Any, data: bytes) -> list[Pair]:
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(data, raw=True)]


@given(STEPS)
def test_what_another_encoder_sends_is_what_is_read(steps: list[tuple[list[Pair], bool] | int]) -> None:
    encoder, decoder = oracle.Encoder(), hpack.Decoder(ROOMY)
    for step in steps:
        if isinstance(step, int):
            if step != encoder.header_table_size:  # findings/hpack-same-table-size-twice.sh
                encoder.header_table_size = step
        else:
            pairs, compressed = step
            assert pairs_of(decoder.decode(encoder.encode(pairs, huffman=compressed))) == pairs


@given(STEPS)
def test_what_is_sent_is_what_another_decoder_reads(steps: list[tuple[list[Pair], bool] | int]) -> None:
    encoder, decoder = hpack.Encoder(), oracle.Decoder(ROOMY)
    for step in steps:
        if isinstance(step, int):
            encoder.resize(step)
            decoder.max_allowed_table_size = 4096
        else:
            assert read_by(decoder, encoder.encode(step[0])) == step[0]


class Message:
    """A message as a writer knows it: always the same object for the same fields."""


@given(draw.lists(draw.tuples(draw.integers(0, 5), PAIRS, draw.integers(0, 9)), max_size=30))
def test_no_memory_outlives_the_table_that_it_was_made_with(steps: list[tuple[int, list[Pair], int]]) -> None:
    """Few messages, sent again and again while the table changes between them; both memories are asked each time."""
    encoder, decoder, judge = hpack.Encoder(), hpack.Decoder(ROOMY), oracle.Decoder(ROOMY)
    messages: dict[int, tuple[Message, list[Pair]]] = {}
    for which, pairs, resize in steps:
        message, sent = messages.setdefault(which, (Message(), pairs))
        if resize == 0:
            encoder.resize(len(pairs) * 40)
        data = encoder.known(message) or encoder.encode(sent, message)
        assert read_by(judge, data) == sent
        assert pairs_of(decoder.decode(data)) == sent


# Few representations, so that blocks repeat: static and dynamic indices, literals that enter the table and that do not.
PIECES = draw.sampled_from(
    [
        b"\x82",
        b"\xbe",
        b"\xbf",
        b"\xc0",
        b"\x40\x01a\x01b",
        b"\x40\x01c\x01d",
        b"\x44\x01/",
        b"\x7e\x01x",
        b"\x00\x01e\x01f",
    ]
)


@given(
    draw.lists(draw.tuples(draw.sampled_from([b"", b"\x20", b"\x3f\x30"]), draw.lists(PIECES, max_size=3)), max_size=30)
)
def test_any_sequence_of_blocks_means_the_same_to_us_and_another(blocks: list[tuple[bytes, list[bytes]]]) -> None:
    decoder, judge = hpack.Decoder(ROOMY), oracle.Decoder(ROOMY)
    for resized, pieces in blocks:
        data = resized + b"".join(pieces)
        try:
            read = read_by(judge, data)
        except oracle.HPACKError:
            with pytest.raises(hpack.BadBlock):
                decoder.decode(data)
            return
        assert pairs_of(decoder.decode(data)) == read


def test_a_block_known_by_its_bytes_means_another_thing_when_the_table_has_changed() -> None:
    decoder = hpack.Decoder(ROOMY)
    newest = b"\xbe"
    decoder.decode(b"\x40\x01a\x01b")
    assert pairs_of(decoder.decode(newest)) == [(b"a", b"b")]
    assert pairs_of(decoder.decode(newest)) == [(b"a", b"b")]
    decoder.decode(b"\x40\x01c\x01d")
    assert pairs_of(decoder.decode(newest)) == [(b"c", b"d")]
    decoder.decode(b"\x20")
    with pytest.raises(hpack.BadBlock):
        decoder.decode(newest)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80",
        b"\xbe",
        b"\xff\xff\xff\xff\xff\xff\x0f",
        b"\x40",
        b"\x40\x05a",
        b"\x00\x01a",
        b"\x82\x20",
        b"\x3f\xe2\x1f",
        b"\x00\x81\x00\x00",
    ],
    ids=[
        "index 0",
        "an index beyond the table",
        "an integer beyond all sizes",
        "no name",
        "a name cut short",
        "no value",
        "a change of size behind a field",
        "a table larger than allowed",
        "bad Huffman",
    ],
)
def test_a_block_that_cannot_be_decoded_is_told_apart(data: bytes) -> None:
    with pytest.raises(hpack.BadBlock):
        hpack.Decoder(ROOMY).decode(data)


@given(draw.binary(max_size=40))
def test_no_bytes_cause_another_error(data: bytes) -> None:
    decoder = hpack.Decoder(ROOMY)
    for _ in range(2):
        try:
            decoder.decode(data)
        except hpack.BadBlock:
            return


def test_a_list_over_the_limit_is_not_kept_but_the_table_stays_in_step() -> None:
    encoder, decoder = oracle.Encoder(), hpack.Decoder(5000)
    bomb = encoder.encode([(b"x-big", b"v" * 3000)])
    decoder.decode(bomb)
    many = decoder.decode(b"\xbe" * 10_000)
    assert many.too_large
    assert len(many.fields) == 1
    assert pairs_of(decoder.decode(encoder.encode([(b"x-big", b"v" * 3000)]))) == [(b"x-big", b"v" * 3000)]


def test_secrets_enter_no_table_and_what_never_repeats_pushes_nothing_out() -> None:
    encoder, decoder = hpack.Encoder(), oracle.Decoder(ROOMY)
    stable = [(b":method", b"POST"), (b"x-stable", b"value"), (b"authorization", b"Bearer secret")]
    for number in range(500):
        read_by(decoder, encoder.encode([*stable, (b":path", b"/%d" % number)]))
    kept = [name for name, _ in decoder.header_table.dynamic_entries]
    assert kept == [b"x-stable"]
    assert encoder.encode(stable).count(b"secret") == 1


def test_a_table_under_pressure_does_not_change_with_each_block() -> None:
    encoder = hpack.Encoder()
    sizes = []
    clients = [[(b"x-forwarded-for", b"10.0.0.%d" % number), (b"x-pad", b"%d" % number * 60)] for number in range(40)]
    for _ in range(3):
        for pairs in clients:
            message = Message()
            encoder.encode(pairs)
            encoder.encode(pairs)
            encoder.encode(pairs, message)
            sizes.append(encoder.known(message) is not None)
    assert sum(sizes) > 0.9 * len(sizes)
