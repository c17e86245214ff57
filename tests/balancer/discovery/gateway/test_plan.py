"""From objects to listeners, rules and statuses: what the API's words say, and what memory gets wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.balancer.discovery.gateway.cluster import (
    CONTROLLER,
    NOW,
    backend,
    context,
    gateway,
    gateway_class,
    grant,
    listener,
    only_port,
    planned,
    route,
    said,
    secret,
    service,
    status,
    usable,
    world,
    written,
)

from balancer.discovery.gateway import addresses, objects
from balancer.discovery.gateway.memory import Memory
from balancer.discovery.gateway.objects import Json, ServicePort
from balancer.discovery.gateway.plan import plan
from balancer.discovery.gateway.result import Context, Plan
from balancer.discovery.gateway.world import World
from balancer.routing.match import RouteRequest

GATEWAY_API = "gateway.networking.k8s.io"


def listener_status(found: Any, name: str = "http") -> Any:
    return next(each for each in status(found, "Gateway", "door")["listeners"] if each["name"] == name)


def route_says(found: Any, kind: str) -> tuple[str, str]:
    return said(status(found, "HTTPRoute", "route")["parents"][0]["conditions"], kind)


def test_a_gateway_with_a_route_is_served() -> None:
    found = planned(world(routes=[route()]))
    port = only_port(found)
    assert (port.gateway, port.port, port.tls) == ("shop/door", 80, False)
    rule = port.site.route(RouteRequest(b"any.example.com", b"/"))
    assert rule is not None
    assert [each.cluster for each in rule.backends] == ["shop/web:8080"]
    assert set(found.clusters) == {"shop/web:8080"}
    told = status(found, "Gateway", "door")
    assert told["addresses"] == [{"type": "IPAddress", "value": "10.96.0.10"}]
    assert said(told["conditions"], "Accepted") == ("True", "Accepted")
    assert said(told["conditions"], "Programmed") == ("True", "Programmed")
    assert listener_status(found)["attachedRoutes"] == 1
    assert all(each["observedGeneration"] == 2 for each in told["conditions"])
    assert route_says(found, "Accepted") == ("True", "Accepted")
    assert route_says(found, "ResolvedRefs") == ("True", "ResolvedRefs")


def test_two_gateways_may_both_have_port_80() -> None:
    found = planned(world(gateways=[gateway(), gateway(name="other")]))
    assert sorted((port.gateway, port.port) for port in found.ports.values()) == [("shop/door", 80), ("shop/other", 80)]


def by_gateway(found: Plan) -> dict[str, int]:
    """Ours for the port 80 of each."""
    return {port.gateway: ours for ours, port in found.ports.items() if port.port == 80}


def ours_for(*gateways: Json) -> dict[str, int]:
    return by_gateway(planned(world(gateways=list(gateways))))


@pytest.fixture
def rival(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a Gateway that, alone, is given the same port as `door`, and is the older by its name."""
    monkeypatch.setattr(addresses, "LAST_PORT", addresses.FIRST_PORT + 9)
    (door,) = ours_for(gateway()).values()
    names = (f"an-older-{number}" for number in range(1000))
    return next(name for name in names if list(ours_for(gateway(name=name)).values()) == [door])


def test_a_port_stays_a_gateways_while_its_service_is_on_its_way_to_us(rival: str) -> None:
    memory = Memory()
    alone, both = world(gateways=[gateway()]), world(gateways=[gateway(), gateway(name=rival)])
    first = plan(alone, context(), memory)
    second = plan(both, context(), memory)  # nothing has been heard of the Service that the first has written
    there = written(written(both, first), second, kept=True)
    found = by_gateway(plan(there, context(), memory))
    assert found.keys() == {"shop/door", f"shop/{rival}"}
    assert found["shop/door"] == ours_for(gateway())["shop/door"]


def test_two_gateways_that_were_given_one_port_get_two(rival: str) -> None:
    # By two leaders, of which the second did not know yet what the first had written.
    alone, both = world(gateways=[gateway()]), world(gateways=[gateway(), gateway(name=rival)])
    there = written(written(both, plan(alone, context())), plan(both, context()), kept=True)
    memory = Memory()
    found = plan(there, context(), memory)
    assert by_gateway(found).keys() == {f"shop/{rival}"}
    assert said(listener_status(found)["conditions"], "Programmed") == ("False", "Pending")
    settled = by_gateway(plan(written(there, found), context(), memory))
    assert settled.keys() == {"shop/door", f"shop/{rival}"}
    assert by_gateway(found).items() <= settled.items()


def test_two_gateways_of_one_plan_get_two_ports(rival: str) -> None:
    found = plan(world(gateways=[gateway(), gateway(name=rival)]), context())
    targets = [port["targetPort"] for write in found.services for port in write.body["spec"]["ports"]]
    assert len(set(targets)) == 2


def test_a_port_that_a_gateway_wants_no_more_is_nobodys_but_the_others(rival: str) -> None:
    # The first has it on record for a listener that is gone: its Service was written late.
    both = world(gateways=[gateway(name=rival), gateway()])
    there = written(both, plan(both, context()))
    ours = by_gateway(plan(there, context()))
    services = dict(there.services)
    for key, each in there.services.items():
        if each.annotations.get("lb/gateway") == f"shop/{rival}":
            services[key] = replace(each, ports=(*each.ports, leads_to(81, ours["shop/door"])))
    found = plan(replace(there, services=services), context())
    assert by_gateway(found) == ours


def test_of_two_gateways_with_one_port_the_one_whose_service_was_made_first_keeps_it(rival: str) -> None:
    both = world(gateways=[gateway(), gateway(name=rival)])
    there = written(written(both, plan(world(gateways=[gateway()]), context())), plan(both, context()), kept=True)
    when = {"door": "2026-11-29T17:00:00Z", rival: "2026-11-29T17:00:01Z"}
    services = {
        key: replace(each, meta=replace(each.meta, created=when[each.annotations["lb/gateway"].removeprefix("shop/")]))
        if "lb/gateway" in each.annotations
        else each
        for key, each in there.services.items()
    }
    assert by_gateway(plan(replace(there, services=services), context())).keys() == {"shop/door"}


def test_every_leader_chooses_the_same_port_for_a_gateway_whatever_others_there_are() -> None:
    both = ours_for(gateway(), gateway(name="an-older-one"))
    assert both == ours_for(gateway()) | ours_for(gateway(name="an-older-one"))


def gateway_service(there: World, **spec: Any) -> World:
    """With a Service of `door` that somebody has changed by hand, and the port that it had."""
    found = written(there, plan(there, context()))
    (key,) = [key for key, each in found.services.items() if "lb/gateway" in each.annotations]
    return replace(found, services={**found.services, key: replace(found.services[key], **spec)})


def leads_to(port: int, target: int | str, protocol: str = "TCP") -> ServicePort:
    return ServicePort("", port, str(target), protocol, "")


@pytest.mark.parametrize(
    "ports",
    [
        [leads_to(80, 8080)],  # our own, of the release's Service
        [leads_to(80, 30_000)],
        [leads_to(80, 20_005, "UDP")],
        [leads_to(81, 20_005), leads_to(80, 20_005)],
        [leads_to(80, 20_005), leads_to(443, 20_006)],
    ],
)
def test_what_somebody_writes_into_a_gateways_service_is_put_right(ports: list[ServicePort]) -> None:
    memory = Memory()
    there = gateway_service(world(), ports=tuple(ports))
    found = plan(there, context(), memory)
    assert all(20_000 <= ours < 30_000 for ours in found.ports)
    again = plan(written(there, found), context(), memory)
    assert not again.services
    ((ours, served),) = again.ports.items()
    assert served.port == 80
    (listed,) = (each.ports for each in written(there, found).services.values() if "lb/gateway" in each.annotations)
    assert [(each.port, each.target, each.protocol) for each in listed] == [(80, str(ours), "TCP")]


def test_a_selector_that_is_too_narrow_is_widened() -> None:
    # A merge patch keeps what it does not name.
    found = plan(gateway_service(world(), selector={"app": "lb", "track": "canary"}), context())
    assert found.services[0].body["spec"]["selector"] == {"app": "lb", "track": None}


def test_a_gateways_labels_cannot_make_its_service_anothers() -> None:
    mine = {"gateway.networking.k8s.io/gateway-class-name": "x"}
    there = world(gateways=[gateway(infrastructure={"labels": mine, "annotations": {"lb/gateway": "y"}})])
    assert not plan(written(there, plan(there, context())), context()).services


def test_the_port_of_a_gateway_that_is_gone_is_not_anothers_while_its_service_is_there(rival: str) -> None:
    before = world(gateways=[gateway()])
    old = written(before, plan(before, context()))
    there = replace(world(gateways=[gateway(name=rival)]), services=old.services)
    found = plan(there, context())
    assert [meta.name for meta in found.obsolete] == [addresses.service_name(before.gateways["shop", "door"])]
    (ours,) = by_gateway(plan(written(there, found), context())).values()
    assert ours != by_gateway(plan(old, context()))["shop/door"]


def test_two_controllers_that_share_a_route_come_to_an_end() -> None:
    # Both have put their own last: each wrote the list again, for ever, whenever the other had.
    shared = route(parents=[{"name": "door"}, {"name": "theirs"}])
    theirs = gateway(name="theirs", gatewayClassName="other")
    there = world(gateways=[gateway(), theirs], routes=[shared])
    classes = {
        each.meta.key: each
        for each in map(objects.gateway_class, [gateway_class(), gateway_class("other", "lb/other")])
    }
    key = ("shop", "route")
    for turn in range(6):
        there = replace(there, controller=CONTROLLER if turn % 2 else "lb/other", classes=classes)
        writes = [each for each in plan(there, context()).statuses if each.kind == "HTTPRoute"]
        if not writes:
            break
        there = replace(there, routes={key: replace(there.routes[key], status=writes[0].status)})
    assert turn < 5
    said_by = [each["controllerName"] for each in there.routes[key].status["parents"]]
    assert sorted(said_by) == [CONTROLLER, "lb/other"]


def test_a_gateway_of_another_class_is_left_alone() -> None:
    found = planned(world(gateways=[gateway(gatewayClassName="other")], routes=[route()]))
    assert not found.ports
    assert {write.kind for write in found.statuses} == {"GatewayClass"}


def test_some_bad_listeners_do_not_spoil_a_gateway() -> None:
    found = planned(world(gateways=[gateway(listener(), listener("odd", 81, "example.com/odd"))]))
    assert said(status(found, "Gateway", "door")["conditions"], "Accepted") == ("True", "ListenersNotValid")
    odd = listener_status(found, "odd")
    assert odd["supportedKinds"] == []
    assert said(odd["conditions"], "Accepted") == ("False", "UnsupportedProtocol")


def test_only_bad_listeners_do() -> None:
    found = planned(world(gateways=[gateway(listener("odd", 81, "example.com/odd"))]))
    assert said(status(found, "Gateway", "door")["conditions"], "Accepted") == ("False", "ListenersNotValid")


def test_kinds_that_are_not_served_are_told() -> None:
    kinds = [{"kind": "HTTPRoute"}, {"group": "example.com", "kind": "OddRoute"}]
    found = planned(world(gateways=[gateway(listener(allowedRoutes={"kinds": kinds}))]))
    told = listener_status(found)
    assert told["supportedKinds"] == [{"group": GATEWAY_API, "kind": "HTTPRoute"}]
    assert said(told["conditions"], "ResolvedRefs") == ("False", "InvalidRouteKinds")


def https(namespace: str = "shop", name: str = "cert", **more: Any) -> dict[str, Any]:
    return listener("https", 443, "HTTPS", tls={"certificateRefs": [{"name": name, "namespace": namespace}]}, **more)


def test_an_https_listener_shows_its_certificate() -> None:
    found = planned(world(gateways=[gateway(https(hostname="a.com"))], secrets=[secret()]))
    port = only_port(found)
    assert port.tls
    assert [(host, [each.meta.name for each in secrets]) for host, secrets in port.certificates] == [
        ("a.com", ["cert"])
    ]


@pytest.mark.parametrize("name", ["missing", "bad"])
def test_a_certificate_that_cannot_be_had_keeps_a_listener_closed_but_its_routes_count(name: str) -> None:
    found = planned(world(gateways=[gateway(https(name=name))], routes=[route()], secrets=[secret("bad")]))
    assert not found.ports
    told = listener_status(found, "https")
    assert said(told["conditions"], "ResolvedRefs") == ("False", "InvalidCertificateRef")
    assert said(told["conditions"], "Programmed") == ("False", "Invalid")
    assert told["attachedRoutes"] == 1


def test_without_a_grant_nobody_is_told_whether_a_secret_exists() -> None:
    found = planned(world(gateways=[gateway(https("other", "missing"))]))
    assert said(listener_status(found, "https")["conditions"], "ResolvedRefs") == ("False", "RefNotPermitted")


def test_a_grant_lets_a_gateway_use_a_secret_elsewhere() -> None:
    lets = grant((GATEWAY_API, "Gateway", "shop"), ("", "Secret", "cert"), "other")
    found = planned(world(gateways=[gateway(https("other"))], secrets=[secret(namespace="other")], grants=[lets]))
    assert found.ports


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        (backend("missing"), "BackendNotFound"),
        (backend(port=9), "BackendNotFound"),
        (backend(namespace="other"), "RefNotPermitted"),
        (backend(kind="Odd", group="example.com"), "InvalidKind"),
        (backend("strange"), "UnsupportedProtocol"),
    ],
)
def test_a_backend_that_cannot_be_had_keeps_its_share(ref: dict[str, Any], reason: str) -> None:
    strange = service("strange", ports=[{"port": 8080, "appProtocol": "example.com/odd"}])
    rules = [{"backendRefs": [backend(), ref]}]
    found = planned(world(routes=[route(*rules)], services=[service(), strange]))
    assert route_says(found, "Accepted") == ("True", "Accepted")
    assert route_says(found, "ResolvedRefs") == ("False", reason)
    rule = only_port(found).site.route(RouteRequest(b"", b"/"))
    assert rule is not None
    assert sorted(each.cluster for each in rule.backends) == ["", "shop/web:8080"]


@pytest.mark.parametrize(
    ("target", "resolved"), [("", True), ("web", True), ("another", False)], ids=["all", "this one", "another"]
)
def test_a_grant_is_for_what_it_names(target: str, resolved: bool) -> None:
    lets = grant((GATEWAY_API, "HTTPRoute", "shop"), ("", "Service", target), "other")
    found = planned(
        world(
            routes=[route({"backendRefs": [backend(namespace="other")]})],
            services=[service(namespace="other")],
            grants=[lets],
        )
    )
    assert (route_says(found, "ResolvedRefs")[0] == "True") is resolved


@pytest.mark.parametrize(
    ("parent", "namespace", "hosts", "reason"),
    [
        ({"sectionName": "missing"}, "shop", [], "NoMatchingParent"),
        ({"port": 81}, "shop", [], "NoMatchingParent"),
        ({"namespace": "shop"}, "other", [], "NotAllowedByListeners"),
        ({}, "shop", ["a.org"], "NoMatchingListenerHostname"),
        ({}, "shop", ["a.com"], "NoMatchingListenerHostname"),
        ({}, "shop", ["b.a.com"], "Accepted"),
        ({}, "shop", ["*.com"], "Accepted"),
        ({}, "shop", ["*.b.a.com"], "Accepted"),
    ],
)
def test_a_route_attaches_where_it_may(parent: dict[str, Any], namespace: str, hosts: list[str], reason: str) -> None:
    there = world(
        gateways=[gateway(listener(hostname="*.a.com"))],
        routes=[route(namespace=namespace, parents=[{"name": "door", **parent}], hostnames=hosts)],
    )
    found = planned(there)
    entry = status(found, "HTTPRoute", "route", namespace)["parents"][0]
    assert said(entry["conditions"], "Accepted") == ("True" if reason == "Accepted" else "False", reason)


def test_namespaces_are_chosen_by_their_labels() -> None:
    selector = {"matchLabels": {"team": "a"}, "matchExpressions": [{"key": "old", "operator": "DoesNotExist"}]}
    allowed = {"namespaces": {"from": "Selector", "selector": selector}}
    there = world(
        gateways=[gateway(listener(allowedRoutes=allowed))],
        routes=[route(name=name, namespace=name, parents=[{"name": "door", "namespace": "shop"}]) for name in "abc"],
        namespaces={"a": {"team": "a"}, "b": {"team": "b"}, "c": {"team": "a", "old": ""}},
    )
    found = planned(there)
    assert listener_status(found)["attachedRoutes"] == 1


def test_a_route_is_ranked_by_its_own_host_and_the_listener_keeps_what_is_its_own() -> None:
    there = world(
        gateways=[gateway(listener("wide"), listener("narrow", hostname="*.a.com"))],
        routes=[
            route({"backendRefs": [backend()]}, name="all"),
            route({"backendRefs": [backend()]}, name="named", hostnames=["b.a.com"], parents=[{"name": "door"}]),
            route(name="wide-only", parents=[{"name": "door", "sectionName": "wide"}], hostnames=["*.a.com"]),
        ],
    )
    site = only_port(planned(there)).site
    names = {
        host: rule.name for host in (b"b.a.com", b"c.a.com", b"d.org") if (rule := site.route(RouteRequest(host, b"/")))
    }
    assert names == {b"b.a.com": "shop/named", b"c.a.com": "shop/all", b"d.org": "shop/all"}


def test_what_others_have_written_stays() -> None:
    others = {"parentRef": {"name": "else"}, "controllerName": "example.com/another", "conditions": []}
    stale = {"parentRef": {"name": "gone"}, "controllerName": CONTROLLER, "conditions": []}
    mine = {**route(), "status": {"parents": [others, stale]}}
    told = status(planned(world(routes=[mine])), "HTTPRoute", "route")["parents"]
    assert told[0] == others
    assert [each["parentRef"]["name"] for each in told] == ["else", "door"]
    odd = {"type": "example.com/Odd", "status": "True", "reason": "Odd", "lastTransitionTime": NOW}
    theirs = {**gateway(), "status": {"conditions": [odd]}}
    assert odd in status(planned(world(gateways=[theirs])), "Gateway", "door")["conditions"]


def test_a_status_that_is_right_is_not_written_again() -> None:
    there = world(routes=[route()])
    first = planned(there)
    again = world(
        gateways=[{**gateway(), "status": status(first, "Gateway", "door")}],
        routes=[{**route(), "status": status(first, "HTTPRoute", "route")}],
    )
    assert {write.kind for write in planned(again).statuses} == {"GatewayClass"}


def test_a_rule_that_asks_for_what_we_cannot_do_is_dropped_and_told() -> None:
    odd = {"filters": [{"type": "ExtensionRef", "extensionRef": {}}], "backendRefs": [backend()]}
    partly = planned(world(routes=[route(odd, {"backendRefs": [backend()]})]))
    assert route_says(partly, "Accepted") == ("True", "Accepted")
    assert route_says(partly, "PartiallyInvalid") == ("True", "UnsupportedValue")
    wholly = planned(world(routes=[route(odd)]))
    assert route_says(wholly, "Accepted") == ("False", "UnsupportedValue")
    assert only_port(wholly).site.route(RouteRequest(b"", b"/")) is None


def test_mirrors_have_clusters_and_shares_and_a_bad_one_is_told_and_left_out() -> None:
    def to(name: str, **share: Any) -> Json:
        return {"type": "RequestMirror", "requestMirror": {"backendRef": backend(name), **share}}

    half = {"numerator": 25, "denominator": 50}
    filters = [to("copy"), to("copy", percent=20), to("copy", fraction=half), to("copy", percent=0), to("gone")]
    there = world(
        routes=[route({"filters": filters, "backendRefs": [backend()]})], services=[service(), service("copy")]
    )
    found = planned(there)
    rule = only_port(found).site.route(RouteRequest(b"", b"/"))
    assert rule is not None
    assert [(each.cluster, each.share) for each in rule.mirrors] == [
        ("shop/copy:8080", 1.0),
        ("shop/copy:8080", 0.2),
        ("shop/copy:8080", 0.5),
    ]
    assert set(found.clusters) == {"shop/web:8080", "shop/copy:8080"}
    assert route_says(found, "Accepted") == ("True", "Accepted")
    assert route_says(found, "ResolvedRefs") == ("False", "BackendNotFound")


def test_a_grpc_route_is_by_service_and_method_and_speaks_http2_to_pods() -> None:
    def match(**method: str) -> dict[str, Any]:
        return {"matches": [{"method": method}], "backendRefs": [backend()]}

    rules = [match(service="a.B", method="Do"), match(service="a.B"), match(method="Any")]
    found = planned(world(grpc_routes=[route(*rules)]))
    site = only_port(found).site
    chosen = {path: site.route(RouteRequest(b"", path, b"POST")) for path in (b"/a.B/Do", b"/a.B/Other", b"/x.Y/Any")}
    assert all(rule is not None and rule.backends[0].cluster == "shop/web:8080@grpc" for rule in chosen.values())
    assert len({id(rule) for rule in chosen.values()}) == 3
    assert site.route(RouteRequest(b"", b"/x.Y/Do", b"POST")) is None
    assert found.clusters["shop/web:8080@grpc"].overrides == (("upstream_protocol", "h2c"),)
    entry = status(found, "GRPCRoute", "route")["parents"][0]
    assert said(entry["conditions"], "Accepted") == ("True", "Accepted")
    assert listener_status(found)["attachedRoutes"] == 1
    h2c = service(ports=[{"port": 8080, "appProtocol": "kubernetes.io/h2c"}])
    assert route_clusters_of(h2c) == {"shop/web:8080"}


def route_clusters_of(backend_service: Any) -> set[str]:
    there = world(grpc_routes=[route()], services=[backend_service])
    return set(plan(there, Context(usable, frozenset({"http1", "h2c"}), [], "front", NOW)).clusters)


def test_filters_and_timeouts_are_taken_over() -> None:
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/v1"}, "headers": [{"name": "X-A", "value": "1"}]}],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-B", "value": "2"}]}},
            {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}},
        ],
        "backendRefs": [backend()],
        "timeouts": {"request": "1m30s", "backendRequest": "500ms"},
    }
    there = planned(world(routes=[route(rule)]))
    found = only_port(there).site.route(RouteRequest(b"", b"/v1/x", headers=[(b"x-a", b"1")]))
    assert found is not None
    assert found.request is not None
    assert found.request.set == ((b"x-b", b"2"),)
    assert found.path is not None
    assert found.path.applied(b"/v1/x") == b"/x"
    assert (found.timeout, found.backend_timeout) == (90.0, 0.5)
