"""A request's body as far as it has come, kept so that another attempt can send it again."""

from __future__ import annotations


class Replay:
    """The pieces of one body."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0
        """Bytes kept."""

    def add(self, data: bytes) -> None:
        """Keep one more."""
        self._pieces.append(data)
        self.size += len(data)

    def joined(self) -> bytes:
        """All that has come."""
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
