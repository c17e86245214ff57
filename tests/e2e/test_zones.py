"""`preferZone=auto` on a real cluster: the control plane's own hints and internalTrafficPolicy decide who gets traffic.

An endpoint that is nowhere stands for one in another zone, or on another node: a single connection to it would fail.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from tests.e2e.conftest import run, until
from tests.e2e.test_changes import EXTRA_SLICE, endpoints

pytestmark = pytest.mark.timeout(420)

ZONE = "topology.kubernetes.io/zone"
SLICES = ("get", "endpointslices", "-l", "kubernetes.io/service-name=lb-pi", "-o", "json")
AWAY = "192.0.2.1:8000"


@pytest.fixture
def node() -> Iterator[str]:
    """The cluster's only node, in zone `west` for as long as the test takes."""
    nodes = json.loads(run("kubectl", "get", "nodes", "-o", "json"))["items"]
    if len(nodes) != 1:
        pytest.skip("the test gives the node a zone: not where there are several")
    name = nodes[0]["metadata"]["name"]
    before = nodes[0]["metadata"]["labels"].get(ZONE)
    run("kubectl", "label", "node", name, f"{ZONE}=west", "--overwrite")
    yield name
    run("kubectl", "label", "node", name, f"{ZONE}={before}" if before else f"{ZONE}-", "--overwrite")


@contextmanager
def service(cluster: Any, **spec: str) -> Iterator[None]:
    """The Pi service with these fields in its specification, and one more endpoint that is `east` and elsewhere."""
    patch = ("patch", "service", "lb-pi", "--type=merge", "--patch")
    hints = {"forZones": [{"name": "east"}]}
    endpoint = {"addresses": ["192.0.2.1"], "conditions": {"ready": True}, "zone": "east", "nodeName": "elsewhere"}
    extra = {**EXTRA_SLICE, "endpoints": [{**endpoint, "hints": hints}]}
    cluster.kubectl(*patch, json.dumps({"spec": spec}))
    try:
        yield cluster.kubectl("apply", "-f", "-", stdin=json.dumps(extra))
    finally:
        cluster.kubectl("delete", "endpointslice", "lb-pi-extra", "--ignore-not-found")
        cluster.kubectl(*patch, json.dumps({"spec": dict.fromkeys(spec)}))


def hinted(cluster: Any) -> bool:
    """Whether the control plane has given every endpoint a hint."""
    listed = [each for slice_ in json.loads(cluster.kubectl(*SLICES))["items"] for each in slice_["endpoints"] or ()]
    return bool(listed) and all(each.get("hints") for each in listed)


def attempts(cluster: Any, pod: str) -> dict[str, Any]:
    """What a balancer has tried at the endpoint that is nowhere; {} while it does not know of it."""
    found = [each for each in endpoints(cluster, pod) if each["address"] == AWAY]
    return {"opened": found[0]["connections"]["opened"], "failed": found[0]["failed"]} if found else {}


def test_hints_of_the_service_keep_traffic_in_the_zone(cluster: Any, load: Any, node: str) -> None:
    cluster.helm("balancer.settings.preferZone=auto")
    with load.case("preferZone=auto: hints"):
        cluster.kubectl(
            "patch", "service", "lb-pi", "--type=merge", "-p", '{"spec":{"trafficDistribution":"PreferClose"}}'
        )
        until(lambda: hinted(cluster), "hints of zones in the slice")
        with service(cluster, trafficDistribution="PreferClose"):
            pods = cluster.names("balancer")
            for pod in pods:
                until(partial(attempts, cluster, pod), "requests through each pod")
            load.recent(300)
            told = {pod: attempts(cluster, pod) for pod in pods}
        assert all(each == {"opened": 0, "failed": {}} for each in told.values()), told


def test_a_local_service_is_served_by_the_own_node(cluster: Any, load: Any, node: str) -> None:
    cluster.helm("balancer.settings.preferZone=auto")
    with load.case("preferZone=auto: internalTrafficPolicy Local"):
        cluster.kubectl("patch", "service", "lb-pi", "--type=merge", "-p", '{"spec":{"internalTrafficPolicy":"Local"}}')
        cluster.kubectl("rollout", "restart", "deployment/lb")
        cluster.rolled("lb")  # the policy is looked at with each watch; a start looks at once
        with service(cluster, internalTrafficPolicy="Local"):
            load.recent(300)
            told = {pod: attempts(cluster, pod) for pod in cluster.names("balancer")}
        assert all(not each or each == {"opened": 0, "failed": {}} for each in told.values()), told
