"""The composition root: settings become objects, objects tasks, and at the end everything is drained.

The only file that knows every room. Above 300 lines because the order of coming and leaving is one story.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Coroutine, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Final

import structlog
import uvloop

from balancer import discovery, tracing
from balancer.admin import Admin, Phase
from balancer.admin_trust import AdminTrust
from balancer.balancing import strategies
from balancer.balancing.decision import DecisionLog
from balancer.balancing.endpoint import Endpoint, Snapshot
from balancer.balancing.events import Subscriber
from balancer.balancing.pool import DEFAULT_CLUSTER, Policy, Pool
from balancer.counters import Counters
from balancer.log import AccessLog, Output
from balancer.peers import Peers
from balancer.probes import Probes
from balancer.proxy.buffers import Buffers, default_limit
from balancer.proxy.certificates import ServerCertificate
from balancer.proxy.heap import Heap
from balancer.proxy.http import HttpProxy
from balancer.proxy.poller import Poller
from balancer.proxy.service import Context
from balancer.proxy.tcp import TcpProxy
from balancer.proxy.timers import TICK, TimerWheel
from balancer.settings import Settings

if TYPE_CHECKING:
    from balancer.discovery.gateway.control import GatewayControl
    from balancer.gateways import Gateways

CANNOT_START: Final = 1
CRASHED: Final = 70
"""Exit status when a task that the balancer cannot do without has failed: EX_SOFTWARE of sysexits.h."""
RELOAD_EVERY: Final = 2.0
"""Seconds between two looks at the certificate's files."""
QUIET: Final = 1.0
"""Seconds without a new client, after which a balancer that drains closes its port."""

COLLECTED_AT: Final = 10_000
"""New objects that may hold others, less those that have gone, at which the collector looks at them."""

log = structlog.get_logger()


def main(settings: Settings, messages: Output) -> int:
    """Run until SIGTERM or SIGINT; the exit status. `messages` is where the log goes, whose losses are counted."""
    try:
        return uvloop.run(_run(settings, messages))
    except OSError as error:
        remedy = "choose another LB_PORT or LB_ADMIN_PORT"
        log.error("cannot start", error=error.strerror or str(error), remedy=remedy)  # noqa: TRY400 — a fact, no bug
        return CANNOT_START


def spare_the_collector() -> None:
    """Have the garbage collector look seldom, at little at a time, and never at what is there already.

    Nothing made so far is garbage. Of what follows, a young collection looks at COLLECTED_AT objects, and a middle one
    at twice as many, some 10 ms: a burst of 5,000 endpoints leaves 60,000, and must not hold the event loop.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_AT, 2, 1250)
    gc.enable()


async def _run(settings: Settings, messages: Output) -> int:
    balancer = Balancer(settings, messages)
    await balancer.start()
    try:
        await balancer.serve()
    finally:
        await balancer.stop()
    return CRASHED if balancer.crashed else 0


class Balancer(Subscriber):
    """Everything that runs, joined: what the admin port shows of the data plane comes from here too."""

    def __init__(self, settings: Settings, messages: Output) -> None:
        self._settings = settings
        self._messages = messages
        self._clock = time.monotonic
        self._random = Random()
        self.started_at = self._clock()
        self.replica = os.environ.get("HOSTNAME") or socket.gethostname()
        self._counters = Counters()
        self._decisions = DecisionLog()
        self._strategy_name = settings.strategy
        self._pool = self._new_pool(DEFAULT_CLUSTER, settings, settings.strategy)
        self._pool.subscribe(self)
        self._wheel = TimerWheel(self._clock(), self._counters)
        buffers = Buffers(settings.max_buffer_memory or default_limit())
        self._poller = Poller(self._wheel, self._clock, buffers)
        self._heap = Heap(buffers, self._poller)
        self._output = Output(1, delay=0.1)
        access_log = (
            AccessLog(self._output, settings.access_log_sample, settings.slow_request, self._random)
            if settings.access_log
            else None
        )
        proxy = HttpProxy if settings.mode == "http" else TcpProxy
        context = Context(self._pool, self._counters, self._wheel, self._poller, self._clock, access_log)
        self._proxy = proxy(settings, context)
        self._tracer: tracing.Tracer | None = None
        if isinstance(self._proxy, HttpProxy) and (tracer := tracing.create()) is not None:
            self._proxy.trace(tracer)
            self._tracer = tracer
        self._certificate = (
            ServerCertificate(settings.tls_cert, settings.tls_key, _alpn(settings))
            if settings.tls_cert and settings.tls_key
            else None
        )
        self._admin_certificate = (
            ServerCertificate(settings.admin_tls_cert, settings.admin_tls_key, ["http/1.1"])
            if settings.admin_tls_cert and settings.admin_tls_key
            else None
        )
        self._certificates = [each for each in (self._certificate, self._admin_certificate) if each is not None]
        self.gateways: Gateways | None = None
        self.control: GatewayControl | None = None
        if (settings.gateway_class or settings.ingress_class) and isinstance(self._proxy, HttpProxy):
            # Imported only here: who does not ask for Gateways pays nothing for them.
            from balancer import gateways

            self.gateways = gateways.Gateways(
                settings, context, self._new_fleet, self._proxy.cluster, self._tracer, self._turned
            )
            self.control = gateways.control(self.gateways, self.replica, self._random)
        self._discovery = discovery.create(settings, self._counters.discovery_events, self._clock)
        self._peers = self._make_peers() if settings.peers else None
        self._admin = Admin(
            settings=settings,
            pool=self._pool,
            counters=self._counters,
            clock=self._clock,
            discovery=self._discovery.status,
            proxy=self,
            switch_strategy=self.switch_strategy,
            listeners=self.gateways.listeners if self.gateways is not None else tuple,
            others=self.gateways.pools if self.gateways is not None else tuple,
            open_ports=self.gateways.plans if self.gateways is not None else tuple,
            planned=self.control.ready.is_set if self.control is not None else lambda: True,
            peers=self._peers,
            tls=self._admin_certificate.context if self._admin_certificate else None,
        )
        self._leaving = asyncio.Event()
        self._hurry = asyncio.Event()
        self.crashed = False
        """Whether one of the tasks has failed."""
        self._tasks: list[asyncio.Task[None]] = []

    # Coming, serving, leaving.

    async def start(self) -> None:
        """Listen, on the admin port first. Raises OSError when a port cannot be had."""
        await self._admin.start()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._leaving.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        work: list[Coroutine[object, object, None]] = [self._tick(), discovery.follow(self._discovery, self._apply)]
        if self._settings.health_path:
            work.append(Probes(self._pool, self._settings, self._clock, self._random).run())
        if self._certificates:
            work.append(self._reload())
        if self.control is not None:
            work.append(self.control.run())
        if self._peers is not None:
            work.append(self._peers.run())
        self._tasks = [loop.create_task(self._supervise(job)) for job in work]
        await asyncio.sleep(0)  # Endpoints that are listed are known from here: the first client finds them.
        try:
            self._proxy.start(self._certificate.context if self._certificate else None)
        except OSError:
            await self._end_tasks()
            await self._admin.stop()
            raise
        self._admin.phase = Phase.SERVING
        log.info(
            "listening",
            mode=self._settings.mode,
            hosts=",".join(self._settings.host),
            port=self._proxy.port,
            admin_port=self._admin.port,
            strategy=self._settings.strategy,
            discovery=self._settings.discovery,
        )
        spare_the_collector()

    async def serve(self) -> None:
        """Serve until asked to leave; then leave in order (decision 11 of docs/architecture.md)."""
        await self._leaving.wait()
        self._admin.phase = Phase.DRAINING
        if self.crashed:  # Without its clock, nothing here ends in time: leave at once, and be started again.
            return
        self._proxy.drain()
        if self.gateways is not None:
            self.gateways.drain()
        log.info("draining", delay=self._settings.drain_delay, timeout=self._settings.drain_timeout)
        served_on = await self._serve_on()
        self._proxy.stop_listening()
        if self.gateways is not None:
            self.gateways.stop_listening()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout - served_on):
                await self._all_closed()
        cut = self._proxy.cut()
        if self.gateways is not None:
            cut += self.gateways.cut()
        self._counters.drained_cut += cut
        if cut:
            log.warning("cut at the end of LB_DRAIN_TIMEOUT", requests=cut)

    async def _serve_on(self) -> float:
        """Serve through LB_DRAIN_DELAY, and on while clients still connect: their way here does not know yet that this
        balancer leaves. Returns the seconds served beyond the delay, at most half of LB_DRAIN_TIMEOUT.
        """
        delay = self._settings.drain_delay
        if not delay:
            return 0.0
        await self._pause(delay - QUIET)
        accepted = self._counters.connections_accepted
        await self._pause(min(delay, QUIET))
        most, served_on = self._settings.drain_timeout / 2, 0.0
        while accepted != self._counters.connections_accepted and served_on < most and not self._hurry.is_set():
            if not served_on:
                log.warning("clients still connect after LB_DRAIN_DELAY: serving on", for_up_to=most)
            accepted = self._counters.connections_accepted
            await self._pause(pause := min(QUIET, most - served_on))
            served_on += pause
        return served_on

    async def _pause(self, seconds: float) -> None:
        """Wait; Ctrl-C ends it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def stop(self) -> None:
        """End every task and close every port."""
        await self._end_tasks()
        self._proxy.close()
        if self.gateways is not None:
            self.gateways.close()
        if self.control is not None:
            await self.control.close()
        self._poller.stop()
        await self._admin.stop()
        if self._tracer is not None:
            self._tracer.close()
        log.info("stopped", requests=self._counters.requests)
        self._output.close()

    async def _all_closed(self) -> None:
        await self._proxy.all_closed()
        if self.gateways is not None:
            await self.gateways.all_closed()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _interrupted(self) -> None:
        """Ctrl-C: no delay."""
        self._hurry.set()
        self._leaving.set()

    def _hung_up(self) -> None:
        log.warning("SIGHUP ignored", remedy="settings are fixed at the start: restart to change them")

    # Tasks.

    async def _supervise(self, task: Coroutine[object, object, None]) -> None:
        """Run a task. If it fails, log why and end the process: half a balancer would look like a whole one."""
        try:
            await task
        except Exception:
            log.exception("a task failed: the process ends")
            self.crashed = True
            self._hurry.set()
            self._leaving.set()

    async def _tick(self) -> None:
        """The only clock that runs: deadlines, ejections and slow starts all look at it."""
        while True:
            await asyncio.sleep(TICK)
            now = self._clock()
            self._wheel.advance(now)
            self._pool.tick(now)
            self._heap.tick(now)
            if self._peers is not None:
                self._peers.tick(now)
            if self.gateways is not None:
                for pool in self.gateways.pools():
                    pool.tick(now)

    async def _reload(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_EVERY)
            for certificate in self._certificates:
                certificate.reload_if_changed()

    def _apply(self, snapshot: Snapshot) -> Iterator[None]:
        yield from self._pool.replacing(snapshot, self._clock())
        self._pool.tick(self._clock())
        self._proxy.discovered()

    def switch_strategy(self, name: str) -> None:
        """Choose by another strategy from now on, where a cluster has none of its own.

        Raises ValueError for one that there is not. A class of one's own has to be the one that LB_STRATEGY names: no
        token, of the admin port or of the replicas, is a way to import code.
        """
        if name not in strategies.STRATEGIES and name != self._settings.strategy:
            raise ValueError(f"unknown strategy {name!r}: allowed are {', '.join(strategies.STRATEGIES)}")
        self._pool.use(self._strategy(name), name, self._clock())
        self._strategy_name = name
        if self.gateways is not None:
            self.gateways.use(name, self._random)

    def _new_pool(self, cluster: str, settings: Settings, name: str) -> Pool:
        """A pool by `settings` and the strategy `name`; all pools record their decisions in one log."""
        strategy = strategies.load(name, self._random, settings.hash_key)
        return Pool(strategy, name, _policy(settings), self._random, cluster, self._decisions)

    def _new_fleet(self, cluster: str, settings: Settings, own_strategy: bool) -> Pool:
        """The pool of a route's cluster, which may have settings of its own."""
        pool = self._new_pool(cluster, settings, settings.strategy if own_strategy else self._strategy_name)
        self._admin.follow(pool)
        return pool

    def _make_peers(self) -> Peers:
        settings = self._settings
        return Peers(
            self._pool,
            discovery.create_for_peers(settings),
            self.replica,
            settings.peers_token or "",
            self.switch_strategy,
            self._clock,
            lambda: self._admin.own_status(),
            AdminTrust(settings.admin_tls_cert, settings.peers_tls_ca, settings.peers_tls_name)
            if settings.admin_tls_cert
            else None,
        )

    def _strategy(self, name: str) -> strategies.Strategy:
        return strategies.load(name, self._random, self._settings.hash_key)

    # The pool's events

    def left(self, endpoint: Endpoint) -> None:
        """An endpoint is gone: so are the connections that idle there."""
        self._proxy.endpoint_left(endpoint)

    def transition(self, endpoint: Endpoint | None, event: str, detail: str) -> None:
        """Something happened to an endpoint, or to the pool."""
        level = log.warning if event in {"ejected", "unhealthy", "panic", "strategy_failed"} else log.info
        fields = {"endpoint": endpoint.address if endpoint else "", "detail": detail}
        level(event, **{name: value for name, value in fields.items() if value})
        if endpoint is not None:
            self._turned(endpoint, event)

    def _turned(self, endpoint: Endpoint, event: str) -> None:
        """Of any pool's endpoint: cut its tunnels where its health turns bad, once the pool has made up its mind."""
        if event in {"ejected", "unhealthy"} and self._settings.health_closes_tunnels:
            asyncio.get_running_loop().call_soon(self._cut_tunnels, endpoint)

    def _cut_tunnels(self, endpoint: Endpoint) -> None:
        number = self._proxy.cut_tunnels(endpoint)
        if self.gateways is not None:
            number += self.gateways.cut_tunnels(endpoint)
        self._counters.tunnels_cut += number
        if number:
            log.warning("tunnels cut", endpoint=endpoint.address, tunnels=number)

    # Asked by the admin port.

    @property
    def retry_budget(self) -> float:
        """Retries that the budget would pay for now."""
        return self._proxy.retry_budget(self._clock())

    @property
    def log_lines_dropped(self) -> dict[str, int]:
        """Lines lost, by log."""
        return {"access": self._output.dropped, "messages": self._messages.dropped}

    def idle_connections(self, endpoint: Endpoint) -> int:
        """Unused connections kept open to `endpoint`."""
        if self.gateways is not None and endpoint.cluster != DEFAULT_CLUSTER:
            return self.gateways.idle_connections(endpoint)
        return self._proxy.idle_connections(endpoint)


def _alpn(settings: Settings) -> Sequence[str]:
    """What is agreed on with clients by TLS; in TCP mode that is not ours to say."""
    if settings.mode != "http":
        return settings.tls_alpn
    return ["h2", "http/1.1"] if settings.http2 else ["http/1.1"]


def _policy(settings: Settings) -> Policy:
    return Policy(
        mode=settings.mode,
        endpoint_max_requests=settings.endpoint_max_requests,
        queue_size=settings.queue_size,
        eject_after=settings.eject_after,
        eject_time=settings.eject_time,
        eject_max_share=settings.eject_max_share,
        panic_share=settings.panic_share,
        slow_start=settings.slow_start,
        prefer_zone=None if settings.prefer_zone == "auto" else settings.prefer_zone,
        hash_key=settings.hash_key,
        cost_key=settings.cost_key or "",
        endpoint_load=settings.endpoint_load,
        endpoint_load_blackout=settings.endpoint_load_blackout,
        endpoint_load_expiry=settings.endpoint_load_expiry,
    )
