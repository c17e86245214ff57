"""WebSocket's handshake where one side is HTTP/2: there no key is sent and none is confirmed (RFC 8441 §5).

Towards HTTP/1.1 both have to be made, and what comes back checked (RFC 6455 §4.1).
"""

from __future__ import annotations

import hashlib
import os
from binascii import b2a_base64
from typing import Final

from balancer.proxy.messages import Headers

WEBSOCKET: Final = b"websocket"
KEY: Final = b"sec-websocket-key"
ACCEPT: Final = b"sec-websocket-accept"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def new_key() -> bytes:
    """A key that no other handshake has."""
    return b2a_base64(os.urandom(16), newline=False)


def accept_for(key: bytes) -> bytes:
    """What confirms `key`."""
    return b2a_base64(hashlib.sha1(key + _GUID).digest(), newline=False)  # noqa: S324  (as the protocol asks)


def value_of(fields: Headers, name: bytes) -> bytes:
    """The value of the first field of this name, in lower case; empty where there is none."""
    for each, value in fields:
        if each.lower() == name:
            return value
    return b""


def without_handshake(fields: Headers) -> Headers:
    """The fields as HTTP/2 carries them."""
    return [field for field in fields if field[0].lower() not in (KEY, ACCEPT)]
