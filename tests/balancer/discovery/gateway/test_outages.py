"""The Gateway part where the API refuses, breaks off or is late: what is known stands, nothing is taken for gone."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from aiohttp import web
from benchmarks.clusterapi import ClusterApiServer, refusal
from tests.balancer.discovery.gateway import cluster
from tests.balancer.discovery.gateway.replicas import (
    CLASSES,
    GATEWAYS,
    LEASES,
    ROUTES,
    SECRETS,
    SERVICES,
    Replicas,
    until,
)

from balancer.discovery.gateway import objects, watch, writer
from balancer.discovery.gateway.api import ClusterApi
from balancer.discovery.gateway.backends import ClusterSpec
from balancer.discovery.gateway.lease import DURATION, Leadership
from balancer.discovery.gateway.objects import Secret
from balancer.discovery.gateway.watch import Watcher
from balancer.discovery.kubeapi import ApiError


class Refusing:
    """Answers requests of a kind with an error, and counts them."""

    def __init__(self, plural: str, status: int, most: float = float("inf"), what: str = "") -> None:
        """`most`: how many are refused; `what`: words that the request's query must have."""
        self._plural = plural
        self._status = status
        self._most = most
        self._what = what
        self.refused = 0

    async def __call__(self, request: web.Request) -> web.Response | None:
        meant = request.path.rstrip("/").split("/")[-1] == self._plural and self._what in request.query_string
        if not meant or self.refused >= self._most:
            return None
        self.refused += 1
        return refusal(self._status, "not now")


def deleted(api: ClusterApiServer) -> list[str]:
    return [path for method, path in api.writes if method == "DELETE"]


def status(api: ClusterApiServer, path: str, name: str) -> Any:
    return api.kinds[path]["shop", name].get("status")


def service_of_door(api: ClusterApiServer) -> Any:
    (found,) = [each for (_, name), each in api.kinds[SERVICES].items() if name.startswith("lb-gateway-")]
    return found


# Lists and watches.


@asynccontextmanager
async def watching(path: str) -> AsyncIterator[Watcher[objects.Route]]:
    connection = ClusterApi()
    watcher = Watcher(connection, path, objects.http_route, lambda _: None, Random(1))
    task = asyncio.get_running_loop().create_task(watcher.run())
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close()


async def test_a_list_that_breaks_off_is_begun_again(api: ClusterApiServer) -> None:
    for number in range(250):
        api.put(ROUTES, cluster.route(name=f"r{number}"))
    api.before = Refusing("httproutes", 500, most=1, what="continue=100")
    async with watching(ROUTES) as watcher:
        await until(lambda: api.watching(ROUTES))
        assert len(watcher.objects) == 251


@pytest.mark.parametrize("status", [200, 410])
async def test_a_server_that_ends_every_watch_is_not_asked_without_a_pause(api: ClusterApiServer, status: int) -> None:
    asked: list[float] = []

    async def ending(request: web.Request) -> web.Response | None:
        if "watch" not in request.query:
            return None
        asked.append(asyncio.get_running_loop().time())
        return web.Response() if status == 200 else refusal(status, "too old")

    api.before = ending
    async with watching(ROUTES):
        await until(lambda: len(asked) > 3)
        assert asked[3] - asked[0] > 0.3


async def test_after_an_outage_a_forgotten_version_is_listed_again_at_once(
    api: ClusterApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "BACKOFF_FIRST", 0.01)
    refusing = Refusing("httproutes", 503, most=3, what="watch")

    async def back(request: web.Request) -> web.Response | None:
        answer = await refusing(request)
        if answer is None and "watch" in request.query and request.query["resourceVersion"] != str(api.version):
            monkeypatch.setattr(watch, "BACKOFF_MOST", 3600.0)
            monkeypatch.setattr(watch, "BACKOFF_FIRST", 3600.0)
            return refusal(410, "too old resource version")
        return answer

    async with watching(ROUTES) as watcher:
        await until(lambda: api.watching(ROUTES))
        api.before = back
        api.put(SECRETS, dict(cluster.secret("another")))
        api.break_off(ROUTES)
        await until(lambda: watcher._version == str(api.version))
        assert refusing.refused == 3


async def test_a_version_that_the_api_does_not_know_is_not_asked_for_again(api: ClusterApiServer) -> None:
    # An etcd that was restored knows only older ones.
    async def future(request: web.Request) -> web.Response | None:
        if "watch" not in request.query or request.query["resourceVersion"] == str(api.version):
            return None
        status = {"code": 500, "message": "Too large resource version"}
        return web.Response(body=json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")

    async with watching(ROUTES) as watcher:
        await until(lambda: api.watching(ROUTES))
        api.before = future
        api.restore(7)
        await until(lambda: watcher._version == "7")
        await until(lambda: api.watching(ROUTES))


async def test_a_watch_that_stays_silent_is_not_believed(
    api: ClusterApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An etcd that was restored: the API would wait until it gets to our version again.
    monkeypatch.setattr(watch, "SILENCE", 0.0)
    monkeypatch.setattr(watch, "SHORT", 0.0)
    async with watching(ROUTES) as watcher:
        await until(lambda: api.watching(ROUTES))
        del api.kinds[ROUTES]["shop", "route"]
        api.restore(7)
        await until(lambda: not watcher.objects)


async def test_what_cannot_be_listed_is_waited_for_and_not_taken_for_gone(
    api: ClusterApiServer, replicas: Replicas
) -> None:
    first, _ = replicas.start("one")
    await until(lambda: first.plan.ports and not first.plan.statuses)
    address = service_of_door(api)["metadata"]["uid"]
    await replicas.stop(first)
    refusing = api.before = Refusing("gateways", 500)
    second, plane = replicas.start("two")
    await until(lambda: refusing.refused > 3)
    assert not second.ready.is_set()
    api.before = None
    await until(lambda: plane.ports and second.leads)
    assert not deleted(api)
    assert service_of_door(api)["metadata"]["uid"] == address


async def test_where_gateways_may_not_be_read_their_services_stay(api: ClusterApiServer, replicas: Replicas) -> None:
    first, _ = replicas.start("one")
    await until(lambda: first.plan.ports and not first.plan.statuses)
    await replicas.stop(first)
    api.before = Refusing("gateways", 403)
    second, _ = replicas.start("two")
    await until(lambda: second.leads)
    api.put(CLASSES, dict(cluster.gateway_class("another")))
    await until(lambda: api.kinds[CLASSES]["", "another"].get("status"))
    assert not deleted(api)


async def test_a_hundred_certificates_can_be_watched(api: ClusterApiServer, replicas: Replicas) -> None:
    # Each has a watch of its own, and so a connection.
    def door(name: str, numbers: range) -> Any:
        listeners = [
            cluster.listener(
                f"https-{number}",
                443,
                "HTTPS",
                hostname=f"h{number}.example.com",
                tls={"certificateRefs": [{"name": f"cert-{number}"}]},
            )
            for number in numbers
        ]
        return cluster.gateway(*listeners, name=name)

    for number in range(120):
        api.put(SECRETS, dict(cluster.secret(f"cert-{number}")))
    api.put(GATEWAYS, door("one", range(60)))
    api.put(GATEWAYS, door("two", range(60, 120)))
    control, plane = replicas.start("one")
    await until(lambda: sum(len(port.certificates) for port in plane.ports.values()) == 120)
    await until(lambda: control.leads)


async def test_a_connection_that_another_call_gives_up_is_an_outage_and_no_bug(api: ClusterApiServer) -> None:
    # aiohttp asks again where a kept connection has ended, and is astonished to have no session any more.
    connection = ClusterApi()
    await connection.call("GET", ROUTES)
    used = await connection.connected()

    async def ending(request: web.Request) -> None:
        assert request.transport is not None
        request.transport.abort()
        await connection.broken(used)

    api.before = ending
    with pytest.raises(ApiError) as fault:
        await connection.call("GET", ROUTES)
    assert fault.value.kind == "unreachable"
    api.before = None
    assert (await connection.call("GET", ROUTES))["items"]
    await connection.close()


async def test_a_call_that_finds_the_connection_broken_leaves_no_watch_behind(api: ClusterApiServer) -> None:
    # They share it. Under a reader, aiohttp closes a session without a word.
    connection = ClusterApi()
    watcher = Watcher(connection, ROUTES, objects.http_route, lambda _: None, Random(1))
    task = asyncio.get_running_loop().create_task(watcher.run())
    await until(lambda: api.watching(ROUTES))

    async def ending(request: web.Request) -> None:
        if request.method == "DELETE":
            assert request.transport is not None
            request.transport.abort()

    api.before = ending
    with pytest.raises(ApiError):
        await connection.call("DELETE", f"{SERVICES}/none")
    api.put(ROUTES, cluster.route(name="later"))
    await until(lambda: ("shop", "later") in watcher.objects)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await connection.close()
    assert not connection._users


# Plans.


async def test_a_certificate_of_another_name_closes_no_port(api: ClusterApiServer, replicas: Replicas) -> None:
    def https(name: str, secret: str) -> Any:
        listener = cluster.listener("https", 443, "HTTPS", tls={"certificateRefs": [{"name": secret}]})
        return cluster.gateway(listener, name=name)

    for name in ("cert", "renewed", "late"):
        api.put(SECRETS, dict(cluster.secret(name)))
    api.put(GATEWAYS, https("door", "cert"))
    control, plane = replicas.start("one")
    await until(lambda: any(port.tls for port in plane.ports.values()) and not control.plan.statuses)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> None:
        if request.path.endswith("/secrets") and request.query.get("fieldSelector") == "metadata.name=late":
            asked.set()
            await go_on.wait()

    api.before = slow
    api.put(GATEWAYS, https("another", "late"))
    await asked.wait()
    # While that Secret is waited for, the certificate of a Gateway that is served gets another name.
    api.put(GATEWAYS, https("door", "renewed"))
    await until(lambda: control._gateways.objects["shop", "door"].listeners[0].certificates[0].name == "renewed")
    before = len(plane.history)
    go_on.set()

    def shown() -> set[str]:
        return {each.meta.name for port in plane.ports.values() for _, found in port.certificates for each in found}

    await until(lambda: shown() == {"renewed", "late"})
    for ports in plane.history[before:]:
        assert any(port.gateway == "shop/door" for port in ports.values())


async def test_an_object_that_nobody_foresaw_costs_a_plan_and_not_the_process(
    api: ClusterApiServer, replicas: Replicas
) -> None:
    def usable(secret: Secret) -> str:
        if secret.meta.name == "odd":
            raise RuntimeError("what is this?")
        return ""

    control, plane = replicas.start("one", usable)
    await until(lambda: plane.ports and not control.plan.statuses)
    listener = cluster.listener("https", 443, "HTTPS", tls={"certificateRefs": [{"name": "odd"}]})
    api.put(SECRETS, dict(cluster.secret("odd")))
    api.put(GATEWAYS, dict(cluster.gateway(listener, name="odd")))
    await until(lambda: ("shop", "odd") in control._secrets.objects())
    api.delete(GATEWAYS, ("shop", "odd"))
    api.put(GATEWAYS, dict(cluster.gateway(cluster.listener(port=8080), name="another")))
    await until(lambda: {port.gateway for port in plane.ports.values()} == {"shop/door", "shop/another"})


async def test_a_cluster_that_could_not_be_made_is_made_with_the_next_change(
    api: ClusterApiServer, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, plane = replicas.start("one")
    await until(lambda: plane.ports and not control.plan.statuses)
    make, failed = plane.add_clusters, asyncio.Event()

    def failing(specs: Sequence[ClusterSpec]) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("what is this?")
        make(specs)

    monkeypatch.setattr(plane, "add_clusters", failing)
    api.put(SERVICES, dict(cluster.service("second")))
    api.put(ROUTES, cluster.route({"backendRefs": [cluster.backend("second")]}, name="second"))
    await failed.wait()
    api.put(ROUTES, cluster.route(name="third"))
    await until(lambda: set(plane.clusters) == {"shop/web:8080", "shop/second:8080"})


# Writes.


async def test_a_gateway_that_comes_while_the_services_are_late_gets_a_port_of_its_own(
    api: ClusterApiServer, replicas: Replicas
) -> None:
    control, plane = replicas.start("one")
    await until(lambda: plane.ports and not control.plan.statuses and api.watching(SERVICES))
    (door,) = plane.ports
    api.hold(SERVICES)
    for name in ("a", "b", "c"):
        api.put(GATEWAYS, dict(cluster.gateway(name=name)))
        await until(lambda: len([path for method, path in api.writes if method == "POST" and "services" in path]) > 1)
    await until(lambda: len(api.kinds[SERVICES]) == 6)
    api.let_go(SERVICES)
    await until(lambda: len(plane.ports) == 4)
    assert plane.ports[door].gateway == "shop/door"
    writes = [path for method, path in api.writes if "services" in path and method != "POST"]
    assert not writes


async def test_a_service_that_changed_meanwhile_is_not_overwritten(api: ClusterApiServer, replicas: Replicas) -> None:
    control, plane = replicas.start("one")
    await until(lambda: plane.ports and not control.plan.statuses and api.watching(SERVICES))
    path = f"/services/{service_of_door(api)['metadata']['name']}"
    asked: list[str] = []

    async def meanwhile(request: web.Request) -> None:
        if request.method == "PATCH" and request.path.endswith(path):
            asked.append(request.path)
            if len(asked) == 1:
                changed = service_of_door(api)
                api.put(SERVICES, {**changed, "metadata": {**changed["metadata"], "labels": {"by": "another"}}})

    api.before = meanwhile
    del api.writes[:]
    api.put(GATEWAYS, dict(cluster.gateway(cluster.listener(port=8080))))
    await until(lambda: [port.port for port in plane.ports.values()] == [8080] and not control.plan.services)
    # The first was refused, for it was made without knowing of the change; the second knew.
    assert len(asked) == 2
    assert len([each for method, each in api.writes if method == "PATCH" and each.endswith(path)]) == 1


async def test_what_is_refused_holds_up_no_other_write(
    api: ClusterApiServer, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY", 3600.0)
    refused: list[str] = []

    async def refusing(request: web.Request) -> web.Response | None:
        if not request.path.endswith("httproutes/route/status"):
            return None
        refused.append(request.path)
        return refusal(422, "too long")

    api.before = refusing
    replicas.start("one")
    await until(lambda: refused)
    api.put(ROUTES, cluster.route(name="second"))
    await until(lambda: status(api, ROUTES, "second"))


async def test_a_conflict_that_no_event_comes_of_is_not_the_end(
    api: ClusterApiServer, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of a ResourceQuota that others use up in the same moment, for longer than statuses take to be written.
    monkeypatch.setattr(writer, "RETRY", 0.05)
    refused: list[str] = []

    async def refusing(request: web.Request) -> web.Response | None:
        if request.method != "POST" or not request.path.endswith("/services") or len(refused) > 9:
            return None
        refused.append(request.path)
        return refusal(409, "Operation cannot be fulfilled on resourcequotas")

    api.before = refusing
    _, plane = replicas.start("one")
    await until(lambda: plane.ports)
    assert len(refused) == 10


async def test_nothing_is_written_once_the_lease_is_lost(api: ClusterApiServer) -> None:
    leads, first = True, asyncio.Event()

    async def losing(request: web.Request) -> None:
        nonlocal leads
        if request.method == "PATCH":
            leads = False
            first.set()

    api.before = losing
    connection = ClusterApi()
    await connection.connected()
    written = writer.Writer(connection, lambda: leads, lambda: None)
    names = [f"r{number}" for number in range(writer.AT_ONCE * 3)]
    for name in names:
        api.put(ROUTES, cluster.route(name=name))
    plan = cluster.planned(cluster.world(routes=[api.kinds[ROUTES]["shop", name] for name in names]))
    plan.statuses = [each for each in plan.statuses if each.kind == "HTTPRoute"]
    plan.services.clear()
    task = asyncio.get_running_loop().create_task(written._written(plan))
    await task
    assert first.is_set()
    assert len(api.writes) <= writer.AT_ONCE
    await connection.close()


async def test_a_writer_that_ends_leaves_no_write_behind(api: ClusterApiServer) -> None:
    # A warning that a coroutine was never awaited fails the test.
    asked = asyncio.Event()

    async def waiting(request: web.Request) -> None:
        asked.set()
        await asyncio.Event().wait()

    connection = ClusterApi()
    await connection.connected()
    api.before = waiting
    written = writer.Writer(connection, lambda: True, lambda: None)
    routes: list[Any] = [cluster.route(name=f"r{number}") for number in range(writer.AT_ONCE * 2)]
    plan = cluster.planned(cluster.world(routes=routes))
    task = asyncio.get_running_loop().create_task(written._written(plan))
    await asked.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await connection.close()
    gc.collect()


# The lease.


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_leader_that_lost_its_lease_to_nobody_writes_again(api: ClusterApiServer) -> None:
    clock, gained = Clock(), 0

    def again() -> None:
        nonlocal gained
        gained += 1

    connection = ClusterApi()
    await connection.connected()
    leadership = Leadership(connection, "lease", "us", clock, again)
    await leadership._step()
    clock.now += 60.0  # Nothing could be renewed, and what a plan wanted meanwhile was not written.
    assert not leadership.leads
    await leadership._step()
    assert leadership.leads
    assert gained == 2
    await connection.close()


async def test_a_lease_that_was_slow_to_be_read_is_as_young_as_its_answer(api: ClusterApiServer) -> None:
    metadata = {"name": "lease", "namespace": "lb-system"}
    api.put(LEASES, {"metadata": metadata, "spec": {"holderIdentity": "other", "renewTime": "2040-01-01T00:00:00Z"}})
    clock = Clock()

    async def slow(request: web.Request) -> None:
        if request.method == "GET":
            clock.now += 12.0
            api.before = None

    api.before = slow
    connection = ClusterApi()
    await connection.connected()
    leadership = Leadership(connection, "lease", "us", clock, lambda: None)
    await leadership._step()
    clock.now = 12.0 + DURATION - 0.1
    await leadership._step()
    assert not leadership.leads
    await connection.close()
