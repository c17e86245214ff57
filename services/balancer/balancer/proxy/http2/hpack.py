"""HPACK: header compression for HTTP/2 (RFC 7541), with memories for what repeats.

A client repeats its header blocks: once its table has settled, to the byte. So the decoder keeps whole blocks with what
they say, as long as the table that they were read with stands (its *generation*): a memory that survived a change of
the table would give one request the fields of another. The encoder does the same the other way.

Above 300 lines because encoder and decoder are two halves of one table, read side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from balancer.proxy.http2 import huffman
from balancer.proxy.http2.fields import Field, Pair, classify
from balancer.proxy.http2.static_table import STATIC

TABLE_SIZE: Final = 4096
"""Bytes of a dynamic table, unless settings say otherwise."""
MAX_KNOWN: Final = 64
"""Blocks that a decoder or an encoder keeps; they are all dropped when there is one more."""
MAX_ONCE: Final = 64
"""Blocks, kept by their bytes alone, that a decoder knows to have come once."""
MAX_KNOWN_BLOCK: Final = 1024
"""Bytes of the longest that is kept."""
MAX_INTEGER: Final = 1 << 28
SECRET: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"})
"""Fields that no table keeps, so that nobody who shares it can guess them by the size of what is sent."""
SETTLE: Final = 64
"""Blocks encoded between two insertions that push others out: a table under pressure must not change with each."""

_SHARED: Final = [Field(name, value, classify(name, value)) for name, value in STATIC]
_PAIRS: Final = {pair: index for index, pair in reversed(list(enumerate(STATIC, 1)))}
_NAMES: Final = {pair[0]: index for index, pair in reversed(list(enumerate(STATIC, 1)))}
KEPT_EVICTED: Final = 64
"""Entries of the decoder's table that have left it and are not yet cleared away."""
_FIRST: Final = len(STATIC) + 1
"""Index of the newest entry of the dynamic table."""


class BadBlock(Exception):
    """A block that can't be decoded: the tables of both sides differ from here on (COMPRESSION_ERROR)."""


class Block:
    """A header block, decoded. The same object is handed out for the same block again."""

    __slots__ = ("ended", "fields", "inserted", "meaning", "too_large", "trailers")

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.inserted: list[Field] = []
        """Those that it puts into the table."""
        self.too_large = False
        """Whether the list is longer than was allowed; `fields` then ends early."""
        self.meaning: object = None
        """What its reader has made of it; kept with it."""
        self.trailers: list[Pair] | None = None
        """The same, for a trailer section."""
        self.ended = False
        """Whether the message ended with the block that `meaning` was made of."""


class Decoder:
    """Reads one direction of one connection."""

    __slots__ = (
        "_allowed",
        "_entries",
        "_evicted",
        "_known",
        "_limit",
        "_literal_blocks",
        "_looked_up",
        "_once",
        "_position",
        "_resized",
        "_size",
        "generation",
        "max_list",
    )

    def __init__(self, max_list: int, limit: int = TABLE_SIZE) -> None:
        """`max_list`: bytes of a header list (RFC 9113 §6.5.2); `limit`: bytes of table that the sender may use."""
        self.max_list = max_list
        self.generation = 0
        """Changes with the dynamic table."""
        self._entries: list[Field] = []
        """The dynamic table, newest last; the first `_evicted` have left it."""
        self._evicted = 0
        self._size = 0
        self._allowed = limit
        self._limit = limit
        self._known: dict[bytes, Block] = {}
        """Blocks that left the table as it was: good as long as it stands."""
        self._literal_blocks: dict[bytes, Block] = {}
        """Blocks that looked nothing up in the dynamic table: always good, though they write to it, as nginx's do."""
        self._once: set[bytes] = set()
        """Blocks that have come once, of late: kept when they come again."""
        self._looked_up = False
        self._resized = False
        self._position = 0

    def decode(self, data: bytes) -> Block:
        """The fields that `data` encodes. Raises BadBlock."""
        known = self._known.get(data)
        if known is not None:
            return known
        known = self._literal_blocks.get(data)
        if known is not None:
            self._insert_again(known.inserted)
            return known
        generation = self.generation
        self._looked_up = False
        self._resized = False
        block = self._read(data)
        if len(data) > MAX_KNOWN_BLOCK or block.too_large:
            return block
        # One that never comes again (a path among thousands, a trace) would only push out those that do.
        if data not in self._once:
            if len(self._once) >= MAX_ONCE:
                self._once.clear()
            self._once.add(data)
        elif generation == self.generation:
            _keep(self._known, data, block)
        elif not self._looked_up and not self._resized:
            _keep(self._literal_blocks, data, block)
        return block

    def _read(self, data: bytes) -> Block:
        block = Block()
        fields = block.fields
        size = 0
        self._position = 0
        end = len(data)
        may_resize = True
        while self._position < end:
            byte = data[self._position]
            if byte >= 0x80:
                self._position += 1
                index = byte & 0x7F
                if index == 0x7F:
                    index = self._integer(data, 0x7F)
                field = self._at(index)
            elif byte & 0xE0 == 0x20:
                if not may_resize:
                    raise BadBlock("the table's size changes within a block")
                self._resize(self._prefixed(data, 0x1F))
                continue
            else:
                field = self._literal(data, byte, block.inserted)
            may_resize = False
            size += field.size
            if size <= self.max_list:
                fields.append(field)
            else:
                block.too_large = True
        return block

    def _literal(self, data: bytes, byte: int, inserted: list[Field]) -> Field:
        index = self._prefixed(data, 0x3F if byte & 0x40 else 0x0F)
        name = self._at(index).pair[0] if index else self._string(data)
        value = self._string(data)
        field = Field(name, value, classify(name, value), byte & 0xF0 == 0x10)
        if byte & 0x40:
            self._insert(field)
            inserted.append(field)
        return field

    def _prefixed(self, data: bytes, mask: int) -> int:
        value = data[self._position] & mask
        self._position += 1
        return self._integer(data, mask) if value == mask else value

    def _integer(self, data: bytes, value: int) -> int:
        """The rest of an integer whose first byte was full (RFC 7541 §5.1)."""
        shift = 0
        end = len(data)
        while True:
            if self._position >= end or shift > 28:
                raise BadBlock("an integer that does not end")
            byte = data[self._position]
            self._position += 1
            value += (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if value > MAX_INTEGER:
            raise BadBlock("an integer beyond all sizes")
        return value

    def _string(self, data: bytes) -> bytes:
        if self._position >= len(data):
            raise BadBlock("a string that is missing")
        compressed = data[self._position] >= 0x80
        length = self._prefixed(data, 0x7F)
        start = self._position
        end = start + length
        if end > len(data):
            raise BadBlock("a string longer than its block")
        self._position = end
        string = data[start:end]
        if not compressed:
            return string
        try:
            return huffman.decode(string)
        except huffman.BadHuffman as bad:
            raise BadBlock(str(bad)) from None

    def _at(self, index: int) -> Field:
        if 0 < index < _FIRST:
            return _SHARED[index - 1]
        self._looked_up = True
        entries = self._entries
        at = len(entries) - 1 - (index - _FIRST)
        if index == 0 or at < self._evicted:
            raise BadBlock("an index that no entry has")
        return entries[at]

    def _insert(self, field: Field) -> None:
        self._changed()
        if field.size > self._limit:  # It empties the table and is not kept (RFC 7541 §4.4).
            self._evict(0)
        else:
            self._evict(self._limit - field.size)
            self._entries.append(field)
            self._size += field.size

    def _insert_again(self, fields: list[Field]) -> None:
        """Insert all the fields of a block, in one step where none of them pushes another out."""
        size = 0
        for field in fields:
            size += field.size
        if size > self._limit:
            for field in fields:
                self._insert(field)
            return
        self._changed()
        self._evict(self._limit - size)
        self._entries += fields
        self._size += size

    def _resize(self, limit: int) -> None:
        if limit > self._allowed:
            raise BadBlock("a table larger than was allowed")
        self._changed()
        self._resized = True
        self._limit = limit
        self._evict(limit)

    def _evict(self, size: int) -> None:
        """Let the oldest entries go until the table has at most `size` bytes."""
        entries = self._entries
        while self._size > size:
            self._size -= entries[self._evicted].size
            self._evicted += 1
        if self._evicted > KEPT_EVICTED or (self._evicted and self._evicted == len(entries)):
            del entries[: self._evicted]
            self._evicted = 0

    def _changed(self) -> None:
        self.generation += 1
        if self._known:
            self._known = {}


def _keep(known: dict[bytes, Block], data: bytes, block: Block) -> None:
    if len(known) >= MAX_KNOWN:
        known.clear()
    known[data] = block


class Encoder:
    """Writes one direction of one connection.

    A field is put into the table when it is sent for the second time, since what never repeats (a path among thousands,
    a trace context) would only push out what does.
    """

    __slots__ = (
        "_inserted",
        "_known",
        "_limit",
        "_lowest",
        "_numbers",
        "_once",
        "_pairs",
        "_resized",
        "_since",
        "_size",
        "generation",
    )

    def __init__(self) -> None:
        self.generation = 0
        """Changes with the dynamic table, and with its size as we announced it."""
        self._limit = TABLE_SIZE
        self._size = 0
        self._inserted = 0
        """Entries ever inserted: the newest has this number."""
        self._pairs: list[Pair] = []
        """The dynamic table, newest last."""
        self._numbers: dict[Pair, int] = {}
        self._once: set[Pair] = set()
        """Fields that were sent once, of late."""
        self._known: dict[object, bytes] = {}
        self._resized = False
        self._lowest = TABLE_SIZE
        """The smallest table since the last block, which has to be announced too (RFC 7541 §4.2)."""
        self._since = 0
        """Blocks until an insertion may push others out."""

    def known(self, message: object) -> bytes | None:
        """The block that `encode` made for the same object, where the table still stands."""
        return self._known.get(message)

    def keep(self, message: object, block: bytes, generation: int) -> None:
        """Know `block` for `message` again, unless the table has changed since `generation`."""
        if generation == self.generation and len(block) <= MAX_KNOWN_BLOCK:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[message] = block

    def encode(self, pairs: Sequence[Pair], message: object = None) -> bytes:
        """A header block of `pairs`; for `message`, if any, it may be kept: the same object always means the same."""
        generation = self.generation
        out: list[bytes] = []
        if self._resized:
            self._resized = False
            self.generation += 1
            if self._lowest < self._limit:
                out.append(_integer(self._lowest, 0x1F, 0x20))
            out.append(_integer(self._limit, 0x1F, 0x20))
        self._since -= 1
        numbers = self._numbers
        for pair in pairs:
            number = numbers.get(pair)
            if number is not None:
                index = _FIRST + self._inserted - number
                out.append(_INDEXED[index] if index < 127 else _integer(index, 0x7F, 0x80))
                continue
            index = _PAIRS.get(pair, 0)
            out.append(_INDEXED[index] if index else self._literal(pair))
        block = b"".join(out)
        if message is not None:
            self.keep(message, block, generation)
        return block

    def encode_one(self, pair: Pair) -> bytes:
        """The beginning of a block: one field that most likely differs from those before."""
        if self._resized or pair in self._numbers or pair in _PAIRS:
            return self.encode([pair])
        self._since -= 1
        return self._literal(pair)

    def resize(self, limit: int) -> None:
        """The peer's decoder keeps at most `limit` bytes."""
        limit = min(limit, TABLE_SIZE)
        if limit == self._limit:
            return
        self._lowest = min(limit, self._lowest) if self._resized else limit
        self._limit = limit
        self._resized = True
        self._known.clear()
        self._evict(limit)

    def _literal(self, pair: Pair) -> bytes:
        name, value = pair
        if name in SECRET:
            return literal(name, value, 0x0F, 0x10)
        once = self._once
        if pair not in once:
            if len(once) >= MAX_KNOWN:
                once.clear()
            once.add(pair)
            return literal(name, value, 0x0F, 0x00)
        size = len(name) + len(value) + 32
        if size > self._limit >> 1 or (self._size + size > self._limit and self._since > 0):
            return literal(name, value, 0x0F, 0x00)
        once.discard(pair)
        if self._size + size > self._limit:
            self._since = SETTLE
            self._evict(self._limit - size)
        self._inserted += 1
        self.generation += 1
        self._pairs.append(pair)
        self._numbers[pair] = self._inserted
        self._size += size
        self._known.clear()
        return literal(name, value, 0x3F, 0x40)

    def _evict(self, size: int) -> None:
        pairs = self._pairs
        gone = 0
        while self._size > size:
            name, value = pairs[gone]
            self._size -= len(name) + len(value) + 32
            del self._numbers[pairs[gone]]
            gone += 1
        del pairs[:gone]


def literal(name: bytes, value: bytes, mask: int = 0x0F, pattern: int = 0x00) -> bytes:
    """A field as a literal: without indexing, unless `mask` and `pattern` say otherwise (RFC 7541 §6.2)."""
    index = _NAMES.get(name, 0)
    first = _integer(index, mask, pattern) if index else _BYTES[pattern] + _integer(len(name), 0x7F, 0x00) + name
    return first + _integer(len(value), 0x7F, 0x00) + value


def length_of(value: bytes) -> bytes:
    """What stands before a string that is not compressed."""
    return _integer(len(value), 0x7F, 0x00)


def _integer(value: int, mask: int, pattern: int) -> bytes:
    if value < mask:
        return _BYTES[pattern | value]
    out = [pattern | mask]
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_BYTES: Final = [bytes([number]) for number in range(256)]
_INDEXED: Final = [bytes([0x80 | number]) for number in range(127)]
