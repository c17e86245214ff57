"""The name that a TLS client asks for, read out of its first message, which stays as it is.

RFC 8446 §4.1.2 and §5.1, RFC 6066 §3. Pure: bytes in, a name out. What two parsers could read in two ways is refused:
the endpoint, which reads the same bytes again, must not find another name there.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 16384
"""Bytes that the message may take on the wire, the records' heads among them: clients send 300 to 2,000."""

HANDSHAKE: Final = 22
"""The content type of the records that it comes in."""
CLIENT_HELLO: Final = 1
SERVER_NAME: Final = 0
"""The extension that says the name, and the only kind of name that there is."""
LONGEST_NAME: Final = 255
LONGEST_RECORD: Final = 16384
RANDOM_END: Final = 34
"""Where what differs in length begins: after the version and the random bytes."""


class BadHello(Exception):
    """What came is no first message of a TLS client; the text says why."""


class ClientHello:
    """The first message as it comes, in however many records and pieces: each byte is looked at once."""

    __slots__ = ("_head", "_left", "_message", "_taken", "name")

    def __init__(self) -> None:
        self._head = b""
        """Of a record, as far as it has come."""
        self._left = 0
        """Bytes of the record that are still to come."""
        self._message = bytearray()
        self._taken = 0
        self.name = ""
        """In lower case, once the message is whole; empty: the client asks for none."""

    def feed(self, data: bytes) -> bool:
        """Go on with what has come; whether the message is whole. Raises BadHello."""
        position = 0
        size = len(data)
        while position < size:
            if self._left == 0:
                taken = min(5 - len(self._head), size - position)
                self._head += data[position : position + taken]
                self._begin_record()
            else:
                taken = min(self._left, size - position)
                self._message += data[position : position + taken]
                self._left -= taken
                if self._whole():
                    return True
            position += taken
        self._taken += size
        if self._taken > MOST:
            raise BadHello("too long")
        return False

    def _begin_record(self) -> None:
        head = self._head
        if head[0] != HANDSHAKE:
            raise BadHello("not TLS")
        if len(head) < 5:
            return
        length = head[3] << 8 | head[4]
        if head[1] != 3 or not 0 < length <= LONGEST_RECORD:
            raise BadHello("not a record")
        self._left = length
        self._head = b""

    def _whole(self) -> bool:
        message = self._message
        if message[0] != CLIENT_HELLO:
            raise BadHello("another message")
        if len(message) < 4:
            return False
        length = message[1] << 16 | message[2] << 8 | message[3]
        if length > MOST:
            raise BadHello("too long")
        end = 4 + length
        if len(message) < end:
            return False
        self.name = name_in(bytes(message[4:end]))
        return True


def name_in(body: bytes) -> str:
    """The name that the body of a ClientHello asks for; empty: none. Raises BadHello."""
    position = RANDOM_END
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        position = _after(body, position, width)
    if position == len(body):
        return ""
    if _after(body, position, 2) != len(body):
        raise BadHello("something behind the extensions")
    position += 2
    name = ""
    while position < len(body):
        end = _after(body, position + 2, 2)
        if _number(body, position, 2) == SERVER_NAME:
            if name:
                raise BadHello("two names")
            name = _server_name(body[position + 4 : end])
        position = end
    return name


def _server_name(data: bytes) -> str:
    """The only name of the extension's list: more than one of a kind are not allowed, and there is one kind."""
    if _after(data, 0, 2) != len(data) or _number(data, 2, 1) != SERVER_NAME or _after(data, 3, 2) != len(data):
        raise BadHello("no list of one name")
    name = data[5:]
    if not 0 < len(name) <= LONGEST_NAME or any(not 32 < byte < 127 for byte in name):
        raise BadHello("no name of a host")
    return name.decode("ascii").lower()


def _after(data: bytes, position: int, width: int) -> int:
    """Where what has its length, in `width` bytes, at `position` ends. Raises BadHello where that is not there."""
    end = position + width + _number(data, position, width)
    if end > len(data):
        raise BadHello("cut short")
    return end


def _number(data: bytes, position: int, width: int) -> int:
    if position + width > len(data):
        raise BadHello("cut short")
    return int.from_bytes(data[position : position + width], "big")
