"""Ports of this machine: one that is free, and what is answered at one."""

from __future__ import annotations

import random
import socket

_taken: set[int] = set()


def free_port() -> int:
    """A port that is free now, below the range from which outgoing connections take theirs."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _taken:
            _taken.add(port)
            return port


def status_of(port: int, path: str = "/") -> int:
    """The status that a server on this machine answers; 0 while there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head = connection.recv(65536)
    except OSError:
        return 0
    return int(head[9:12]) if head.startswith(b"HTTP/1.") else 0
