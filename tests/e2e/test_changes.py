"""What changes in a cluster while clients ask: planned changes lose nothing, accidents nothing that a retry can hide.

The cases run in this order on one release; each begins and ends with all of its pods ready.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from tests.e2e.conftest import ROOT, until

pytestmark = pytest.mark.timeout(420)

DIES_WITH_ITS_CLIENTS = "the balancer that clients are connected to dies: nobody is left to retry"
STRATEGIES = [
    "least-connections",
    "least-response-time",
    "least-work",
    "random-of-two",
    "consistent-hash",
    "n-to-one",
    "round-robin",
]


def test_install(cluster: Any, load: Any) -> None:
    cluster.helm()
    with load.case("install"):
        time.sleep(3)
    assert len(cluster.names("balancer")) == 2
    assert len(cluster.names("pi")) == 3
    assert set(load.rows[-1].served) == set(cluster.names("pi"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategy_by_helm_upgrade(cluster: Any, load: Any, strategy: str) -> None:
    with load.case(f"strategy {strategy}"):
        cluster.helm(f"balancer.settings.strategy={strategy}")
    for pod in cluster.names("balancer"):
        assert cluster.admin(pod, "/api/strategy")["strategy"] == strategy
    served = load.recent()
    most = max(served.values()) / served.total()
    if strategy == "n-to-one":
        assert most == 1, served
    elif strategy == "consistent-hash":
        assert most > 0.8, f"one client, one endpoint but for what is too much for it: {served}"
    else:
        assert len(served) == 3, served


def test_scale_pi_from_1_to_10_to_2(cluster: Any, load: Any) -> None:
    cluster.kubectl("scale", "deployment/lb-pi", "--replicas=1")
    cluster.rolled("lb-pi")
    with load.case("scale Pi 1 → 10 → 2"):
        cluster.kubectl("scale", "deployment/lb-pi", "--replicas=10")
        cluster.rolled("lb-pi")
        assert len(load.recent()) >= 8
        cluster.kubectl("scale", "deployment/lb-pi", "--replicas=2")
        cluster.rolled("lb-pi")
    assert len(load.recent()) == 2


def test_restart_of_pi(cluster: Any, load: Any) -> None:
    with load.case("rollout restart of Pi"):
        cluster.kubectl("rollout", "restart", "deployment/lb-pi")
        cluster.rolled("lb-pi")


def test_restart_of_the_balancer(cluster: Any, load: Any) -> None:
    with load.case("rollout restart of the balancer"):
        cluster.kubectl("rollout", "restart", "deployment/lb")
        cluster.rolled("lb")


@pytest.mark.timeout(1200)
def test_twenty_restarts_of_the_balancer(cluster: Any, load: Any) -> None:
    """Back to back: the pods of one restart still drain while those of the next come."""
    with load.case("twenty rollout restarts of the balancer"):
        for _ in range(int(os.environ.get("LB_E2E_RESTARTS", "20"))):
            cluster.kubectl("rollout", "restart", "deployment/lb")
            cluster.kubectl("rollout", "status", "deployment/lb", "--timeout=180s")
        cluster.settled()


@pytest.mark.parametrize("wrong", ["LB_KUBERNETES_PORT=htpp", "LB_KUBERNETES_SERVICE=lb-py"])
def test_a_wrong_port_or_service_replaces_no_pod(cluster: Any, load: Any, wrong: str) -> None:
    before = set(cluster.names("balancer"))
    words = "no port htpp" if "PORT" in wrong else "lb-py"
    with load.case(f"a rollout with {wrong}"):
        cluster.kubectl("set", "env", "deployment/lb", wrong)
        pod = until(
            lambda: [new for new in cluster.pods("balancer") if new["metadata"]["name"] not in before], "a new pod"
        )
        name = pod[0]["metadata"]["name"]
        until(lambda: words in cluster.kubectl("logs", name), f"{words!r} in the pod's log")
        time.sleep(5)
        assert set(cluster.names("balancer")) == before
        cluster.kubectl("rollout", "undo", "deployment/lb")
        cluster.rolled("lb")


def test_restart_of_both_at_once(cluster: Any, load: Any) -> None:
    with load.case("rollout restart of both at once"):
        cluster.kubectl("rollout", "restart", "deployment/lb", "deployment/lb-pi")
        cluster.rolled("lb", "lb-pi")


def test_a_pi_pod_deleted_without_grace(cluster: Any, load: Any) -> None:
    with load.case("a Pi pod deleted without grace"):
        delete_without_grace(cluster, "pi")
        cluster.settled()


def test_a_balancer_pod_deleted_without_grace(cluster: Any, load: Any) -> None:
    with load.case("a balancer pod deleted without grace", may_fail=DIES_WITH_ITS_CLIENTS):
        delete_without_grace(cluster, "balancer")
        cluster.settled()
    row = load.rows[-1]
    # What was in flight on that pod, and what was sent to it before its end was known: no more than that.
    assert row.failed <= 24, row.failures


def test_pods_deleted_at_random_for_two_minutes(cluster: Any, load: Any) -> None:
    cluster.kubectl("scale", "deployment/lb-pi", "--replicas=3")
    cluster.rolled("lb-pi")
    chance = random.Random(int(os.environ.get("LB_E2E_SEED", "4")))
    with load.case("pods deleted at random for two minutes"):
        end = time.monotonic() + 120
        while time.monotonic() < end:
            component = chance.choice(["balancer", "pi", "pi"])
            ready = sorted(cluster.names(component))
            if len(ready) > 1:
                cluster.kubectl("delete", "pod", chance.choice(ready), "--wait=false")
            time.sleep(chance.uniform(2, 6))
        cluster.settled()


def test_a_pi_pod_that_fails_its_readiness(cluster: Any, load: Any) -> None:
    with load.case("a Pi pod that fails its readiness"), odd_pod(cluster, ready_file=True):
        assert "odd" in load.recent()
        cluster.kubectl("exec", "odd", "--", "rm", "/tmp/ready")
        cluster.kubectl("wait", "pod/odd", "--for=condition=Ready=false", "--timeout=30s")
        assert "odd" not in load.recent()
        cluster.kubectl("exec", "odd", "--", "touch", "/tmp/ready")
        cluster.kubectl("wait", "pod/odd", "--for=condition=Ready", "--timeout=30s")
        assert "odd" in load.recent()


def test_a_pi_pod_that_hangs(cluster: Any, load: Any) -> None:
    values = ("balancer.settings.strategy=least-response-time", "balancer.settings.responseTimeout=2")
    cluster.helm(*values)
    with load.case("a Pi pod that hangs"), odd_pod(cluster, PI_DELAY_MS="600000"):
        time.sleep(15)
        states = {each["address"]: each for pod in cluster.names("balancer") for each in endpoints(cluster, pod)}
        assert len(states) == 4
    assert "odd" not in load.rows[-1].served


def test_a_pi_pod_that_returns_500(cluster: Any, load: Any) -> None:
    """A 500 is the application's own answer: it is passed on, unless the settings call it worth a retry."""
    cluster.helm("balancer.settings.retryStatuses={500,503}")
    with load.case("a Pi pod that returns 500"), odd_pod(cluster, PI_FAIL_RATE="1"):
        time.sleep(15)
    assert "odd" not in load.rows[-1].served


@pytest.mark.skipif(
    not (os.environ.get("LB_E2E_API_STOP") and os.environ.get("LB_E2E_API_START")),
    reason="LB_E2E_API_STOP and LB_E2E_API_START name no commands that stop and start the API server",
)
def test_the_api_server_stopped_for_a_minute(cluster: Any, load: Any) -> None:
    cluster.helm()
    cluster.settled()  # Nobody would learn that a pod which still leaves is gone, kube-proxy neither.
    with load.case("the API server stopped for a minute"):
        command("LB_E2E_API_STOP")
        try:
            time.sleep(60)
        finally:
            command("LB_E2E_API_START")
        pods = until(lambda: cluster.names("balancer"), "the balancers' pods")
        # It follows again. By a slice of our own, since the controllers that write the others wait longer than we.
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(EXTRA_SLICE))
        try:
            for pod in pods:
                until(partial(knows, cluster, pod, EXTRA), "the slice is seen", 120)
                until(partial(discovers, cluster, pod), "discovery has no error")
        finally:
            cluster.kubectl("delete", "endpointslice", "lb-pi-extra")
        until(lambda: not any(knows(cluster, pod, EXTRA) for pod in pods), "the slice is gone")
        cluster.settled()
    for pod in cluster.names("balancer"):
        logged = cluster.kubectl("logs", pod)
        assert "last known endpoints go on serving" in logged


EXTRA = "192.0.2.1:8000"
EXTRA_SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "lb-pi-extra", "labels": {"kubernetes.io/service-name": "lb-pi"}},
    "addressType": "IPv4",
    "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
    # Of a network that is nowhere (RFC 5737), and leaving: listed, and never chosen.
    "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": False, "serving": True, "terminating": True}}],
}


def delete_without_grace(cluster: Any, component: str) -> None:
    """As if its node had lost it: killed, and gone from the API at once."""
    pod = random.choice(cluster.names(component))
    cluster.kubectl("delete", "pod", pod, "--grace-period=0", "--force")


def discovers(cluster: Any, pod: str) -> bool:
    return cluster.admin(pod, "/readyz")["discovery"]["error"] is None


def knows(cluster: Any, pod: str, address: str) -> bool:
    return any(endpoint["address"] == address for endpoint in endpoints(cluster, pod))


def endpoints(cluster: Any, pod: str) -> list[dict[str, Any]]:
    found: Any = cluster.admin(pod, "/api/endpoints")
    return list(found["endpoints"] if isinstance(found, dict) else found)


@contextmanager
def odd_pod(cluster: Any, *, ready_file: bool = False, **environment: str) -> Iterator[None]:
    """One more pod behind the same Service, called `odd`, that behaves as the environment says.

    With `ready_file` it is ready while it has the file /tmp/ready.
    """
    deployment = json.loads(cluster.kubectl("get", "deployment/lb-pi", "-o", "json"))
    template = deployment["spec"]["template"]
    container = template["spec"]["containers"][0]
    container.setdefault("env", []).extend({"name": key, "value": value} for key, value in environment.items())
    container["env"].append({"name": "PI_NAME", "value": "odd"})
    if ready_file:
        container["readinessProbe"] = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    template["spec"].pop("topologySpreadConstraints", None)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "odd", "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    try:
        if ready_file:
            cluster.kubectl("wait", "pod/odd", "--for=jsonpath={.status.phase}=Running", "--timeout=60s")
            until(lambda: cluster.kubectl("exec", "odd", "--", "python", "-c", WORKS), "the odd pod answers")
            cluster.kubectl("exec", "odd", "--", "touch", "/tmp/ready")
        cluster.kubectl("wait", "pod/odd", "--for=condition=Ready", "--timeout=60s")
        yield
    finally:
        cluster.kubectl("delete", "pod", "odd", "--wait")
        cluster.settled()


WORKS = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000/readyz').status)"


def command(variable: str) -> None:
    subprocess.run(shlex.split(os.environ[variable]), check=True, timeout=180, cwd=ROOT)
