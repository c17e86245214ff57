"""TLSRoute and TCPRoute in a plan: listeners and their modes, routes and their hosts, clusters, statuses."""

from __future__ import annotations

from typing import Any

from tests.balancer.discovery.gateway.cluster import (
    backend,
    gateway,
    listener,
    planned,
    route,
    said,
    secret,
    service,
    status,
    world,
)

from balancer.discovery.gateway.backends import TCP
from balancer.discovery.gateway.objects import GROUP, Json
from balancer.routing.match import RouteRequest

CERTIFICATE = {"certificateRefs": [{"name": "cert"}]}


def tls(name: str, host: str = "", mode: str = "Passthrough", port: int = 443, **more: Any) -> Json:
    host_name = {"hostname": host} if host else {}
    certificate = CERTIFICATE if mode == "Terminate" else {}
    return listener(name, port, "TLS", tls={"mode": mode, **certificate}, **host_name, **more)


def secure(name: str, host: str) -> Json:
    return listener(name, 443, "HTTPS", hostname=host, tls=CERTIFICATE)


def to(host: str, name: str = "route", **more: Any) -> Json:
    return route({"backendRefs": [backend()]}, name=name, hostnames=[host], **more)


def conditions(found: Json, name: str) -> dict[str, tuple[str, str]]:
    (entry,) = [each for each in found["listeners"] if each["name"] == name]
    return {kind: said(entry["conditions"], kind) for kind in ("Accepted", "Conflicted", "ResolvedRefs", "Programmed")}


def test_listeners_of_tls_and_https_share_a_port_by_host_name() -> None:
    there = world(
        gateways=[gateway(tls("pass", "a.test"), tls("end", "*.b.test", "Terminate"), secure("web", "c.test"))],
        tls_routes=[to("a.test", "first"), to("*.b.test", "second")],
        routes=[route(hostnames=["c.test"])],
        secrets=[secret()],
    )
    found = planned(there)
    (port,) = found.ports.values()
    assert (port.protocol, port.tls) == ("TLS", True)
    assert port.modes == {"a.test": "Passthrough", "*.b.test": "Terminate", "c.test": "HTTPS"}
    assert [host for host, _ in port.certificates] == ["c.test"]
    assert [host for host, _ in port.stream_certificates] == ["*.b.test"]
    for host, name in ((b"a.test", "shop/first"), (b"x.b.test", "shop/second")):
        rule = port.streams.route(RouteRequest(host, b"/"))
        assert rule is not None
        assert (rule.name, [each.cluster for each in rule.backends]) == (name, ["shop/web:8080@tcp"])
        assert port.site.route(RouteRequest(host, b"/")) is None
    assert port.streams.route(RouteRequest(b"c.test", b"/")) is None
    assert found.clusters["shop/web:8080@tcp"].protocol == TCP
    assert found.clusters["shop/web:8080"].protocol == "http1"
    state = status(found, "Gateway", "door")
    for name, kinds in (("pass", ["TLSRoute"]), ("end", ["TLSRoute"]), ("web", ["HTTPRoute", "GRPCRoute"])):
        good = ("True", "Accepted"), ("False", "NoConflicts"), ("True", "ResolvedRefs"), ("True", "Programmed")
        assert tuple(conditions(state, name).values()) == good
        (entry,) = [each for each in state["listeners"] if each["name"] == name]
        assert [each["kind"] for each in entry["supportedKinds"]] == kinds
        assert entry["attachedRoutes"] == 1


def test_what_a_listener_cannot_be_is_said() -> None:
    found = planned(
        world(
            gateways=[
                gateway(
                    tls("one", "a.test"),
                    secure("same", "a.test"),
                    listener("tcp", 443, "TCP"),
                    tls("kinds", "b.test", allowedRoutes={"kinds": [{"kind": "TCPRoute"}, {"kind": "TLSRoute"}]}),
                    listener("bare", 444, "TLS", tls={"mode": "Terminate"}),
                    listener("udp", 53, "UDP"),
                )
            ],
            secrets=[secret()],
        )
    )
    state = status(found, "Gateway", "door")
    assert conditions(state, "one")["Conflicted"] == ("True", "HostnameConflict")
    assert conditions(state, "same")["Accepted"] == ("False", "HostnameConflict")
    assert conditions(state, "tcp")["Accepted"] == ("False", "ProtocolConflict")
    assert conditions(state, "kinds")["ResolvedRefs"] == ("False", "InvalidRouteKinds")
    assert conditions(state, "bare")["ResolvedRefs"] == ("False", "InvalidCertificateRef")
    assert conditions(state, "bare")["Programmed"][0] == "False"
    assert conditions(state, "udp")["Accepted"] == ("False", "UnsupportedProtocol")


def test_a_route_of_connections_attaches_only_where_its_kind_and_host_are_served() -> None:
    found = planned(
        world(
            gateways=[gateway(listener(), tls("tls", "*.a.test"), listener("tcp", 5432, "TCP"))],
            tls_routes=[
                to("x.a.test", "meets"),
                to("b.test", "strange"),
                to("x.a.test", "http", parents=[{"name": "door", "sectionName": "http"}]),
            ],
            tcp_routes=[
                route(name="all"),
                route(name="tls", parents=[{"name": "door", "sectionName": "tls"}]),
                route(name="nowhere", parents=[{"name": "door", "port": 5433}]),
            ],
        )
    )

    def accepted(kind: str, name: str) -> tuple[str, str]:
        (parent,) = status(found, kind, name)["parents"]
        return said(parent["conditions"], "Accepted")

    assert accepted("TLSRoute", "meets") == ("True", "Accepted")
    assert accepted("TLSRoute", "strange") == ("False", "NoMatchingListenerHostname")
    assert accepted("TLSRoute", "http") == ("False", "NotAllowedByListeners")
    assert accepted("TCPRoute", "all") == ("True", "Accepted")
    assert accepted("TCPRoute", "tls") == ("False", "NotAllowedByListeners")
    assert accepted("TCPRoute", "nowhere") == ("False", "NoMatchingParent")
    counts = {each["name"]: each["attachedRoutes"] for each in status(found, "Gateway", "door")["listeners"]}
    assert counts == {"http": 0, "tls": 1, "tcp": 1}


def test_of_two_tcp_routes_the_older_gets_the_connections_and_both_count() -> None:
    older, younger = route({"backendRefs": [backend("db")]}, name="z-older"), route(name="a-younger")
    older["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    younger["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    services = [service(), service("db", ports=[{"port": 8080, "appProtocol": "postgres.org/tls"}])]
    there = world(gateways=[gateway(listener("tcp", 5432, "TCP"))], tcp_routes=[older, younger], services=services)
    found = planned(there)
    (port,) = found.ports.values()
    rule = port.streams.route(RouteRequest(b"", b"/"))
    assert rule is not None
    assert rule.name == "shop/z-older"
    assert [each.cluster for each in rule.backends] == ["shop/db:8080@tcp"], "whatever its port speaks"
    assert status(found, "Gateway", "door")["listeners"][0]["attachedRoutes"] == 2


def test_a_backend_that_cannot_be_had_keeps_its_share() -> None:
    elsewhere = backend("web", namespace="other", weight=3)
    there = world(
        gateways=[gateway(listener("tcp", 5432, "TCP"))],
        tcp_routes=[route({"name": "main", "backendRefs": [backend(weight=1), elsewhere]})],
        services=[service(), service(namespace="other")],
    )
    found = planned(there)
    (parent,) = status(found, "TCPRoute", "route")["parents"]
    assert said(parent["conditions"], "ResolvedRefs") == ("False", "RefNotPermitted")
    assert said(parent["conditions"], "Accepted") == ("True", "Accepted")
    (port,) = found.ports.values()
    rule = port.streams.route(RouteRequest(b"", b"/"))
    assert rule is not None
    assert rule.name == "shop/route/main"
    assert [(each.cluster, each.weight) for each in rule.backends] == [("shop/web:8080@tcp", 1), ("", 3)]


def test_a_policy_for_a_route_of_connections_counts_for_it_alone() -> None:
    policy = {
        "metadata": {"name": "proxied", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": GROUP, "kind": "TCPRoute", "name": "route"}],
            "upstreamProxyProtocol": "v2",
            "strategy": "least-connections",
        },
    }
    found = planned(
        world(
            gateways=[gateway(listener("tcp", 5432, "TCP"), listener())],
            tcp_routes=[route()],
            routes=[route()],
            policies=[policy],
        )
    )
    own = found.clusters["shop/web:8080@tcp:TCPRoute:shop/route"]
    assert dict(own.overrides) == {"upstream_proxy_protocol": "v2", "strategy": "least-connections"}
    assert set(found.clusters) == {own.name, "shop/web:8080"}
    (ancestor,) = status(found, "LoadBalancingPolicy", "proxied")["ancestors"]
    assert said(ancestor["conditions"], "Accepted") == ("True", "Accepted")
