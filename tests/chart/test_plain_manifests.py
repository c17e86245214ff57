"""k8s/: what `kubectl apply -k k8s` applies, and the cluster for kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def built(kubectl: Any) -> Any:
    return [found for found in yaml.safe_load_all(kubectl("kustomize", "k8s")) if found]


def without_helm(resource: Any) -> Any:
    """A resource of the chart without the traces of Helm."""
    labels = resource["metadata"]["labels"]
    del labels["helm.sh/chart"], labels["app.kubernetes.io/managed-by"]
    return resource


def test_they_are_what_helm_installs_by_default(kubectl: Any, render: Any) -> None:
    """All of it but the test, down to the namespace."""
    by_name = {(found["kind"], found["metadata"]["name"]): found for found in built(kubectl)}
    chart = [without_helm(found) for found in render().resources if found["kind"] != "Pod"]
    assert by_name == {(found["kind"], found["metadata"]["name"]): found for found in chart}


def test_nothing_tells_of_helm(kubectl: Any) -> None:
    assert "helm" not in kubectl("kustomize", "k8s").lower()


def test_a_server_accepts_them(kubectl: Any, cluster: Any) -> None:
    said = kubectl("apply", "--kustomize", "k8s", "--dry-run=server", "--validate=strict")
    assert said.count("(server dry run)") == len(built(kubectl))


def test_kind_takes_no_port_of_the_host() -> None:
    cluster = yaml.safe_load((ROOT / "k8s" / "kind.yaml").read_text())
    assert cluster["kind"] == "Cluster"
    assert not any("extraPortMappings" in node for node in cluster["nodes"])
    assert "apiServerPort" not in cluster.get("networking", {})
