"""The Huffman code, beside that of the library `hpack`."""

from __future__ import annotations

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as draw

from balancer.proxy.http2 import huffman

ORACLE = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def test_the_code_is_that_of_the_standard() -> None:
    assert {symbol: (code, length) for code, length, symbol in huffman.codes()} == {
        symbol: (REQUEST_CODES[symbol], REQUEST_CODES_LENGTH[symbol]) for symbol in range(257)
    }


@given(draw.binary(max_size=200))
def test_what_is_encoded_is_read_again(string: bytes) -> None:
    assert huffman.decode(ORACLE.encode(string)) == string


@given(draw.binary(max_size=20))
def test_only_what_the_code_makes_is_read(data: bytes) -> None:
    try:
        string = huffman.decode(data)
    except huffman.BadHuffman:
        return
    assert ORACLE.encode(string) == data


@pytest.mark.parametrize(
    "data",
    [b"\x18", b"\x1f\xff", b"\xff\xff\xff\xff", b"\xff"],
    ids=["zeros as padding", "a byte of padding", "the end mark", "padding alone, too long"],
)
def test_padding_is_the_beginning_of_the_end_mark_and_shorter_than_a_byte(data: bytes) -> None:
    with pytest.raises(huffman.BadHuffman):
        huffman.decode(data)
