"""Host names of endpoints: resolved once for all connections, apart from the data path, and again as their TTL says.

A literal address is no name and is never asked for. Each name is asked by a task of its own, so that a resolver that
is silent about one holds up no other. While a name is in use it is asked again as soon as its answer has grown old; the
old addresses serve until the new ones have come, and for as long as nobody answers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import structlog
from mypy_extensions import trait

from balancer import resolving
from balancer.proxy.timers import Timed, TimerWheel

Address = tuple[int, str]
"""Family and literal address."""

IN_USE: Final = 300.0
"""Seconds without a connection after which a name is asked for no more, until the next."""
AGAIN: Final = 1.0
"""Seconds until a name that nobody could resolve is asked for again."""

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


class _Name(Timed):
    """What is known of one name."""

    __slots__ = ("_names", "addresses", "asking", "host", "last_error", "old_from", "used_at", "waiting")

    def __init__(self, names: Names, host: str) -> None:
        super().__init__()
        self._names = names
        self.host = host
        self.addresses: list[Address] = []
        """The last that were known; those that did not answer come last."""
        self.old_from = 0.0
        """When (s) the last answer, or the lack of one, ceases to count."""
        self.used_at = 0.0
        """When (s) a connection last asked for it."""
        self.last_error = ""
        """Why it cannot be resolved, as the log says; empty while it can."""
        self.asking: asyncio.Task[None] | None = None
        self.waiting: list[tuple[int, Inquirer]] = []

    def expired(self, now: float) -> None:
        """The answer has grown old: ask again, if the name is still in use."""
        if now - self.used_at < IN_USE:
            self._names.look_up(self)


class Names:
    """The addresses of host names."""

    __slots__ = ("_clock", "_literal", "_loop", "_names", "_wheel")

    def __init__(self, clock: Callable[[], float], wheel: TimerWheel) -> None:
        self._clock = clock
        self._wheel = wheel
        self._loop = asyncio.get_running_loop()
        self._literal: dict[str, list[Address]] = {}
        self._names: dict[str, _Name] = {}

    def known(self, host: str) -> list[Address] | None:
        """The addresses of `host`, if they are known and may be used at once."""
        literal = self._literal.get(host)
        if literal is not None:
            return literal
        found = _literal(host)
        if found is not None:
            self._literal[host] = found
            return found
        name = self._names.get(host)
        if name is None:
            return None
        now = self._clock()
        unused = now - name.used_at
        name.used_at = now
        if not name.addresses or (now >= name.old_from and unused >= IN_USE):
            return None
        return name.addresses

    def ask(self, host: str, port: int, connecting: Inquirer) -> None:
        """Let `connecting` begin with the addresses of `host` once they are known, or fail."""
        now = self._clock()
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name(self, host)
        name.used_at = now
        if name.last_error and now < name.old_from and not name.addresses:
            connecting.failed(OSError(name.last_error))
            return
        name.waiting.append((port, connecting))
        self.look_up(name)

    def silent(self, host: str, address: str) -> None:
        """`address` did not take a connection, and others of `host` may: try it last from now on."""
        name = self._names.get(host)
        if name is not None:
            name.addresses = [known for known in name.addresses if known[1] != address] + [
                known for known in name.addresses if known[1] == address
            ]

    def look_up(self, name: _Name) -> None:
        """Ask for a name, if nobody does yet."""
        if name.asking is None:
            name.asking = self._loop.create_task(self._resolve(name))

    async def _resolve(self, name: _Name) -> None:
        error = ""
        addresses: list[Address] = []
        lasts = AGAIN
        try:
            answer = await resolving.resolve(name.host)
        except resolving.ResolutionError as caught:
            error = str(caught)
        except Exception as caught:
            log.exception("a name could not be resolved", name=name.host)
            error = f"{name.host} could not be resolved: {caught}"
        else:
            lasts = answer.ttl
            for address in answer.addresses:
                addresses += _literal(address) or []
        name.asking = None
        self._answered(name, addresses, lasts, error)

    def _answered(self, name: _Name, addresses: list[Address], lasts: float, error: str) -> None:
        if error and error != name.last_error:
            log.warning("name not resolved", name=name.host, error=error, known=len(name.addresses))
        elif name.last_error and not error:
            log.info("name resolved again", name=name.host)
        name.last_error = error
        if addresses and set(addresses) != set(name.addresses):
            name.addresses = addresses
        name.old_from = self._clock() + lasts
        self._wheel.arm(name, name.old_from)
        waiting, name.waiting = name.waiting, []
        for port, connecting in waiting:
            if name.addresses:
                connecting.begin(name.addresses, port)
            else:
                connecting.failed(OSError(error))


def _literal(host: str) -> list[Address] | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return [(int(family), host)]
    return None
