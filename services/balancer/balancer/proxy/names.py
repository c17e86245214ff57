"""Host names of endpoints: asked apart from the data path, remembered, and asked again when they have grown old.

A literal address is no name and is never asked for. Each name is asked in a thread of its own, so that a resolver that
is silent about one holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

import structlog
from mypy_extensions import trait

Address = tuple[int, str]
"""Family and literal address."""

LIFETIME: Final = 5.0
"""Seconds after which an answer is asked for again; until the new one has come the old one serves."""
PATIENCE: Final = 10.0
"""Seconds after which an answer that has not come is not waited for, and may be asked for anew."""

log = structlog.get_logger()


@trait
class Inquirer:
    """Waits for the addresses of a name."""

    def begin(self, addresses: list[Address], port: int) -> None:
        """The name has these addresses."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """It has none."""
        raise NotImplementedError


class _Name:
    """What is known of one name."""

    __slots__ = ("addresses", "asked_at", "known_at", "waiting")

    def __init__(self) -> None:
        self.addresses: list[Address] | None = None
        self.known_at = float("-inf")
        self.asked_at = float("-inf")
        """When the question under way was asked; -inf: none is."""
        self.waiting: list[tuple[int, Inquirer]] = []


class Names:
    """The addresses of host names."""

    __slots__ = ("_clock", "_literal", "_loop", "_names")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._literal: dict[str, list[Address]] = {}
        self._names: dict[str, _Name] = {}

    def known(self, host: str) -> list[Address] | None:
        """The addresses of `host`, if they are known; old ones are asked for again meanwhile."""
        literal = self._literal.get(host)
        if literal is not None:
            return literal
        found = _literal(host)
        if found is not None:
            self._literal[host] = found
            return found
        name = self._names.get(host)
        if name is None or name.addresses is None:
            return None
        if self._clock() - name.known_at > LIFETIME:
            self._look_up(host, name)
        return name.addresses

    def ask(self, host: str, port: int, inquirer: Inquirer) -> None:
        """Let `inquirer` begin with the addresses of `host` once they are known, or fail."""
        name = self._names.setdefault(host, _Name())
        name.waiting.append((port, inquirer))
        self._look_up(host, name)

    def _look_up(self, host: str, name: _Name) -> None:
        now = self._clock()
        if now - name.asked_at < PATIENCE:
            return
        name.asked_at = now
        threading.Thread(target=self._in_thread, args=(host, now), name=f"resolve {host}", daemon=True).start()

    def _in_thread(self, host: str, asked_at: float) -> None:
        addresses: list[Address] = []
        error: Exception | None = None
        try:
            for family, _, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
                addresses.append((int(family), str(address[0])))
        except (OSError, UnicodeError) as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the balancer has stopped
            self._loop.call_soon_threadsafe(self._answered, host, asked_at, addresses, error)

    def _answered(self, host: str, asked_at: float, addresses: list[Address], error: Exception | None) -> None:
        name = self._names[host]
        if name.asked_at == asked_at:
            name.asked_at = float("-inf")
        if addresses:
            name.addresses = addresses
            name.known_at = self._clock()
        else:
            log.debug("name not resolved", name=host, error=str(error))
            name.known_at = self._clock()
        waiting, name.waiting = name.waiting, []
        for port, inquirer in waiting:
            if name.addresses:
                inquirer.begin(name.addresses, port)
            else:
                inquirer.failed(error if isinstance(error, OSError) else OSError(f"{host} has no address"))


def _literal(host: str) -> list[Address] | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return [(int(family), host)]
    return None
