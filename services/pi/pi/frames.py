"""What the server and its worker processes say to each other: fixed heads, then a payload."""

from __future__ import annotations

import struct

QUESTION = struct.Struct("!Q?")
"""How many decimals, and whether to lay them out for the page."""

ANSWER = struct.Struct("!Qdd")
"""Length of the payload that follows in bytes, seconds spent computing, seconds spent laying out.

The first one that a worker sends answers nothing: it says that the worker is ready.
"""
