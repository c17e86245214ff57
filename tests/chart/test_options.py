"""What a user may switch on or change, each seen in what is rendered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.chart.conftest import Refused

OWN_SERVICE = {"pi": {"enabled": False}, "backend": {"service": "shop", "port": 80, "namespace": "shop"}}


def test_a_service_of_ones_own_is_balanced_without_pi(render: Any) -> None:
    rendered = render(values=OWN_SERVICE)
    assert set(rendered.all("Deployment")) == {"lb"}
    env = rendered.env()
    assert (env["LB_KUBERNETES_SERVICE"], env["LB_KUBERNETES_NAMESPACE"], env["LB_KUBERNETES_PORT"]) == (
        "shop",
        "shop",
        "80",
    )
    assert not [
        found for found in rendered.resources if found["metadata"]["labels"]["app.kubernetes.io/component"] == "pi"
    ]


def test_the_role_goes_to_the_backends_namespace(render: Any) -> None:
    rendered = render(values=OWN_SERVICE, namespace="edge")
    (role,) = rendered.all("Role").values()
    (binding,) = rendered.all("RoleBinding").values()
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "shop"
    assert binding["subjects"][0]["namespace"] == "edge"
    assert rendered.one("Deployment")["metadata"]["namespace"] == "edge"


def test_releases_of_one_name_in_two_namespaces_have_roles_of_their_own_there(render: Any) -> None:
    names = [set(render(values=OWN_SERVICE, namespace=namespace).all("Role")) for namespace in ("edge", "inner")]
    assert not names[0] & names[1]


def test_the_port_may_be_left_to_the_slices(render: Any) -> None:
    rendered = render(values={"pi": {"enabled": False}, "backend": {"service": "shop"}})
    assert "LB_KUBERNETES_PORT" not in rendered.env()


@pytest.mark.parametrize(
    "settings", [{"discovery": "static", "backends": "a:80,b:80"}, {"discovery": "dns", "dnsName": "shop.example"}]
)
def test_other_discoveries_need_neither_role_nor_token(render: Any, settings: Any) -> None:
    rendered = render(values={"pi": {"enabled": False}, "balancer": {"settings": settings}})
    assert not rendered.all("Role")
    assert rendered.pod()["automountServiceAccountToken"] is False
    assert not [name for name in rendered.env() if name.startswith("LB_KUBERNETES")]


def test_a_role_made_by_others(render: Any) -> None:
    rendered = render("--set", "rbac.create=false", "--set", "balancer.serviceAccount.create=false")
    assert not rendered.all("Role")
    assert not rendered.all("RoleBinding")
    assert rendered.pod()["serviceAccountName"] == "default"
    assert render("--set", "balancer.serviceAccount.name=edge").pod()["serviceAccountName"] == "edge"


def test_a_strategy_of_ones_own_from_a_configmap(render: Any) -> None:
    rendered = render(
        values={
            "balancer": {
                "settings": {"strategy": "my_strategy:MyStrategy"},
                "env": [{"name": "PYTHONPATH", "value": "/strategies"}],
                "extraVolumes": [{"name": "strategies", "configMap": {"name": "strategies"}}],
                "extraVolumeMounts": [{"name": "strategies", "mountPath": "/strategies"}],
            }
        }
    )
    assert rendered.env()["LB_STRATEGY"] == "my_strategy:MyStrategy"
    assert rendered.env()["PYTHONPATH"] == "/strategies"
    assert {"name": "strategies", "configMap": {"name": "strategies"}} in rendered.pod()["volumes"]
    assert {"name": "strategies", "mountPath": "/strategies"} in rendered.container()["volumeMounts"]
    assert {"name": "tmp", "mountPath": "/tmp"} in rendered.container()["volumeMounts"]


def test_the_admin_token_as_a_value_lies_in_a_secret_alone(render: Any) -> None:
    rendered = render("--set", "balancer.settings.adminToken=hunter2")
    assert rendered.env()["LB_ADMIN_TOKEN"] == {"secretKeyRef": {"name": "lb-admin", "key": "token"}}
    assert rendered.one("Secret", "lb-admin")["data"] == {"token": "aHVudGVyMg=="}
    assert "hunter2" not in rendered.text


def test_a_new_admin_token_replaces_the_pods(render: Any) -> None:
    def annotations(token: Any) -> Any:
        return render("--set", f"balancer.settings.adminToken={token}").one("Deployment")["spec"]["template"][
            "metadata"
        ]["annotations"]

    assert annotations("one") != annotations("two")


def test_the_admin_token_from_a_secret_that_is_there(render: Any) -> None:
    rendered = render("--set", "balancer.adminTokenSecret.name=tokens", "--set", "balancer.adminTokenSecret.key=lb")
    assert rendered.env()["LB_ADMIN_TOKEN"] == {"secretKeyRef": {"name": "tokens", "key": "lb"}}
    assert not rendered.all("Secret")


def test_tls_from_a_secret(render: Any) -> None:
    rendered = render("--set", "balancer.tls.secretName=cert")
    (mount,) = [mount for mount in rendered.container()["volumeMounts"] if mount["name"] == "tls"]
    assert rendered.env()["LB_TLS_CERT"] == f"{mount['mountPath']}/tls.crt"
    assert rendered.env()["LB_TLS_KEY"] == f"{mount['mountPath']}/tls.key"
    assert {"name": "tls", "secret": {"secretName": "cert"}} in rendered.pod()["volumes"]
    assert rendered.one("Pod", "lb-test")["spec"]["containers"][0]["args"][0] == "https://lb:8080"


def test_tls_of_the_admin_port_from_a_secret(render: Any) -> None:
    values: dict[str, Any] = {
        "balancer": {"adminTls": {"secretName": "cert"}, "tls": {"secretName": "for-clients"}},
        "peers": {"enabled": True},
        "metrics": {"serviceMonitor": {"enabled": True}},
    }
    rendered = render(values=values)
    (mount,) = [mount for mount in rendered.container()["volumeMounts"] if mount["name"] == "admin-tls"]
    assert rendered.env()["LB_ADMIN_TLS_CERT"] == f"{mount['mountPath']}/tls.crt"
    assert rendered.env()["LB_ADMIN_TLS_KEY"] == f"{mount['mountPath']}/tls.key"
    assert {"name": "admin-tls", "secret": {"secretName": "cert"}} in rendered.pod()["volumes"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert rendered.container()[probe]["httpGet"]["scheme"] == "HTTPS"
        assert "scheme" not in rendered.container("lb-pi")[probe]["httpGet"]
        assert "scheme" not in render().container()[probe]["httpGet"]
    (scraped,) = rendered.one("ServiceMonitor")["spec"]["endpoints"]
    assert (scraped["scheme"], scraped["tlsConfig"]) == ("https", {"insecureSkipVerify": True})
    values["metrics"]["serviceMonitor"]["tlsConfig"] = {"serverName": "lb.test"}
    (scraped,) = render(values=values).one("ServiceMonitor")["spec"]["endpoints"]
    assert scraped["tlsConfig"] == {"serverName": "lb.test"}


def test_the_admin_ports_certificate_by_hand_or_from_a_secret_but_not_both(render: Any) -> None:
    by_hand = ["--set", "balancer.settings.adminTlsCert=/a/tls.crt,balancer.settings.adminTlsKey=/a/tls.key"]
    assert render(*by_hand).container()["livenessProbe"]["httpGet"]["scheme"] == "HTTPS"
    with pytest.raises(Refused, match=r"balancer\.adminTls\.secretName and .* are both set"):
        render(*by_hand, "--set", "balancer.adminTls.secretName=cert")


@pytest.mark.parametrize("component", ["balancer", "pi"])
def test_images_from_a_registry_pinned_by_digest(render: Any, component: str) -> None:
    digest = "sha256:" + "0" * 64
    name = {"balancer": "lb", "pi": "lb-pi"}[component]
    rendered = render(
        values={
            "imageRegistry": "registry.example.com/team/",
            "imagePullSecrets": [{"name": "registry"}],
            component: {"image": {"tag": "1.2", "digest": digest, "pullPolicy": "Always"}},
        }
    )
    assert rendered.container(name)["image"] == f"registry.example.com/team/lb-{component}:1.2@{digest}"
    assert rendered.container(name)["imagePullPolicy"] == "Always"
    assert rendered.pod(name)["imagePullSecrets"] == [{"name": "registry"}]
    assert rendered.one("Pod", "lb-test")["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_labels_and_annotations_for_everything(render: Any) -> None:
    rendered = render(values={"commonLabels": {"team": "edge"}, "commonAnnotations": {"owner": "me"}})
    for found in rendered.resources:
        assert found["metadata"]["labels"]["team"] == "edge"
        assert found["metadata"]["annotations"]["owner"] == "me"
    for name in ("lb", "lb-pi"):
        template = rendered.one("Deployment", name)["spec"]["template"]["metadata"]
        assert template["labels"]["team"] == "edge"
        assert template["annotations"]["owner"] == "me"
        assert "team" not in rendered.one("Deployment", name)["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize("component", ["balancer", "pi"])
def test_labels_and_annotations_for_one_component(render: Any, component: str) -> None:
    values = {"podLabels": {"a": "1"}, "podAnnotations": {"b": "2"}, "deploymentAnnotations": {"c": "3"}}
    rendered = render(values={component: values | {"service": {"annotations": {"d": "4"}}}})
    name = {"balancer": "lb", "pi": "lb-pi"}[component]
    deployment = rendered.one("Deployment", name)
    assert deployment["spec"]["template"]["metadata"]["labels"]["a"] == "1"
    assert deployment["spec"]["template"]["metadata"]["annotations"]["b"] == "2"
    assert deployment["metadata"]["annotations"]["c"] == "3"
    assert rendered.one("Service", name)["metadata"]["annotations"]["d"] == "4"


@pytest.mark.parametrize("component", ["balancer", "pi"])
def test_where_pods_run(render: Any, component: str) -> None:
    values = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "topologySpreadConstraints": [
            {
                "maxSkew": 2,
                "topologyKey": "rack",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"a": "b"}},
            }
        ],
    }
    pod = render(values={component: values}).pod({"balancer": "lb", "pi": "lb-pi"}[component])
    assert {name: pod[name] for name in values} == values


@pytest.mark.parametrize("component", ["balancer", "pi"])
def test_autoscaling_takes_the_number_of_pods_over(render: Any, component: str) -> None:
    name = {"balancer": "lb", "pi": "lb-pi"}[component]
    rendered = render(values={component: {"autoscaling": {"enabled": True, "minReplicas": 4, "maxReplicas": 8}}})
    scaler = rendered.one("HorizontalPodAutoscaler", name)["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (4, 8)
    assert "replicas" not in rendered.one("Deployment", name)["spec"]
    assert set(rendered.all("HorizontalPodAutoscaler")) == {name}


def test_disruption_budgets_can_be_left_out(render: Any) -> None:
    rendered = render(
        "--set", "balancer.podDisruptionBudget.enabled=false", "--set", "pi.podDisruptionBudget.enabled=false"
    )
    assert not rendered.all("PodDisruptionBudget")


def test_a_load_balancer_with_the_clients_address(render: Any) -> None:
    service = {
        "type": "LoadBalancer",
        "port": 80,
        "nodePort": 30080,
        "externalTrafficPolicy": "Local",
        "loadBalancerClass": "metal",
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "ipFamilyPolicy": "PreferDualStack",
    }
    rendered = render(values={"balancer": {"service": service}})
    spec = rendered.one("Service")["spec"]
    (port,) = spec["ports"]
    assert spec | {"port": port["port"], "nodePort": port["nodePort"]} == spec | service
    assert rendered.one("Pod", "lb-test")["spec"]["containers"][0]["args"][0] == "http://lb:80"


def test_the_service_says_what_its_port_speaks(render: Any) -> None:
    """An Ingress controller or a mesh in front looks there to speak HTTP/2 (gRPC) to the balancer."""

    def said(*arguments: str) -> Any:
        return render(*arguments).one("Service")["spec"]["ports"][0].get("appProtocol")

    assert said() is None
    assert said("--set", "balancer.service.appProtocol=kubernetes.io/h2c") == "kubernetes.io/h2c"


def test_an_ingress(render: Any) -> None:
    hosts = [{"host": "a.example", "paths": ["/", "/pi"]}, {"host": "b.example"}]
    tls = [{"secretName": "cert", "hosts": ["a.example"]}]
    values = {"enabled": True, "className": "nginx", "hosts": hosts, "tls": tls, "annotations": {"x": "y"}}
    ingress = render(values={"ingress": values}).one("Ingress")
    assert ingress["metadata"]["annotations"] == {"x": "y"}
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == tls
    rules = {rule["host"]: rule["http"]["paths"] for rule in ingress["spec"]["rules"]}
    assert {host: [path["path"] for path in paths] for host, paths in rules.items()} == {
        "a.example": ["/", "/pi"],
        "b.example": ["/"],
    }
    assert rules["b.example"][0]["backend"] == {"service": {"name": "lb", "port": {"name": "http"}}}


def test_an_httproute(render: Any) -> None:
    values = {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["a.example"]}
    spec = render(values={"httpRoute": values}).one("HTTPRoute")["spec"]
    assert spec["parentRefs"] == [{"name": "gateway"}]
    assert spec["hostnames"] == ["a.example"]
    assert spec["rules"] == [
        {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": [{"name": "lb", "port": 8080}]}
    ]


def peers(rule: Any) -> Any:
    return [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]]


def test_a_network_policy_lets_the_balancer_reach_what_it_needs(render: Any) -> None:
    rendered = render("--set", "networkPolicy.enabled=true", "--set", "pi.settings.port=9000")
    policy = rendered.one("NetworkPolicy", "lb")["spec"]
    assert policy["podSelector"]["matchLabels"] == rendered.one("Service")["spec"]["selector"]
    ports = {(port["port"], port.get("protocol", "TCP")) for rule in policy["egress"] for port in rule.get("ports", ())}
    assert ports == {(53, "UDP"), (53, "TCP"), (443, "TCP"), (6443, "TCP"), (8443, "TCP")}
    (backends,) = [rule for rule in policy["egress"] if "to" in rule]
    assert backends["to"] == [{"podSelector": {"matchLabels": rendered.one("Service", "lb-pi")["spec"]["selector"]}}]
    clients, admin = policy["ingress"]
    assert clients == {"ports": [{"port": 8080}]}, "every client"
    assert admin == {"ports": [{"port": 8081}], "from": [{"podSelector": {}}]}, "the namespace's pods"


def test_a_network_policy_lets_only_the_balancer_reach_pi(render: Any) -> None:
    rendered = render("--set", "networkPolicy.enabled=true", "--set", "pi.settings.port=9000")
    policy = rendered.one("NetworkPolicy", "lb-pi")["spec"]
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"port": 9000}]
    assert peers(rule) == ["balancer"]
    assert policy["egress"] == []


def test_a_network_policy_with_chosen_clients_still_lets_the_test_in(render: Any) -> None:
    client = {"namespaceSelector": {"matchLabels": {"edge": "true"}}}
    rendered = render(values={"networkPolicy": {"enabled": True, "clients": [client], "monitoring": [client]}})
    clients, admin = rendered.one("NetworkPolicy", "lb")["spec"]["ingress"]
    assert clients["from"][0] == client
    assert (
        clients["from"][1]["podSelector"]["matchLabels"].items()
        <= rendered.one("Pod", "lb-test")["metadata"]["labels"].items()
    )
    assert admin["from"] == [client]


def test_the_network_policy_lets_the_balancer_reach_endpoints_that_are_no_pods_of_the_namespace(render: Any) -> None:
    nodes = {"ipBlock": {"cidr": "10.0.0.0/16"}}
    values = OWN_SERVICE | {"networkPolicy": {"enabled": True, "endpoints": [nodes]}}
    egress = render(values=values).one("NetworkPolicy", "lb")["spec"]["egress"]
    (to,) = [rule["to"] for rule in egress if "to" in rule]
    assert nodes in to
    assert len(to) == 2, "and the pods of its namespace"


def test_a_network_policy_in_front_of_ones_own_service(render: Any) -> None:
    policy = render(values=OWN_SERVICE | {"networkPolicy": {"enabled": True}}).one("NetworkPolicy", "lb")["spec"]
    (backends,) = [rule for rule in policy["egress"] if "to" in rule]
    assert backends["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}]


def test_a_replaced_command_and_environment(render: Any) -> None:
    values = {
        "command": ["a"],
        "args": ["b"],
        "envFrom": [{"secretRef": {"name": "c"}}],
        "env": [{"name": "D", "value": "e"}],
    }
    rendered = render(values={"balancer": values, "pi": values})
    for name in ("lb", "lb-pi"):
        container = rendered.container(name)
        assert (container["command"], container["args"]) == (["a"], ["b"])
        assert container["envFrom"] == [{"secretRef": {"name": "c"}}]
        assert rendered.env(name)["D"] == "e"


@pytest.mark.parametrize("value", ["nameOverride=edge", "fullnameOverride=edge"])
def test_other_names(render: Any, value: str) -> None:
    name = {"nameOverride": "lb-edge", "fullnameOverride": "edge"}[value.split("=")[0]]
    assert set(render("--set", value).all("Deployment")) == {name, f"{name}-pi"}


@pytest.mark.parametrize(
    ("values", "release", "namespace", "command"),
    [
        ({}, "lb", "default", "kubectl port-forward svc/lb 8080:8080"),
        ({}, "lb", "edge", "kubectl -n edge port-forward svc/lb 8080:8080"),
        ({"balancer": {"service": {"port": 80}}}, "shop", "default", "kubectl port-forward svc/shop-lb 8080:80"),
    ],
)
@pytest.mark.skipif(
    "KUBECONFIG" not in os.environ, reason="helm asks a cluster even for a dry run, and KUBECONFIG names none"
)
def test_the_notes_give_the_next_command(
    helm: Any, tmp_path: Path, values: Any, release: str, namespace: str, command: str
) -> None:
    import json

    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    said = helm("install", release, "charts/lb", "--dry-run=client", "--namespace", namespace, "--values", str(file))
    notes = said.partition("NOTES:")[2]
    assert command in notes
    assert f"helm upgrade {release} charts/lb" in notes


def rights(rendered: Any, kind: str) -> dict[str, set[str]]:
    """Verbs by resource of the only role of a kind, beside the one for LB_DISCOVERY."""
    (role,) = [found for name, found in rendered.all(kind).items() if "gateway" in name]
    return {resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}


def test_without_gateways_there_are_no_rights_in_the_whole_cluster(render: Any) -> None:
    rendered = render()
    assert not rendered.all("ClusterRole")
    assert not rendered.all("GatewayClass")
    assert "LB_GATEWAY_CLASS" not in rendered.env()


def test_gateways_get_a_class_and_the_rights_to_read_what_they_refer_to(render: Any) -> None:
    rendered = render("--set", "gateway.enabled=true,gateway.className=edge", namespace="lb")
    assert rendered.env()["LB_GATEWAY_CLASS"] == "edge"
    assert rendered.env()["LB_OWN_SERVICE"] == "lb"
    assert rendered.one("GatewayClass", "edge")["spec"]["controllerName"] == "lb/edge"
    wide = rights(rendered, "ClusterRole")
    read = {"get", "list", "watch"}
    for resource in (
        "gateways",
        "httproutes",
        "referencegrants",
        "services",
        "endpointslices",
        "namespaces",
        "secrets",
        "configmaps",
        "backendtlspolicies",
        "listenersets",
        "tlsroutes",
        "tcproutes",
    ):
        assert wide[resource] == read
    written = (
        "gateways",
        "listenersets",
        "httproutes",
        "gatewayclasses",
        "loadbalancingpolicies",
        "backendtlspolicies",
        "tlsroutes",
        "tcproutes",
    )
    for kind in written:
        assert wide[f"{kind}/status"] == {"patch"}
    here = rights(rendered, "Role")
    assert here == {"services": {"create", "patch", "delete"}, "leases": {"get", "create", "update"}}
    (binding,) = rendered.all("ClusterRoleBinding").values()
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "lb", "namespace": "lb"}]


def test_ingresses_are_served_where_their_class_is_named(render: Any) -> None:
    rendered = render("--set", "gateway.enabled=true")
    assert "ingresses" not in rights(rendered, "ClusterRole")
    rendered = render("--set", "gateway.enabled=true,gateway.ingressClass=edge")
    assert rendered.env()["LB_INGRESS_CLASS"] == "edge"
    assert rendered.one("IngressClass", "edge")["spec"]["controller"] == "lb/edge"
    wide = rights(rendered, "ClusterRole")
    assert (wide["ingresses"], wide["ingresses/status"]) == ({"get", "list", "watch"}, {"patch"})


def test_gateways_need_http(refusal: Any) -> None:
    assert "Gateways need http" in refusal("--set", "gateway.enabled=true,balancer.settings.mode=tcp")
