"""Kubernetes itself accepts what is rendered: by its schemas (kubeconform), and by a server's dry run."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

CUSTOM = "HTTPRoute,GatewayClass,CustomResourceDefinition,ServiceMonitor,PrometheusRule"
"""Kinds whose schemas their own projects have."""

EVERYTHING = {
    "imagePullSecrets": [{"name": "registry"}],
    "commonLabels": {"team": "edge"},
    "commonAnnotations": {"owner": "me"},
    "balancer": {
        "settings": {"adminToken": "secret", "strategy": "m:C", "trustedProxies": ["10.0.0.0/8"]},
        "tls": {"secretName": "cert"},
        "adminTls": {"secretName": "admin-cert"},
        "env": [{"name": "PYTHONPATH", "value": "/strategies"}],
        "extraVolumes": [{"name": "strategies", "configMap": {"name": "strategies"}}],
        "extraVolumeMounts": [{"name": "strategies", "mountPath": "/strategies"}],
        "service": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "nodePort": 30080},
        "autoscaling": {"enabled": True, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}},
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "nodeSelector": {"disk": "ssd"},
        "affinity": {"podAntiAffinity": {}},
    },
    "pi": {"autoscaling": {"enabled": True}, "settings": {"cache": True}},
    "networkPolicy": {
        "enabled": True,
        "clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "extraEgress": [{"ports": [{"port": 4318}]}],
    },
    "ingress": {"enabled": True, "className": "nginx", "tls": [{"secretName": "cert", "hosts": ["lb.example.com"]}]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["lb.example.com"]},
    "metrics": {
        "serviceMonitor": {"enabled": True, "interval": "10s", "tlsConfig": {"serverName": "lb"}},
        "prometheusRule": {"enabled": True},
        "grafanaDashboard": {"enabled": True},
    },
}

CASES = {
    "defaults": {},
    "everything": EVERYTHING,
    "own service": {
        "pi": {"enabled": False},
        "backend": {"service": "shop", "port": 80},
        "networkPolicy": {"enabled": True},
    },
    "static": {
        "pi": {"enabled": False},
        "balancer": {"settings": {"discovery": "static", "backends": "a:80"}},
        "networkPolicy": {"enabled": True},
    },
    "tcp": {"balancer": {"settings": {"mode": "tcp"}}, "ingress": {"enabled": True}},
    "gateways": {
        "pi": {"enabled": False},
        "gateway": {"enabled": True, "ingressClass": "lb"},
        "networkPolicy": {"enabled": True},
    },
}

cases = pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())


@pytest.fixture(scope="session")
def kubeconform(program: Any) -> Any:
    """Validate manifests strictly. Raises AssertionError with what is wrong with them."""
    schemas = os.environ.get("KUBECONFORM_SCHEMAS")
    if not schemas:
        pytest.skip("KUBECONFORM_SCHEMAS does not say where Kubernetes' schemas are")
    command = [program("kubeconform"), "-strict", "-summary", "-skip", CUSTOM, "-schema-location", schemas, "-"]

    def run(manifests: Any) -> None:
        done = subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def test_the_manifests_are_valid_by_kubernetes_schemas(render: Any, kubeconform: Any) -> None:
    kubeconform("\n---\n".join(render(values=values).text for values in CASES.values()))


def test_a_field_that_kubernetes_does_not_know_is_noticed(render: Any, kubeconform: Any) -> None:
    """Or the test above would prove nothing."""
    with pytest.raises(AssertionError, match="additional properties 'replcas' not allowed"):
        kubeconform(render().text.replace("replicas: 2", "replcas: 2"))


@cases
def test_a_server_accepts_the_manifests(render: Any, kubectl: Any, cluster: Any, values: Any) -> None:
    known = [found for found in render(values=values).resources if found["kind"] not in CUSTOM.split(",")]
    said = kubectl("apply", "--dry-run=server", "--validate=strict", "--filename", "-", stdin=yaml.safe_dump_all(known))
    assert said.count("(server dry run)") == len(known)


@pytest.fixture(scope="session")
def restricted(kubectl: Any, cluster: None) -> Iterator[str]:
    """The name of a namespace that refuses pods which violate the restricted Pod Security Standard."""
    name = f"lb-restricted-{uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
    try:
        for found in (namespace, account):
            kubectl("apply", "--filename", "-", stdin=json.dumps(found))
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@cases
def test_pods_pass_the_restricted_pod_security_standard(
    render: Any, kubectl: Any, restricted: str, values: Any
) -> None:
    pods = []
    for number, found in enumerate(render(values=values).resources):
        if found["kind"] in {"Deployment", "Pod"}:
            # The API server refuses pods, and would accept a Deployment that can never have any.
            spec = found["spec"]["template"]["spec"] if found["kind"] == "Deployment" else found["spec"]
            metadata = {"name": f"pod-{number}", "namespace": restricted}
            pods.append(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": metadata,
                    "spec": spec | {"serviceAccountName": "default"},
                }
            )
    said = kubectl("apply", "--dry-run=server", "--filename", "-", stdin=yaml.safe_dump_all(pods))
    assert said.count("(server dry run)") == len(pods)


@cases
def test_helm_lint_finds_nothing(helm: Any, tmp_path: Path, values: Any) -> None:
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    assert "0 chart(s) failed" in helm("lint", "--strict", "charts/lb", "--values", str(file))


def test_the_chart_can_be_packaged_and_installed_from_the_package(helm: Any, tmp_path: Path) -> None:
    said = helm("package", "charts/lb", "--destination", str(tmp_path))
    package = re.search(r"saved it to: (.*)", said)
    assert package
    assert "kind: Deployment" in helm("template", "lb", package[1])
