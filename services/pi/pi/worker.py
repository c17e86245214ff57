"""One worker process: reads questions from its socket (standard input), answers them in turn, leaves at its end.

It imports what computing needs and no more, so that it starts quickly and rests in little memory.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time

from pi import page
from pi.digits import pi_text
from pi.frames import ANSWER, QUESTION

_PR_SET_PDEATHSIG = 1


class Computer:
    """Answers questions; with `remember`, from the longest text computed so far, where that is long enough."""

    def __init__(self, *, remember: bool) -> None:
        self._remember = remember
        self._known = ""

    def text(self, decimals: int) -> str:
        """Pi with that many decimals."""
        if not self._remember:
            return pi_text(decimals)
        if decimals > len(self._known) - len("3."):
            self._known = pi_text(decimals)
            return self._known
        return self._known[: len("3.") + decimals] if decimals else "3"

    def answer(self, question: bytes) -> bytes:
        """The framed answer to one framed question."""
        decimals, for_page = QUESTION.unpack(question)
        started = time.perf_counter()
        text = self.text(decimals)
        computed = time.perf_counter()
        payload = page.digits(text).encode() if for_page else f"{text}\n".encode()
        return ANSWER.pack(len(payload), computed - started, time.perf_counter() - computed) + payload


def _die_with_the_parent() -> None:
    """Be killed when the server is, even by SIGKILL and even in mid-computation.

    The end of the socket tells the same, but only once the computation is done. Elsewhere than on Linux that suffices.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _receive(channel: socket.socket, length: int) -> bytes:
    """Exactly `length` bytes, or none when the server has closed."""
    received = b""
    while len(received) < length:
        piece = channel.recv(length - len(received))
        if not piece:
            return b""
        received += piece
    return received


def main() -> None:
    """Serve until the server closes the socket. Arguments: niceness, and `on` or `off` for the memory."""
    _die_with_the_parent()
    niceness, memory = sys.argv[1:]
    os.nice(int(niceness))
    computer = Computer(remember=memory == "on")
    channel = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    try:
        channel.sendall(ANSWER.pack(0, 0.0, 0.0))
        while question := _receive(channel, QUESTION.size):
            channel.sendall(computer.answer(question))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server left while this was computing


if __name__ == "__main__":
    main()
