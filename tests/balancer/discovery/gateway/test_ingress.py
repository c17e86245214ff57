"""Ingresses as people have them for ingress-nginx, and what becomes of them here."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import yaml
from tests.balancer.discovery.gateway.cluster import context, gateway, planned, secret, service, world

from balancer.discovery.gateway.ingress import ingress
from balancer.discovery.gateway.ingress_annotations import ANNOTATIONS
from balancer.discovery.gateway.ingress_check import check
from balancer.discovery.gateway.plan import plan
from balancer.discovery.gateway.result import Plan
from balancer.routing.match import RouteRequest
from balancer.routing.rule import Rule

SHOP = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: shop
  creationTimestamp: "2026-01-01T00:00:00Z"
  annotations:
    nginx.ingress.kubernetes.io/proxy-body-size: 8m
    nginx.ingress.kubernetes.io/proxy-read-timeout: "30"
spec:
  ingressClassName: lb
  defaultBackend:
    service: {name: web, port: {number: 8080}}
  tls:
    - hosts: [shop.example.com]
      secretName: cert
  rules:
    - host: shop.example.com
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 8080}}}}
          - {path: /api, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}}
          - {path: /login, pathType: Exact, backend: {service: {name: api, port: {name: http}}}}
    - host: plain.example.com
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 8080}}}}
"""


def described(text: str = SHOP, name: str = "", **annotations: str) -> dict[str, Any]:
    """An Ingress with more annotations: underscores for hyphens."""
    item: dict[str, Any] = yaml.safe_load(text)
    if name:
        item["metadata"]["name"] = name
    given = {f"nginx.ingress.kubernetes.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    item["metadata"]["annotations"] = {**item["metadata"].get("annotations", {}), **given}
    return item


def simple(path: str = "/", path_type: str = "Prefix", backend: str = "web", **annotations: str) -> dict[str, Any]:
    """An Ingress of one path, for every host."""
    to = {"service": {"name": backend, "port": {"number": 8080}}}
    item = {
        "metadata": {"name": f"one-{backend}", "namespace": "shop", "annotations": {}},
        "spec": {
            "ingressClassName": "lb",
            "rules": [{"http": {"paths": [{"path": path, "pathType": path_type, "backend": to}]}}],
        },
    }
    return described(yaml.safe_dump(item), **annotations)


def served(*items: Any) -> Plan:
    api = service("api", ports=[{"port": 8080, "name": "http"}])
    return planned(world(gateways=[], ingresses=list(items), services=[service(), api], secrets=[secret()]))


def site(plan: Plan, port: int = 80) -> Any:
    return next(each for each in plan.ports.values() if each.port == port).site


def asked(plan: Plan, host: str, path: str, port: int = 80, **headers: str) -> Rule:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    rule = site(plan, port).route(RouteRequest(host.encode(), path.encode(), headers=fields))
    assert isinstance(rule, Rule)
    return rule


def clusters(rule: Rule) -> list[str]:
    return [each.cluster for each in rule.backends]


def test_paths_hosts_and_the_default_backend() -> None:
    plan = served(described())
    assert clusters(asked(plan, "shop.example.com", "/x", 443)) == ["shop/web:8080"]
    assert clusters(asked(plan, "shop.example.com", "/api/v1", 443)) == ["shop/api:8080"]
    assert clusters(asked(plan, "shop.example.com", "/apis", 443)) == ["shop/web:8080"]
    assert clusters(asked(plan, "shop.example.com", "/login", 443)) == ["shop/api:8080"]
    assert clusters(asked(plan, "shop.example.com", "/login/x", 443)) == ["shop/web:8080"]
    assert clusters(asked(plan, "other.example.com", "/anything", 443)) == ["shop/web:8080"]
    assert set(plan.clusters) == {"shop/web:8080", "shop/api:8080"}


def test_a_host_with_a_certificate_is_sent_to_https_and_one_without_is_not() -> None:
    plan = served(described())
    to = asked(plan, "shop.example.com", "/x").redirect
    assert to is not None
    assert to.status == 308
    assert to.location(b"http", b"shop.example.com", 80, b"/x", b"y=1") == b"https://shop.example.com/x?y=1"
    assert asked(plan, "plain.example.com", "/x").redirect is None
    secure = next(each for each in plan.ports.values() if each.port == 443)
    assert secure.tls
    assert [(host, each[0].meta.name) for host, each in secure.certificates] == [("shop.example.com", "cert")]
    assert asked(served(described(ssl_redirect="false")), "shop.example.com", "/x").redirect is None
    assert asked(served(described(force_ssl_redirect="true")), "plain.example.com", "/x").redirect is not None


def test_its_status_says_the_address_of_its_service() -> None:
    plan = served(described())
    (write,) = [each for each in plan.statuses if each.kind == "Ingress"]
    assert write.status == {"loadBalancer": {"ingress": [{"ip": "10.96.0.10"}]}}


def test_ingresses_of_another_class_and_gateways_are_left_alone() -> None:
    item = described()
    item["spec"]["ingressClassName"] = "nginx"
    plan = planned(world(gateways=[gateway()], ingresses=[item]))
    assert "shop/web:8080" not in plan.clusters
    assert not [each for each in plan.statuses if each.kind == "Ingress"]


def test_limits_of_size_time_and_address() -> None:
    rule = asked(served(described(whitelist_source_range="10.0.0.0/8, 192.0.2.7")), "plain.example.com", "/")
    assert rule.limits is not None
    assert rule.limits.max_body == 8 << 20
    assert rule.backend_timeout == 30.0
    clients = ("10.1.2.3", "192.0.2.7", "192.0.2.8", "::1", "")
    assert [rule.limits.lets_in(client) for client in clients] == [True, True, False, False, False]
    rule = asked(served(described(denylist_source_range="10.0.0.0/8")), "plain.example.com", "/")
    assert rule.limits is not None
    assert [rule.limits.lets_in(client) for client in ("10.1.2.3", "192.0.2.7")] == [False, True]


@pytest.mark.parametrize(
    ("path", "target", "request_path", "becomes"),
    [
        ("/app(/|$)(.*)", "/$2", "/app/x/y", "/x/y"),
        ("/app(/|$)(.*)", "/$2", "/app", "/"),
        ("/app(/|$)(.*)", "/$2", "/APP/x", "/x"),
        ("/old/([0-9]+)", "/new/$1/end", "/old/17/ignored", "/new/17/end"),
        ("/app", "/", "/app/x", "/"),
    ],
)
def test_a_path_is_rewritten_as_ingress_nginx_does(path: str, target: str, request_path: str, becomes: str) -> None:
    kind = "ImplementationSpecific"
    plan = served(simple(path, kind, use_regex=str("(" in path).lower(), rewrite_target=target))
    rule = asked(plan, "any", request_path)
    assert rule.path is not None
    assert rule.path.applied(request_path.encode()) == becomes.encode()


def test_a_pattern_that_could_hold_up_all_requests_is_not_served() -> None:
    plan = served(simple("/(a+)+", "ImplementationSpecific", use_regex="true"))
    assert not asked(plan, "any", "/(a+)+").backends
    (line,) = [each for each in check(ingress(simple("/(a+)+", use_regex="true"))) if "(a+)+" in each.subject]
    assert line.verdict == "refused"


def test_a_canary_takes_its_share_by_weight() -> None:
    plan = served(simple(), simple(backend="api", canary="true", canary_weight="20"))
    rule = asked(plan, "any", "/")
    turns = Counter(backend.cluster for _ in range(1000) if (backend := rule.choose()) is not None)
    assert abs(turns["shop/api:8080"] - 200) <= 2
    assert turns.total() == 1000


def test_a_canary_is_chosen_by_header_and_cookie() -> None:
    canary = simple(backend="api", canary="true", canary_by_header="X-Canary", canary_by_cookie="try")
    plan = served(simple(), canary)
    assert clusters(asked(plan, "any", "/")) == ["shop/web:8080"]
    assert clusters(asked(plan, "any", "/", x_canary="always")) == ["shop/api:8080"]
    assert clusters(asked(plan, "any", "/", x_canary="maybe")) == ["shop/web:8080"]
    assert clusters(asked(plan, "any", "/", cookie="a=b; try=always")) == ["shop/api:8080"]
    assert clusters(asked(plan, "any", "/", cookie="retry=always")) == ["shop/web:8080"]
    assert clusters(asked(plan, "any", "/", x_canary="never", cookie="try=always")) == ["shop/web:8080"]
    by_value = simple(backend="api", canary="true", canary_by_header="X-Team", canary_by_header_value="blue")
    assert clusters(asked(served(simple(), by_value), "any", "/", x_team="blue")) == ["shop/api:8080"]


def test_affinity_chooses_by_a_cookie_of_ours() -> None:
    plan = served(simple(affinity="cookie", session_cookie_name="route", session_cookie_max_age="60"))
    rule = asked(plan, "any", "/")
    assert rule.affinity is not None
    assert (rule.affinity.cookie, rule.affinity.attributes) == ("route", "; Path=/; Max-Age=60; HttpOnly")
    overrides = dict(plan.clusters["shop/web:8080@one-web"].overrides)
    assert overrides == {"strategy": "consistent-hash", "hash_key": "cookie:route"}


def test_grpc_pods_and_the_time_to_connect_are_settings_of_the_cluster() -> None:
    plan = served(simple(backend_protocol="GRPC", proxy_connect_timeout="3"))
    overrides = dict(plan.clusters["shop/web:8080@one-web"].overrides)
    assert overrides == {"upstream_protocol": "h2c", "connect_timeout": 3.0}


@pytest.mark.parametrize(
    "annotations",
    [
        {"auth_url": "http://auth/"},
        {"configuration_snippet": "deny all;"},
        {"whitelist_source_range": "everybody"},
        {"never_heard_of": "1"},
        {"backend_protocol": "HTTPS"},
    ],
)
def test_what_we_do_not_have_lets_nobody_in(annotations: dict[str, str]) -> None:
    assert not asked(served(simple(**annotations)), "any", "/").backends
    lines = check(ingress(simple(**annotations)))
    assert [each.verdict for each in lines if each.subject.startswith(next(iter(annotations)).replace("_", "-"))] == [
        "refused"
    ]


def test_redirects_of_a_whole_ingress() -> None:
    to = asked(served(simple(permanent_redirect="https://new.example.com/x")), "any", "/").redirect
    assert to is not None
    assert to.status == 301
    assert to.location(b"http", b"any", 80, b"/", b"") == b"https://new.example.com/x"
    plan = served(simple(app_root="/start"))
    to = asked(plan, "any", "/").redirect
    assert to is not None
    assert to.location(b"http", b"any", 80, b"/", b"") == b"http://any/start"
    assert asked(plan, "any", "/start").redirect is None


def test_a_change_of_an_annotation_is_taken_and_nothing_else_made_anew() -> None:
    from tests.balancer.discovery.gateway.cluster import context

    from balancer.discovery.gateway.memory import Memory
    from balancer.discovery.gateway.plan import plan

    memory = Memory()
    before = plan(world(gateways=[], ingresses=[described(), simple(backend="api")]), context("lb"), memory)
    known = memory.ingresses["shop", "one-api"]
    plan(world(gateways=[], ingresses=[described(ssl_redirect="false"), simple(backend="api")]), context("lb"), memory)
    assert memory.ingresses["shop", "one-api"] is known
    plan(world(gateways=[], ingresses=[]), context("lb"), memory)
    assert not memory.ingresses
    assert not memory.tables
    assert before.services


def test_every_annotation_has_a_verdict_that_says_something() -> None:
    assert all(words for verdict, words in ANNOTATIONS.values() if verdict != "same")
    said = check(ingress(described(proxy_buffering="off", enable_cors="false", affinity="cookie")))
    verdicts = {each.subject.split("=")[0]: each.verdict for each in said}
    assert verdicts["proxy-buffering"] == "ignored"
    assert verdicts["enable-cors"] == "same"
    assert verdicts["affinity"] == "differs"
    assert verdicts["proxy-body-size"] == "same"
    assert all(re.match(r"(same|differs|ignored|refused) +\S", str(each)) for each in said)


def test_the_status_of_an_ingress_is_written_where_it_says_something_else_and_no_more() -> None:
    def written(status: Any) -> list[Any]:
        found = plan(world(gateways=[], ingresses=[{**simple(), "status": status}]), context("lb"))
        return [each.status for each in found.statuses if each.kind == "Ingress"]

    # There is no address yet. The API leaves an empty list out.
    assert written({"loadBalancer": {}}) == []
    assert written({}) == []
    assert written({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}) == [{"loadBalancer": {"ingress": None}}]
