"""Settings of its own for one Service, by a LoadBalancingPolicy."""

from __future__ import annotations

from typing import Any

import pytest
from tests.balancer.discovery.gateway.cluster import context, metadata, planned, route, said, status, world

from balancer.discovery.gateway.memory import Memory
from balancer.discovery.gateway.objects import Json
from balancer.discovery.gateway.plan import plan
from balancer.discovery.gateway.policies import FIELDS, crd, parsed
from balancer.settings import table


def policy(name: str = "policy", target: str = "web", created: str = "1", **settings: Any) -> Json:
    spec = {"targetRefs": [{"group": "", "kind": "Service", "name": target}], **settings}
    return {"metadata": metadata(name, creationTimestamp=created), "spec": spec}


def accepted(found: Any, name: str = "policy") -> tuple[str, str]:
    return said(status(found, "LoadBalancingPolicy", name)["ancestors"][0]["conditions"], "Accepted")


def test_a_policy_is_for_its_services_clusters() -> None:
    found = planned(world(routes=[route()], policies=[policy(strategy="least-connections", ejectAfter=3)]))
    assert dict(found.clusters["shop/web:8080"].overrides) == {"strategy": "least-connections", "eject_after": 3}
    assert accepted(found) == ("True", "Accepted")


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (policy(target="missing"), "TargetNotFound"),
        (policy(strategy="os:system"), "Invalid"),
        (policy(strategy="nonsense"), "Invalid"),
        (policy(adminToken="x"), "Invalid"),
        (policy(ejectAfter="often"), "Invalid"),
        (policy(strategy={"name": "least-work"}), "Invalid"),
        (policy(strategy=["least-work"]), "Invalid"),
    ],
)
def test_what_cannot_be_so_is_told_and_changes_nothing(written: Json, reason: str) -> None:
    found = planned(world(routes=[route()], policies=[written]))
    assert accepted(found) == ("False", reason)
    assert not found.clusters["shop/web:8080"].overrides


def test_of_two_the_older_counts() -> None:
    two = [policy("new", created="2", retries=1), policy("old", created="1", retries=5)]
    found = planned(world(routes=[route()], policies=two))
    assert dict(found.clusters["shop/web:8080"].overrides) == {"retries": 5}
    assert accepted(found, "old") == ("True", "Accepted")
    assert accepted(found, "new") == ("False", "Conflicted")


def for_a_route(name: str = "route", group: str = "gateway.networking.k8s.io", **settings: Any) -> Any:
    spec = {"targetRefs": [{"group": group, "kind": "HTTPRoute", "name": name}], **settings}
    return {"metadata": metadata("for-a-route"), "spec": spec}


def test_a_policy_for_a_route_is_for_its_requests_alone_and_wins() -> None:
    policies = [policy(strategy="least-connections", retries=1), for_a_route(retries=5)]
    found = planned(world(routes=[route(), route(name="other")], policies=policies))
    assert dict(found.clusters["shop/web:8080"].overrides) == {"strategy": "least-connections", "retries": 1}
    own = found.clusters["shop/web:8080@shop/route"]
    assert dict(own.overrides) == {"strategy": "least-connections", "retries": 5}
    assert accepted(found, "for-a-route") == ("True", "Accepted")
    assert accepted(planned(world(policies=[for_a_route()])), "for-a-route") == ("False", "TargetNotFound")
    wrong = planned(world(routes=[route()], policies=[for_a_route(group="")]))
    assert accepted(wrong, "for-a-route") == ("False", "Invalid")


def test_a_policy_that_comes_or_goes_makes_its_route_anew() -> None:
    memory = Memory()
    for policies, cluster in (([], "shop/web:8080"), ([for_a_route(retries=5)], "shop/web:8080@shop/route")):
        for _ in range(2):
            found = plan(world(routes=[route()], policies=policies), context(), memory)
            assert set(found.clusters) == {cluster}


def test_the_schema_and_the_settings_are_one() -> None:
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert len(schema) == len(FIELDS) + 1
    defaults = {row.field: row.default for row in table() if row.field in FIELDS}
    assert set(defaults) == set(FIELDS)
    assert dict(parsed({"ejectMaxShare": 0.25, "retryStatuses": "503,504"})) == {
        "eject_max_share": 0.25,
        "retry_statuses": frozenset({503, 504}),
    }
