"""Which sockets are ready: one epoll of the data plane's own, which the event loop watches as if it were one socket.

So a socket costs one system call to register and none to forget, an event costs a look into a dict, and whatever a
batch of events closes keeps its descriptor until the batch's end: no event reaches the wrong connection.
"""

from __future__ import annotations

import asyncio
import errno
import select
from collections.abc import Callable
from socket import SocketType
from typing import Final

from mypy_extensions import mypyc_attr, trait

from balancer.proxy import descriptors
from balancer.proxy.buffers import Buffers
from balancer.proxy.timers import Timed, TimerWheel

READ: Final = 1
"""EPOLLIN."""
WRITE: Final = 4
"""EPOLLOUT."""
FAILED: Final = 8
"""EPOLLERR: reported whether asked for or not, and so is EPOLLHUP."""
SAID_ALL: Final = 0x2000
"""EPOLLRDHUP: the peer has ended its direction, whatever is still to be read of it."""

BATCH: Final = 256
"""Events handled before the event loop's other work has its turn."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Watched(Timed):
    """Something with a descriptor that the poller watches."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        super().__init__()
        self.fd = -1

    def ready(self, events: int) -> None:
        """The events that have come, as epoll reports them."""
        raise NotImplementedError

    def settle(self) -> None:
        """Do what `Poller.later` has put off."""
        raise NotImplementedError


@trait
class Writer:
    """Collects what it sends, to be written at once."""

    def write_collected(self) -> None:
        """What came with this batch has been read: write what has been collected. Raises nothing."""
        raise NotImplementedError


@trait
class Idler:
    """Keeps connections for later, and can do without some of them."""

    def make_room(self) -> bool:
        """Close some that have idled longest; False when there is none."""
        raise NotImplementedError


class Poller:
    """Calls each `Watched` with its events; owns the descriptors of the data plane."""

    __slots__ = (
        "_busy",
        "_closing",
        "_due",
        "_epoll",
        "_last",
        "_later",
        "_loop",
        "_watched",
        "_writers",
        "buffers",
        "clock",
        "idlers",
        "max_files",
        "open_files",
        "wheel",
    )

    def __init__(self, wheel: TimerWheel, clock: Callable[[], float], buffers: Buffers) -> None:
        self.wheel = wheel
        self.clock = clock
        self.buffers = buffers
        self.open_files = 0
        """Descriptors of the data plane: of clients, endpoints and listening sockets."""
        self.idlers: list[Idler] = []
        """Who keeps connections that are not in use."""
        self.max_files = max(2, descriptors.raise_limit() - descriptors.RESERVED)
        """As many as it may have of them."""
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self._later: list[Watched] = []
        self._last: list[Watched] = []
        self._closing: list[SocketType] = []
        self._writers: list[Writer] = []
        self._busy = False
        self._due = False
        self._loop.add_reader(self._epoll.fileno(), self._poll)

    def take_descriptor(self) -> None:
        """Ask whether there is one more. Raises OSError when there is none: a fault of ours, and of no endpoint."""
        if self.open_files < self.max_files:
            return
        # What they close is closed at the batch's end: until then the reserve serves.
        if not any(each.make_room() for each in self.idlers):
            raise OSError(errno.EMFILE, "too many open files")

    def leave(self, idler: Idler) -> None:
        """`idler` keeps connections no more."""
        if idler in self.idlers:
            self.idlers.remove(idler)

    def add(self, watched: Watched, fd: int, events: int) -> None:
        """Watch `fd` for `watched` from now on."""
        watched.fd = fd
        self._epoll.register(fd, events)
        self._watched[fd] = watched
        self.open_files += 1

    def replace(self, old: Watched, new: Watched) -> None:
        """Report the events of `old`'s socket to `new` from now on; which events are asked for stays."""
        new.fd = old.fd
        self._watched[old.fd] = new

    def change(self, watched: Watched, events: int) -> None:
        """Ask for other events."""
        self._epoll.modify(watched.fd, events)

    def rest(self, watched: Watched) -> None:
        """Ask for none, failures included, until `wake`."""
        self._epoll.unregister(watched.fd)

    def wake(self, watched: Watched, events: int) -> None:
        """Ask again after `rest`."""
        self._epoll.register(watched.fd, events)

    def forget(self, watched: Watched) -> None:
        """Report nothing more to `watched`; its socket is to be closed by `close` before long."""
        if self._watched.get(watched.fd) is watched:
            del self._watched[watched.fd]

    def close(self, watched: Watched, sock: SocketType) -> None:
        """Close the socket of `watched`, once nothing can take its descriptor for another."""
        self.forget(watched)
        self.open_files -= 1
        if self._busy:
            self._closing.append(sock)
        else:
            sock.close()

    def later(self, watched: Watched) -> None:
        """Call `settle` once the current callback has returned."""
        self._later.append(watched)
        self._settle_soon()

    def write_later(self, writer: Writer) -> None:
        """Call `write_collected` at the batch's end, and behind all that `later` has put off."""
        self._writers.append(writer)
        self._settle_soon()

    def _settle_soon(self) -> None:
        if not self._busy and not self._due:
            self._due = True
            self._loop.call_soon(self._settle)

    def last(self, watched: Watched) -> None:
        """Call `settle` behind all that `later` has put off: a new connection finds that those that left have left."""
        self._last.append(watched)

    def stop(self) -> None:
        """Watch nothing any more."""
        self._settle()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _poll(self) -> None:
        self._busy = True
        watched = self._watched
        for fd, events in self._epoll.poll(0, BATCH):
            found = watched.get(fd)
            if found is not None:
                try:
                    found.ready(events)
                except Exception:  # noqa: BLE001 (`fault` logs and counts it)
                    self.wheel.fault("a connection's event failed", found)
        self._busy = False
        self._settle()

    def _settle(self) -> None:
        self._due = False
        self._busy = True
        while self._later or self._last or self._writers:
            if self._later:
                later, self._later = self._later, []
            elif self._last:
                later, self._last = self._last, []
            else:
                writers, self._writers = self._writers, []
                for writer in writers:
                    writer.write_collected()
                continue
            for watched in later:
                try:
                    watched.settle()
                except Exception:  # noqa: BLE001 (`fault` logs and counts it)
                    self.wheel.fault("a connection's end failed", watched)
        self._busy = False
        if self._closing:
            closing, self._closing = self._closing, []
            for sock in closing:
                sock.close()
