"""BackendTLSPolicy: in plans, and on a whole balancer with endpoints that speak TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from tests.balancer.discovery.gateway.cluster import backend, metadata, planned, route, said, service, status, world
from tests.balancer.discovery.gateway.replicas import ROUTES, SERVICES, SLICES, until
from tests.balancer.discovery.gateway.test_traffic import Here, running

from balancer.discovery.gateway.backends import BackendTls
from balancer.discovery.gateway.objects import Json
from balancer.discovery.gateway.result import Plan
from balancer.proxy.endpoint_tls import Trust

POLICIES = "/apis/gateway.networking.k8s.io/v1/backendtlspolicies"
CONFIG_MAPS = "/api/v1/configmaps"
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop", "name": "door"}


def config_map(pem: str = "PEM", name: str = "ca") -> Json:
    return {"metadata": metadata(name), "data": {"ca.crt": pem} if pem else {}}


def policy(name: str = "tls", section: str = "", created: str = "", **validation: Any) -> dict[str, Any]:
    target = {"group": "", "kind": "Service", "name": "web", **({"sectionName": section} if section else {})}
    more = {"creationTimestamp": created} if created else {}
    authorities = [{"group": "", "kind": "ConfigMap", "name": "ca"}]
    if "wellKnownCACertificates" not in validation:
        validation = {"caCertificateRefs": authorities, **validation}
    return {
        "metadata": metadata(name, **more),
        "spec": {"targetRefs": [target], "validation": {"hostname": "web.test", **validation}},
    }


def there(*policies: Json, config_maps: list[Json] | None = None, **more: Any) -> Plan:
    maps = [config_map()] if config_maps is None else config_maps
    return planned(world(routes=[route()], tls_policies=list(policies), config_maps=maps, **more))


def told(found: Plan, name: str = "tls") -> dict[str, tuple[str, str]]:
    (ancestor,) = status(found, "BackendTLSPolicy", name)["ancestors"]
    assert ancestor["ancestorRef"] == GATEWAY
    assert all(each["observedGeneration"] == 2 for each in ancestor["conditions"])
    return {kind: said(ancestor["conditions"], kind) for kind in ("Accepted", "ResolvedRefs")}


def test_a_policy_makes_its_services_clusters_speak_tls() -> None:
    found = there(policy(subjectAltNames=[{"type": "URI", "uri": "spiffe://a"}, {"type": "Hostname", "hostname": "b"}]))
    names = (("URI", "spiffe://a"), ("DNS", "b"))
    assert found.clusters["shop/web:8080"].tls == BackendTls("web.test", "PEM", names)
    assert told(found) == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
    system = there(policy(wellKnownCACertificates="System"), config_maps=[])
    assert system.clusters["shop/web:8080"].tls == BackendTls("web.test", None)
    assert there().clusters["shop/web:8080"].tls is None


@pytest.mark.parametrize(
    ("config_maps", "refs", "reason"),
    [
        ([], None, "InvalidCACertificateRef"),
        ([config_map("")], None, "InvalidCACertificateRef"),
        ([config_map()], [{"group": "odd.io", "kind": "Odd", "name": "ca"}], "InvalidKind"),
    ],
)
def test_without_authorities_nobody_is_trusted(config_maps: list[Json], refs: list[Json] | None, reason: str) -> None:
    validation: dict[str, Any] = {"caCertificateRefs": refs} if refs else {}
    found = there(policy(**validation), config_maps=config_maps)
    assert found.clusters["shop/web:8080"].tls == BackendTls("web.test", "")
    assert told(found) == {"Accepted": ("False", "NoValidCACertificate"), "ResolvedRefs": ("False", reason)}


def test_one_good_reference_of_two_is_enough_and_the_other_is_told() -> None:
    refs = [{"group": "", "kind": "ConfigMap", "name": name} for name in ("ca", "gone")]
    found = there(policy(caCertificateRefs=refs))
    assert found.clusters["shop/web:8080"].tls == BackendTls("web.test", "PEM")
    assert told(found) == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("False", "InvalidCACertificateRef")}


def test_of_two_for_one_port_the_older_counts_and_one_for_the_port_goes_first() -> None:
    older = policy("older", created="2026-01-01T00:00:00Z", hostname="older.test")
    newer = policy("newer", created="2026-01-02T00:00:00Z", hostname="newer.test")
    found = there(newer, older)
    tls = found.clusters["shop/web:8080"].tls
    assert tls is not None
    assert tls.hostname == "older.test"
    assert told(found, "older")["Accepted"] == ("True", "Accepted")
    assert told(found, "newer")["Accepted"] == ("False", "Conflicted")
    ports: list[Json] = [{"port": 8080, "name": "https"}, {"port": 8081, "name": "other"}]
    both = {"backendRefs": [backend(), backend(port=8081)]}
    exact = policy("exact", "https", created="2026-01-03T00:00:00Z", hostname="exact.test")
    by_port = planned(
        world(
            routes=[route(both)],
            services=[service(ports=ports)],
            tls_policies=[older, exact],
            config_maps=[config_map()],
        )
    )
    hosts = {name: spec.tls.hostname for name, spec in by_port.clusters.items() if spec.tls is not None}
    assert hosts == {"shop/web:8080": "exact.test", "shop/web:8081": "older.test"}
    assert told(by_port, "exact")["Accepted"] == ("True", "Accepted")


def test_a_policy_that_no_gateway_leads_to_is_told_nothing_and_others_entries_stay() -> None:
    assert not [each for each in planned(world(tls_policies=[policy()])).statuses if each.kind == "BackendTLSPolicy"]
    other = {"ancestorRef": {"name": "x"}, "controllerName": "other/one", "conditions": []}
    mine = {"ancestorRef": {**GATEWAY, "name": "gone"}, "controllerName": "lb/lb", "conditions": []}
    found = there({**policy(), "status": {"ancestors": [other, mine]}})
    ancestors = status(found, "BackendTLSPolicy", "tls")["ancestors"]
    assert [each["ancestorRef"]["name"] for each in ancestors] == ["x", "door"]
    again = {**policy(), "status": status(found, "BackendTLSPolicy", "tls")}
    assert not [each for each in there(again).statuses if each.kind == "BackendTLSPolicy"]


def test_a_certificate_may_be_for_any_one_of_the_names() -> None:
    certificate = {"subjectAltName": (("DNS", "*.example.com"), ("URI", "spiffe://a/b"), ("DNS", "One.test"))}

    def accepts(*names: tuple[str, str]) -> bool:
        return Trust("x", None, names).accepts(certificate)

    assert accepts(("DNS", "a.example.com"))
    assert accepts(("DNS", "no"), ("URI", "spiffe://a/b"))
    assert accepts(("DNS", "one.test"))
    assert not accepts(("DNS", "a.b.example.com"))
    assert not accepts(("DNS", "example.com"))
    assert not accepts(("URI", "spiffe://A/b"))
    assert not accepts(("DNS", "spiffe://a/b"))
    assert not Trust("x", None, [("DNS", "a")]).accepts({})
    assert Trust("x", None).accepts(None)


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    kinds: dict[str, list[Any]] = {POLICIES: [], CONFIG_MAPS: []}
    async with running(tmp_path, monkeypatch, kinds=kinds) as here:
        yield here


async def test_pods_are_reached_by_tls_and_only_those_that_are_who_they_should_be(here: Here) -> None:
    ca, other = trustme.CA(), trustme.CA()
    app = web.Application()
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        asked.append(str(request.transport.get_extra_info("ssl_object").version()))
        return web.Response(text="secret")

    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    context = trust_server(ca, "web.test", "spiffe.test")
    await web.TCPSite(runner, "127.0.0.8", 0, ssl_context=context).start()
    found = {
        "metadata": {"name": "safe-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "safe"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": runner.addresses[0][1]}],
        "endpoints": [{"addresses": ["127.0.0.8"], "conditions": {"ready": True}}],
    }

    async def becomes(status_wanted: int) -> None:
        async with asyncio.timeout(20):
            while True:
                async with here.client.get(here.url("shop/door", "/x")) as got:
                    if got.status == status_wanted:
                        return
                await asyncio.sleep(0.005)

    def says(**validation: Any) -> None:
        written = policy(**validation)
        written["spec"]["targetRefs"][0]["name"] = "safe"
        here.api.put(POLICIES, written)

    try:
        here.api.put(CONFIG_MAPS, dict(config_map(ca.cert_pem.bytes().decode())))
        says()
        here.api.put(SERVICES, dict(service("safe")))
        here.api.put(SLICES, found)
        here.api.put(ROUTES, route({"backendRefs": [backend("safe")]}))
        await becomes(200)
        says(hostname="other.test")
        await becomes(502)
        says(hostname="other.test", subjectAltNames=[{"type": "Hostname", "hostname": "spiffe.test"}])
        await becomes(200)
        says(subjectAltNames=[{"type": "Hostname", "hostname": "no.test"}])
        await becomes(502)
        says()
        await becomes(200)
        here.api.put(CONFIG_MAPS, dict(config_map(other.cert_pem.bytes().decode())))
        await becomes(502)
        here.api.put(CONFIG_MAPS, dict(config_map("none at all")))
        await until(lambda: accepted(here) == ("False", "NoValidCACertificate"))
        await becomes(502)
        here.api.put(CONFIG_MAPS, dict(config_map(ca.cert_pem.bytes().decode())))
        await becomes(200)
        await until(lambda: accepted(here) == ("True", "Accepted"))
        assert set(asked) <= {"TLSv1.2", "TLSv1.3"}
    finally:
        await runner.cleanup()


def accepted(here: Here) -> tuple[str, str]:
    ancestors = (here.api.kinds[POLICIES]["shop", "tls"].get("status") or {}).get("ancestors") or []
    return said(ancestors[0]["conditions"], "Accepted") if ancestors else ("", "")


def trust_server(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context
