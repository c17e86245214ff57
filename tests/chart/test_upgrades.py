"""What an upgrade does to what runs already, by Helm 3 and by Helm 4, which applies on the server. Needs KUBECONFIG.

No pod starts: they ask for a node that is not there. Helm 4 is the program `helm4` on the PATH, or of `make helm4`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from tests.chart.conftest import CHART

NOWHERE = ("--set", "balancer.nodeSelector.nowhere=yes", "--set", "pi.nodeSelector.nowhere=yes")


class Release:
    """One release of the chart, in a namespace of its own."""

    def __init__(self, helm: Callable[..., str], kubectl: Callable[..., str], namespace: str) -> None:
        self._helm = helm
        self.kubectl = partial(kubectl, "--namespace", namespace)
        self._namespace = namespace

    def upgrade(self, *sets: str) -> None:
        values = [part for each in sets for part in ("--set", each)]
        self._helm("upgrade", "--install", "lb", str(CHART), "--namespace", self._namespace, *NOWHERE, *values)

    def replicas(self, deployment: str) -> int:
        found: int = json.loads(self.kubectl("get", "deployment", deployment, "-o", "json"))["spec"]["replicas"]
        return found

    def pod(self, deployment: str) -> dict[str, Any]:
        found = json.loads(self.kubectl("get", "deployment", deployment, "-o", "json"))
        pod: dict[str, Any] = found["spec"]["template"]["spec"]
        return pod


@pytest.fixture
def release(either_helm: Callable[..., str], kubectl: Callable[..., str], cluster: None) -> Iterator[Release]:
    namespace = f"lb-chart-{uuid4().hex[:8]}"
    kubectl("create", "namespace", namespace)
    kubectl("--namespace", namespace, "wait", "configmap/kube-root-ca.crt", "--for=create", "--timeout=30s")
    try:
        yield Release(either_helm, kubectl, namespace)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def test_the_autoscaler_finds_what_runs_or_its_minimum(release: Release) -> None:
    release.upgrade("pi.replicas=5")
    autoscaled = [
        f"{component}.autoscaling.{value}"
        for component in ("balancer", "pi")
        for value in ("enabled=true", "minReplicas=3")
    ]
    release.upgrade("pi.replicas=5", *autoscaled)
    assert (release.replicas("lb"), release.replicas("lb-pi")) == (3, 5)
    release.kubectl("scale", "deployment/lb", "--replicas=7")  # as the autoscaler does
    release.upgrade("pi.replicas=5", *autoscaled, "balancer.settings.ejectAfter=7")
    assert (release.replicas("lb"), release.replicas("lb-pi")) == (7, 5)


def test_a_first_install_with_the_autoscaler_has_its_minimum(release: Release) -> None:
    release.upgrade("balancer.autoscaling.enabled=true", "balancer.autoscaling.minReplicas=4")
    assert release.replicas("lb") == 4


def test_what_was_scaled_by_hand_stays_until_the_value_changes(release: Release) -> None:
    release.upgrade()
    assert (release.replicas("lb"), release.replicas("lb-pi")) == (2, 3)
    release.kubectl("scale", "deployment/lb-pi", "--replicas=6")
    release.upgrade("balancer.settings.ejectAfter=7")
    assert release.replicas("lb-pi") == 6
    release.upgrade("balancer.replicas=4")
    assert (release.replicas("lb"), release.replicas("lb-pi")) == (4, 6)


def test_openshift_chooses_the_users_where_they_are_null(release: Release) -> None:
    nulls = [
        f"{component}.podSecurityContext.{field}=null"
        for component in ("balancer", "pi")
        for field in ("runAsUser", "runAsGroup", "fsGroup")
    ]
    release.upgrade()
    release.upgrade(*nulls)
    for deployment in ("lb", "lb-pi"):
        context = release.pod(deployment)["securityContext"]
        assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
