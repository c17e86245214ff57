"""The Gateway part on a stand-in for the API: what is watched is applied, what is planned is written, by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from benchmarks.clusterapi import ClusterApiServer
from tests.balancer.discovery.gateway import cluster
from tests.balancer.discovery.gateway.replicas import (
    GATEWAYS,
    LEASES,
    ROUTES,
    SECRETS,
    SERVICES,
    SLICES,
    Replicas,
    until,
)

from balancer.discovery.gateway import objects
from balancer.discovery.gateway.api import ClusterApi, Refused
from balancer.discovery.gateway.lease import DURATION, Leadership
from balancer.discovery.gateway.watch import Watcher


def status(api: ClusterApiServer, path: str, name: str) -> Any:
    return api.kinds[path]["shop", name].get("status") or {}


async def test_what_is_there_is_served_and_every_status_written(api: ClusterApiServer, replicas: Replicas) -> None:
    control, plane = replicas.start("one")
    await until(lambda: plane.ports)
    assert control.ready.is_set()
    assert [(port.gateway, port.port) for port in plane.ports.values()] == [("shop/door", 80)]
    assert set(plane.clusters) == {"shop/web:8080"}
    await until(lambda: status(api, ROUTES, "route").get("parents") and status(api, GATEWAYS, "door"))
    (parent,) = status(api, ROUTES, "route")["parents"]
    assert {each["type"]: each["status"] for each in parent["conditions"]} == {
        "Accepted": "True",
        "ResolvedRefs": "True",
    }
    await until(lambda: not control.plan.statuses)
    del api.writes[:]
    api.put(ROUTES, cluster.route(name="second"))
    await until(lambda: status(api, ROUTES, "second") and not control.plan.statuses)
    # The Gateway's count of routes, too: what has not changed is not written again.
    written = {path.split("/")[-2] for _, path in api.writes if path.endswith("/status")}
    assert written == {"second", "door"}


async def test_endpoints_come_without_a_plan(api: ClusterApiServer, replicas: Replicas) -> None:
    control, plane = replicas.start("one")
    await until(lambda: plane.ports and not control.plan.statuses)
    plan = control.plan
    slice_ = {
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 9000}],
        "endpoints": [{"addresses": ["10.0.0.7"], "conditions": {"ready": True}}],
    }
    api.put(SLICES, slice_)
    await until(lambda: plane.snapshots["shop/web:8080"] == ["10.0.0.7:9000"])
    api.delete(SLICES, ("shop", "web-1"))
    await until(lambda: plane.snapshots["shop/web:8080"] == [])
    assert control.plan is plan


async def test_a_route_that_goes_takes_its_cluster_along(api: ClusterApiServer, replicas: Replicas) -> None:
    _, plane = replicas.start("one")
    await until(lambda: plane.ports)
    api.delete(ROUTES, ("shop", "route"))
    await until(lambda: not plane.clusters)


async def test_only_one_writes_and_another_takes_over_at_once(api: ClusterApiServer, replicas: Replicas) -> None:
    first, plane = replicas.start("one")
    await until(lambda: plane.ports and not first.plan.statuses)
    second, other = replicas.start("two")
    await until(lambda: other.ports)
    assert (first.leads, second.leads) == (True, False)
    await replicas.stop(first)
    await until(lambda: second.leads)
    assert api.kinds[LEASES]["lb-system", "lb-gateway-lb"]["spec"]["holderIdentity"] == "two"


async def test_a_gateways_service_goes_with_it(api: ClusterApiServer, replicas: Replicas) -> None:
    replicas.start("one")
    await until(lambda: len(api.kinds[SERVICES]) == 3)
    api.delete(GATEWAYS, ("shop", "door"))
    await until(lambda: len(api.kinds[SERVICES]) == 2)


async def test_only_the_secrets_that_a_listener_names_are_read(api: ClusterApiServer, replicas: Replicas) -> None:
    _, plane = replicas.start("one")
    await until(lambda: plane.ports)
    assert not api.watching(SECRETS)
    tls = {"certificateRefs": [{"name": "cert"}]}
    api.put(GATEWAYS, dict(cluster.gateway(cluster.listener("https", 443, "HTTPS", tls=tls))))
    await until(lambda: any(port.tls for port in plane.ports.values()))
    assert api.watching(SECRETS)


async def test_a_kind_that_is_not_installed_holds_nothing_up(api: ClusterApiServer, replicas: Replicas) -> None:
    del api.kinds[ROUTES]
    control, _ = replicas.start("one")
    await asyncio.wait_for(control.ready.wait(), 20)


async def test_a_version_that_is_forgotten_is_listed_again(api: ClusterApiServer, replicas: Replicas) -> None:
    control, plane = replicas.start("one")
    await until(lambda: plane.ports and not control.plan.statuses)
    await until(lambda: api.watching(ROUTES))
    # Gone while nobody watched: only a new list can tell.
    del api.kinds[ROUTES]["shop", "route"]
    api.forget()
    await until(lambda: not plane.clusters)


def watcher(changed: Callable[[list[objects.Key]], None]) -> tuple[Watcher[objects.Route], ClusterApi]:
    connection = ClusterApi()
    return Watcher(connection, ROUTES, objects.http_route, changed, Random(1)), connection


async def test_an_object_that_makes_no_sense_hides_no_other(api: ClusterApiServer) -> None:
    for number in range(250):  # of three pages
        api.put(ROUTES, cluster.route(name=f"r{number}"))
    api.put(ROUTES, {"metadata": {"name": "odd", "namespace": "shop"}, "spec": {"hostnames": 7}})
    told: list[objects.Key] = []
    watch, connection = watcher(told.extend)
    task = asyncio.get_running_loop().create_task(watch.run())
    await asyncio.wait_for(watch.known.wait(), 20)
    assert len(watch.objects) == 251
    await until(lambda: api.watching(ROUTES))
    api.put(ROUTES, cluster.route(name="another"))
    await until(lambda: ("shop", "another") in watch.objects)
    assert told[-1] == ("shop", "another")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await connection.close()


async def test_a_write_that_comes_too_late_is_refused(api: ClusterApiServer) -> None:
    connection = ClusterApi()
    path = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/door/status"
    with pytest.raises(Refused) as refused:
        await connection.call("PATCH", path, body={"metadata": {"resourceVersion": "1"}, "status": {}})
    assert refused.value.status == 409
    await connection.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_lease_that_nobody_renews_is_taken_after_its_duration_by_our_own_clock(api: ClusterApiServer) -> None:
    metadata = {"name": "lease", "namespace": "lb-system"}
    api.put(LEASES, {"metadata": metadata, "spec": {"holderIdentity": "gone", "renewTime": "2040-01-01T00:00:00Z"}})
    connection, clock, gained = ClusterApi(), Clock(), asyncio.Event()
    await connection.connected()
    leadership = Leadership(connection, "lease", "us", clock, gained.set)
    await leadership._step()
    assert not leadership.leads
    clock.now = DURATION
    await leadership._step()
    assert not leadership.leads
    clock.now = DURATION + 0.1
    await leadership._step()
    assert leadership.leads
    assert gained.is_set()
    clock.now += 60.0  # Not renewed: another may begin, so we stop.
    assert not leadership.leads
    await connection.close()
