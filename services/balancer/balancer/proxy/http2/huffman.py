"""The Huffman code of HPACK (RFC 7541, appendix B), decoded a byte at a time.

A state is a node of the code's tree. Where a byte leads from it, and which bytes are whole on the way, is worked out
when it is first needed: traffic visits a small part of the 256 states by 256 bytes.
"""

from __future__ import annotations

from typing import Final

LENGTHS: Final = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b080606060505050606060606"
    "060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f050605060506060605070706060605"
    "06070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617161717181615141616171715"
    "1716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b"
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
)
"""Bits of each byte's code. The code is canonical: that is all there is to know of it."""
END_LENGTH: Final = 30
"""Bits of the code's end mark, all of them ones."""


class BadHuffman(Exception):
    """Not a string that this code makes."""


class State:
    """A node of the tree, and where bytes lead from it."""

    __slots__ = ("_one", "_symbol", "_zero", "may_end", "next", "out")

    def __init__(self) -> None:
        self._zero: State | None = None
        self._one: State | None = None
        self._symbol = -1
        self.may_end = False
        """Whether a string may end here: nothing is pending but fewer than eight ones (RFC 7541 §5.2)."""
        self.next: list[State | None] = [None] * 256
        self.out: list[bytes] = [b""] * 256

    def insert(self, code: int, length: int, symbol: int) -> None:
        """Put a code into the tree below this node."""
        node = self
        for bit in range(length - 1, -1, -1):
            one = (code >> bit) & 1
            following = node._one if one else node._zero
            if following is None:
                following = State()
                if one:
                    node._one = following
                else:
                    node._zero = following
            node = following
        node._symbol = symbol

    def step(self, root: State, byte: int) -> State:
        """Where `byte` leads, which is noted for the next time. Raises BadHuffman for the end mark."""
        node = self
        out: list[int] = []
        for bit in range(7, -1, -1):
            following = node._one if (byte >> bit) & 1 else node._zero
            if following is None:
                raise BadHuffman("a code that is none")
            node = following
            if node._symbol == 256:
                raise BadHuffman("the end mark within a string")
            if node._symbol >= 0:
                out.append(node._symbol)
                node = root
        self.next[byte] = node
        self.out[byte] = bytes(out)
        return node

    def mark_padding(self) -> None:
        """From the root: what at most seven ones lead to may end a string."""
        node: State | None = self
        for _ in range(8):
            if node is not None:
                node.may_end = True
                node = node._one


def codes() -> list[tuple[int, int, int]]:
    """(code, length, symbol) of each symbol, 256 being the end mark."""
    made = []
    code = before = 0
    lengths = [*LENGTHS, END_LENGTH]
    for symbol in sorted(range(257), key=lambda each: (lengths[each], each)):
        code <<= lengths[symbol] - before
        before = lengths[symbol]
        made.append((code, before, symbol))
        code += 1
    return made


def _tree() -> State:
    root = State()
    for code, length, symbol in codes():
        root.insert(code, length, symbol)
    root.mark_padding()
    return root


_ROOT: Final = _tree()


def decode(data: bytes) -> bytes:
    """The string that `data` encodes. Raises BadHuffman."""
    state = _ROOT
    out: list[bytes] = []
    for byte in data:
        following = state.next[byte]
        if following is None:
            following = state.step(_ROOT, byte)
        out.append(state.out[byte])
        state = following
    if not state.may_end:
        raise BadHuffman("wrong padding")
    return b"".join(out)
