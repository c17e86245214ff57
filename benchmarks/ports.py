"""Ports of this machine: one that is free, and what is answered at one."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import ssl
import tempfile
from pathlib import Path

AGREED = ("TLSv1.3", "TLS_AES_256_GCM_SHA384")
"""Version and cipher of TLS that OpenSSL's clients ask for first: what all programs must use to be compared."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a client of HTTP/2 begins: the magic, and SETTINGS without any."""
RANGE = (20_000, 30_000)
"""Those that the balancer has for Gateways: below the ports from which outgoing connections take theirs."""
CLAIMS = Path(tempfile.gettempdir()) / f"lb-ports-{os.getuid()}"
"""A file for each port that a process has been given, with its number: several run benchmarks and tests at once."""


def free_port() -> int:
    """A port that is free now, and that nobody else is given while this process lives."""
    CLAIMS.mkdir(exist_ok=True)
    with (CLAIMS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        while True:
            port = random.randrange(*RANGE)
            if _is_free(port) and not _is_claimed(port):
                (CLAIMS / str(port)).write_text(str(os.getpid()))
                return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _is_claimed(port: int) -> bool:
    """Whether a process that still lives was given it."""
    try:
        os.kill(int((CLAIMS / str(port)).read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def status_of(port: int, path: str = "/") -> int:
    """The status that a server on this machine answers; 0 while there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head = connection.recv(65536)
    except OSError:
        return 0
    return int(head[9:12]) if head.startswith(b"HTTP/1.") else 0


def speaks_http2(port: int) -> bool:
    """Whether a server on this machine answers the preface of HTTP/2 in plain text by a frame of SETTINGS."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(PREFACE)
            frame = connection.recv(9)
    except OSError:
        return False
    return frame[3:4] == b"\x04"


def trusting() -> ssl.SSLContext:
    """A client's context that takes any certificate: those of the benchmark are its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def agreed(port: int) -> tuple[str, str] | None:
    """Version and cipher of TLS that a server on this machine takes; None while there is none."""
    context = trusting()
    try:
        plain = socket.create_connection(("127.0.0.1", port), timeout=1.0)
        with plain, context.wrap_socket(plain) as secured:
            cipher = secured.cipher()
            return (secured.version() or "", cipher[0]) if cipher else None
    except OSError:
        return None
