"""Listening sockets: opened once, open as long as we listen; accepting pauses by not asking epoll for what waits."""

from __future__ import annotations

import contextlib
import socket
from socket import SocketType
from typing import Final

from mypy_extensions import trait

from balancer.proxy.poller import READ, Poller, Watched

BACKLOG: Final = 4096
KEEPALIVE_IDLE: Final = 60
"""Seconds of silence after which the kernel asks whether the peer is still there,"""
KEEPALIVE_INTERVAL: Final = 15
"""seconds between two such questions,"""
KEEPALIVE_COUNT: Final = 4
"""and how many go unanswered before the connection is taken for dead."""


@trait
class Acceptor:
    """Takes the connections of a listening socket."""

    def accept(self, listening: Listening) -> None:
        """Connections wait at `listening`."""
        raise NotImplementedError


class Listening(Watched):
    """One listening socket."""

    __slots__ = ("_acceptor", "_family", "_poller", "sock")

    def __init__(self, acceptor: Acceptor, poller: Poller, sock: socket.socket) -> None:
        super().__init__()
        self._acceptor = acceptor
        self._poller = poller
        self._family = int(sock.family)
        self.sock = sock
        poller.add(self, sock.fileno(), READ)

    def ready(self, events: int) -> None:
        self._poller.last(self)

    def settle(self) -> None:
        self._acceptor.accept(self)

    def accept(self) -> tuple[SocketType, str]:
        """The next connection, which does not block, and its client's IP address. Raises OSError.

        `socket.accept` does the same and makes two enums and a Python object on the way: 6 of 86 µs a connection.
        """
        number, address = self.sock._accept()  # type: ignore[attr-defined]
        accepted = SocketType(self._family, socket.SOCK_STREAM, 0, number)
        accepted.setblocking(False)
        return accepted, str(address[0]) if address else ""

    def pause(self) -> None:
        """Let clients wait."""
        self._poller.change(self, 0)

    def resume(self) -> None:
        """Take clients again."""
        self._poller.change(self, READ)

    def close(self) -> None:
        """Listen no more."""
        self._poller.close(self, self.sock)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OSError, with a message that names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` and `0.0.0.0` are opened separately, and may both be asked for.
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        tune(opened)  # what is accepted inherits it
        opened.setblocking(False)
        opened.bind((host, port))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise OSError(error.errno, f"cannot listen at {host} port {port}: {error.strerror}") from error
    return opened


def tune(sock: socket.socket) -> None:
    """Send small pieces at once, and notice within minutes that a peer has vanished."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError, AttributeError):  # a kernel may lack the finer ones
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
