"""ListenerSet: who may add listeners to a Gateway, what comes of them, and what everybody is told."""

from __future__ import annotations

from typing import Any

import pytest
from tests.balancer.discovery.gateway.cluster import (
    gateway,
    grant,
    listener,
    metadata,
    planned,
    route,
    said,
    secret,
    service,
    status,
    world,
)

from balancer.discovery.gateway.objects import GROUP, Json
from balancer.discovery.gateway.result import Plan
from balancer.discovery.gateway.secrets import wanted_secrets
from balancer.routing.match import RouteRequest

ALL = {"namespaces": {"from": "All"}}


def listener_set(*listeners: Json, name: str = "set", namespace: str = "shop", created: str = "") -> Json:
    more = {"creationTimestamp": created} if created else {}
    return {
        "metadata": metadata(name, namespace, **more),
        "spec": {"parentRef": {"name": "door", "namespace": "shop"}, "listeners": list(listeners)},
    }


def door(*listeners: Json, **spec: Any) -> Json:
    return gateway(*(listeners or [listener(hostname="door.test")]), allowedListeners=ALL, **spec)


def to_set(name: str = "set", namespace: str = "shop", **more: Any) -> Json:
    return {"group": GROUP, "kind": "ListenerSet", "name": name, "namespace": namespace, **more}


def rule(found: Plan, host: bytes, port: int = 80) -> bool:
    (site,) = (each.site for each in found.ports.values() if each.port == port)
    return site.route(RouteRequest(host, b"/")) is not None


def told(found: Plan, name: str = "set", namespace: str = "shop") -> dict[str, tuple[str, str]]:
    conditions = status(found, "ListenerSet", name, namespace)["conditions"]
    return {kind: said(conditions, kind) for kind in ("Accepted", "Programmed")}


def test_a_set_adds_listeners_with_routes_of_its_own() -> None:
    found = planned(
        world(
            gateways=[door()],
            listener_sets=[listener_set(listener("http", hostname="set.test"), listener("more", 81))],
            routes=[
                route(name="both", parents=[{"name": "door"}, to_set()]),
                route(name="one", parents=[to_set(sectionName="http")]),
                route(name="none", parents=[{"name": "door", "sectionName": "more"}]),
            ],
        )
    )
    assert {each.port for each in found.ports.values()} == {80, 81}
    assert rule(found, b"set.test")
    assert rule(found, b"door.test")
    assert rule(found, b"any.test", 81)
    assert told(found) == {"Accepted": ("True", "Accepted"), "Programmed": ("True", "Programmed")}
    listeners = status(found, "ListenerSet", "set")["listeners"]
    assert [(each["name"], each["attachedRoutes"]) for each in listeners] == [("http", 2), ("more", 1)]
    door_says = status(found, "Gateway", "door")
    assert [(each["name"], each["attachedRoutes"]) for each in door_says["listeners"]] == [("http", 1)]
    assert door_says["attachedListenerSets"] == 1
    (none,) = status(found, "HTTPRoute", "none")["parents"]
    assert said(none["conditions"], "Accepted") == ("False", "NoMatchingParent")
    both = status(found, "HTTPRoute", "both")["parents"]
    assert [said(each["conditions"], "Accepted") for each in both] == [("True", "Accepted")] * 2


def test_a_route_of_the_gateway_is_not_the_sets_and_the_other_way_round() -> None:
    there: dict[str, Any] = {"gateways": [door()], "listener_sets": [listener_set(listener(hostname="set.test"))]}
    gateways_own = planned(world(routes=[route()], **there))
    assert rule(gateways_own, b"door.test")
    assert not rule(gateways_own, b"set.test")
    sets_own = planned(world(routes=[route(parents=[to_set()])], **there))
    assert not rule(sets_own, b"door.test")
    assert rule(sets_own, b"set.test")


@pytest.mark.parametrize(
    ("spaces", "namespace", "taken"),
    [
        (None, "shop", False),
        ({"from": "None"}, "shop", False),
        ({"from": "Same"}, "shop", True),
        ({"from": "Same"}, "other", False),
        ({"from": "All"}, "other", True),
        ({"from": "Selector", "selector": {"matchLabels": {"may": "yes"}}}, "other", True),
        ({"from": "Selector", "selector": {"matchLabels": {"may": "yes"}}}, "shop", False),
    ],
)
def test_a_gateway_says_who_may_add_to_it(spaces: Json | None, namespace: str, taken: bool) -> None:
    spec: dict[str, Any] = {"allowedListeners": {"namespaces": spaces}} if spaces else {}
    there = world(
        gateways=[gateway(listener(hostname="door.test"), **spec)],
        listener_sets=[listener_set(listener(hostname="set.test"), namespace=namespace)],
        routes=[route(namespace=namespace, parents=[to_set(namespace=namespace)])],
        services=[service(), service(namespace="other")],
        namespaces={"shop": {}, "other": {"may": "yes"}},
    )
    found = planned(there)
    assert rule(found, b"set.test") is taken
    reason = ("True", "Accepted") if taken else ("False", "NotAllowed")
    assert told(found, namespace=namespace)["Accepted"] == reason
    assert ("attachedListenerSets" in status(found, "Gateway", "door")) is taken


def test_same_namespace_is_the_sets_and_not_the_gateways() -> None:
    found = planned(
        world(
            gateways=[door()],
            listener_sets=[listener_set(listener(hostname="set.test"), namespace="other")],
            routes=[
                route(name="near", namespace="other", parents=[to_set(namespace="other")]),
                route(name="far", parents=[to_set(namespace="other")]),
            ],
            services=[service(), service(namespace="other")],
        )
    )
    (near,) = status(found, "HTTPRoute", "near", "other")["parents"]
    (far,) = status(found, "HTTPRoute", "far")["parents"]
    assert said(near["conditions"], "Accepted") == ("True", "Accepted")
    assert said(far["conditions"], "Accepted") == ("False", "NotAllowedByListeners")


def test_of_two_that_cannot_both_be_the_gateways_goes_first_then_the_older() -> None:
    found = planned(
        world(
            gateways=[door()],
            listener_sets=[
                listener_set(
                    listener("a", hostname="set.test"),
                    listener("b", 90),
                    name="younger",
                    created="2026-01-02T00:00:00Z",
                ),
                listener_set(
                    listener("a", hostname="set.test"),
                    listener("c", hostname="door.test"),
                    name="older",
                    created="2026-01-01T00:00:00Z",
                ),
                listener_set(
                    listener("d", protocol="HTTPS"),
                    listener("e", protocol="TCP"),
                    listener("f", 91, protocol="UDP"),
                    name="youngest",
                    created="2026-01-03T00:00:00Z",
                ),
            ],
        )
    )

    def conditions(name: str, place: int) -> list[tuple[str, str]]:
        entry = status(found, "ListenerSet", name)["listeners"][place]
        return [said(entry["conditions"], kind) for kind in ("Accepted", "Conflicted", "Programmed")]

    conflict = [("False", "HostnameConflict"), ("True", "HostnameConflict"), ("False", "HostnameConflict")]
    good = [("True", "Accepted"), ("False", "NoConflicts"), ("True", "Programmed")]
    assert conditions("older", 0) == good
    assert conditions("older", 1) == conflict
    assert conditions("younger", 0) == conflict
    assert conditions("younger", 1) == good
    assert [conditions("youngest", place)[1] for place in (0, 1)] == [("True", "ProtocolConflict")] * 2
    assert conditions("youngest", 2)[0] == ("False", "UnsupportedProtocol")
    assert told(found, "older") == {"Accepted": ("True", "ListenersNotValid"), "Programmed": ("True", "Programmed")}
    refused = ("False", "ListenersNotValid")
    assert told(found, "youngest") == {"Accepted": refused, "Programmed": refused}
    door_says = status(found, "Gateway", "door")
    assert said(door_says["conditions"], "Accepted") == ("True", "Accepted")
    assert door_says["attachedListenerSets"] == 2


def test_a_sets_certificate_is_its_own_and_elsewhere_by_a_grant_for_sets() -> None:
    def found(*grants: Json, namespace: str = "other") -> tuple[Plan, set[tuple[str, str]]]:
        tls = {"certificateRefs": [{"name": "cert", "namespace": namespace}]}
        there = world(
            gateways=[door()],
            listener_sets=[listener_set(listener("https", 443, "HTTPS", hostname="set.test", tls=tls))],
            secrets=[secret(namespace=namespace)],
            grants=list(grants),
        )
        return planned(there), wanted_secrets(there)

    own, read = found(namespace="shop")
    (shown,) = (each.certificates for each in own.ports.values() if each.port == 443)
    assert [host for host, _ in shown] == ["set.test"]
    assert read == {("shop", "cert")}
    for_gateways = grant((GROUP, "Gateway", "shop"), ("", "Secret", ""), "other")
    without, read = found(for_gateways)
    assert read == set()
    assert told(without)["Accepted"] == ("False", "ListenersNotValid")
    entry = status(without, "ListenerSet", "set")["listeners"][0]
    assert said(entry["conditions"], "ResolvedRefs") == ("False", "RefNotPermitted")
    allowed, read = found(grant((GROUP, "ListenerSet", "shop"), ("", "Secret", "cert"), "other"))
    assert read == {("other", "cert")}
    assert told(allowed)["Programmed"] == ("True", "Programmed")


def test_a_status_that_is_right_is_not_written_again_and_a_count_goes_back_to_none() -> None:
    made = listener_set(listener(hostname="set.test"))
    first = planned(world(gateways=[door()], listener_sets=[made]))
    stated = {**door(), "status": status(first, "Gateway", "door")}
    again = planned(world(gateways=[stated], listener_sets=[{**made, "status": status(first, "ListenerSet", "set")}]))
    assert {each.kind for each in again.statuses} == {"GatewayClass"}
    gone = planned(world(gateways=[stated]))
    assert status(gone, "Gateway", "door")["attachedListenerSets"] == 0


def test_a_gateway_with_parameters_is_not_accepted_and_neither_are_its_sets() -> None:
    infrastructure = {"parametersRef": {"group": "x", "kind": "Y", "name": "z"}}
    found = planned(
        world(
            gateways=[door(infrastructure=infrastructure)],
            listener_sets=[listener_set(listener(hostname="set.test"))],
        )
    )
    assert said(status(found, "Gateway", "door")["conditions"], "Accepted") == ("False", "InvalidParameters")
    assert told(found)["Accepted"] == ("False", "ParentNotAccepted")
    assert not found.ports
