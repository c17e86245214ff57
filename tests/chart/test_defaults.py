"""`helm install lb charts/lb`, without a value."""

from __future__ import annotations

import json
from typing import Any

import pytest


def test_balancer_and_pi_are_installed_under_the_release_name(render: Any) -> None:
    rendered = render()
    assert set(rendered.all("Deployment")) == {"lb", "lb-pi"}
    assert {"lb", "lb-pi"} <= set(rendered.all("Service"))
    assert rendered.one("Deployment", "lb")["spec"]["replicas"] == 2
    assert rendered.one("Deployment", "lb-pi")["spec"]["replicas"] == 3


@pytest.mark.parametrize(("release", "name"), [("lb", "lb"), ("my-lb", "my-lb"), ("shop", "shop-lb")])
def test_another_release_name_gives_names_of_its_own(render: Any, release: str, name: str) -> None:
    rendered = render(release=release)
    assert set(rendered.all("Deployment")) == {name, f"{name}-pi"}
    assert rendered.env(name)["LB_KUBERNETES_SERVICE"] == f"{name}-pi"


def test_two_releases_in_one_namespace_share_no_resource_and_no_pod(render: Any) -> None:
    first, second = render(release="one"), render(release="two")
    names = [{(r["kind"], r["metadata"]["name"]) for r in rendered.resources} for rendered in (first, second)]
    assert not names[0] & names[1]
    selectors = [
        rendered.one("Service", f"{name}-lb")["spec"]["selector"]
        for rendered, name in ((first, "one"), (second, "two"))
    ]
    assert selectors[0] != selectors[1]


def test_the_longest_release_name_still_gives_valid_names(render: Any) -> None:
    rendered = render(release="a" * 53)
    assert max(len(resource["metadata"]["name"]) for resource in rendered.resources) <= 63


@pytest.mark.parametrize(("service", "component"), [("lb", "balancer"), ("lb-pi", "pi"), ("lb-admin", "balancer")])
def test_each_service_selects_the_pods_of_its_component_alone(render: Any, service: str, component: str) -> None:
    rendered = render()
    selector = rendered.one("Service", service)["spec"]["selector"]
    selected = [
        deployment["metadata"]["name"]
        for deployment in rendered.all("Deployment").values()
        if selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert selected == ["lb-pi" if component == "pi" else "lb"]
    assert selector["app.kubernetes.io/component"] == component
    assert not selector.items() <= rendered.one("Pod", "lb-test")["metadata"]["labels"].items()


def test_clients_use_port_8080_and_never_see_the_admin_port(render: Any) -> None:
    service = render().one("Service", "lb")
    assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [(8080, "http")]


def test_probes_ask_the_ports_that_the_containers_open(render: Any) -> None:
    rendered = render()
    for name, port in {"lb": 8081, "lb-pi": 8000}.items():
        container = rendered.container(name)
        ports = {item["name"]: item["containerPort"] for item in container["ports"]}
        for probe, path in {"readinessProbe": "/readyz", "livenessProbe": "/healthz"}.items():
            assert container[probe]["httpGet"]["path"] == path
            assert ports[container[probe]["httpGet"]["port"]] == port


def test_the_admin_port_listens_where_probes_reach_it(render: Any) -> None:
    assert render().env()["LB_ADMIN_HOST"] == "0.0.0.0"


def test_the_balancer_may_read_endpointslices_of_its_namespace_and_nothing_else(render: Any) -> None:
    rendered = render(namespace="shop")
    assert not rendered.all("ClusterRole")
    (role,) = rendered.all("Role").values()
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["services"], "resourceNames": ["lb-pi"], "verbs": ["get"]},
    ]
    (binding,) = rendered.all("RoleBinding").values()
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "lb", "namespace": "shop"}]


def test_only_the_balancer_gets_a_token(render: Any) -> None:
    rendered = render()
    assert rendered.pod("lb")["automountServiceAccountToken"] is True
    assert rendered.pod("lb-pi")["automountServiceAccountToken"] is False
    assert rendered.one("Pod", "lb-test")["spec"]["automountServiceAccountToken"] is False
    assert all(account["automountServiceAccountToken"] is False for account in rendered.all("ServiceAccount").values())


def pods(rendered: Any) -> Any:
    return [rendered.pod("lb"), rendered.pod("lb-pi"), rendered.one("Pod", "lb-test")["spec"]]


def test_no_pod_gets_variables_for_services(render: Any) -> None:
    assert all(pod["enableServiceLinks"] is False for pod in pods(render()))


def test_every_pod_is_restricted(render: Any) -> None:
    for pod in pods(render()):
        assert pod["securityContext"]["runAsNonRoot"] is True
        # The kubelet cannot tell whether a user without a number is root.
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_every_container_requests_cpu_and_memory(render: Any) -> None:
    for pod in pods(render()):
        for container in pod["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


def test_a_rollout_starts_a_pod_before_it_stops_one(render: Any) -> None:
    for deployment in render().all("Deployment").values():
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_processes_drain_by_themselves(render: Any) -> None:
    rendered = render()
    for name, prefix in {"lb": "LB", "lb-pi": "PI"}.items():
        assert rendered.env(name)[f"{prefix}_DRAIN_DELAY"] == "5"
        assert rendered.env(name)[f"{prefix}_DRAIN_TIMEOUT"] == "30"
        assert rendered.pod(name)["terminationGracePeriodSeconds"] == 5 + 30 + 5
        assert "lifecycle" not in rendered.container(name)


def test_a_node_drain_takes_one_pod_at_a_time(render: Any) -> None:
    rendered = render()
    for name in ("lb", "lb-pi"):
        budget = rendered.one("PodDisruptionBudget", name)["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"] == rendered.one("Deployment", name)["spec"]["selector"]["matchLabels"]


def test_pods_spread_over_nodes_and_zones(render: Any) -> None:
    rendered = render()
    for name in ("lb", "lb-pi"):
        constraints = rendered.pod(name)["topologySpreadConstraints"]
        assert {item["topologyKey"] for item in constraints} == {
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        }
        labels = rendered.one("Deployment", name)["spec"]["selector"]["matchLabels"]
        assert all(item["labelSelector"]["matchLabels"] == labels for item in constraints)


def test_only_what_every_cluster_has_is_installed(render: Any) -> None:
    kinds = {resource["kind"] for resource in render().resources}
    assert kinds == {"Deployment", "Service", "ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget", "Pod"}


def test_images_are_those_that_make_images_builds(render: Any) -> None:
    rendered = render()
    version = rendered.one("Deployment")["metadata"]["labels"]["app.kubernetes.io/version"]
    assert rendered.container("lb")["image"] == f"lb-balancer:{version}"
    assert rendered.container("lb-pi")["image"] == f"lb-pi:{version}"
    assert {rendered.container(name)["imagePullPolicy"] for name in ("lb", "lb-pi")} == {"IfNotPresent"}


def test_a_new_chart_version_alone_replaces_no_pod(render: Any) -> None:
    for deployment in render().all("Deployment").values():
        assert "helm.sh/chart" in deployment["metadata"]["labels"]
        assert "helm.sh/chart" not in deployment["spec"]["template"]["metadata"]["labels"]


def test_nothing_is_left_for_a_template_to_fill(render: Any) -> None:
    assert "<no value>" not in json.dumps(render().resources)
