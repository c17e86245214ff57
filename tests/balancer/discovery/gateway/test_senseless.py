"""Objects that make no sense, though the API takes them: whatever they say, all others are served."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.balancer.discovery.gateway.cluster import context, metadata, planned, route, service, world

from balancer.discovery.gateway.ingress_annotations import ANNOTATIONS, PREFIX
from balancer.discovery.gateway.plan import plan
from balancer.discovery.gateway.policies import FIELDS, camel_case
from balancer.routing.match import RouteRequest

TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        "true",
        "false",
        "cookie",
        "/a\\",
        "/(a",
        "/$1",
        "http://[x",
        "http://x:99999",
        "9" * 5000,
        "\u0661",
        "-1",
        "1e9",
        "é b",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=3,
)

WHOLE_ROUTE = """
hostnames: [a.example.com]
rules:
  - name: first
    matches:
      - path: {type: RegularExpression, value: /a.*}
        method: GET
        headers: [{name: x, value: y, type: RegularExpression}]
        queryParams: [{name: x, value: y}]
    filters:
      - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], remove: [c]}}
      - {type: URLRewrite, urlRewrite: {hostname: b, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
      - type: RequestMirror
        requestMirror: {backendRef: {name: web, port: 8080}, fraction: {numerator: 1, denominator: 2}}
      - {type: CORS, cors: {allowOrigins: ["*"], maxAge: 5}}
    backendRefs:
      - {name: web, port: 8080, weight: 1, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {}}]}
    timeouts: {request: 1s, backendRequest: 500ms}
    retry: {codes: [500], attempts: 1, backoff: 1s}
  - filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]
"""


def ingress(path: str, annotations: dict[str, str], name: str = "odd") -> dict[str, Any]:
    backend = {"service": {"name": "web", "port": {"number": 8080}}}
    paths = [{"path": path, "pathType": "ImplementationSpecific", "backend": backend}]
    return {
        "metadata": metadata(name, annotations={f"{PREFIX}{key}": value for key, value in annotations.items()}),
        "spec": {"ingressClassName": "lb", "rules": [{"host": f"{name}.example.com", "http": {"paths": paths}}]},
    }


def places(item: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value in it."""
    inner = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    found: list[tuple[Any, ...]] = []
    for key, value in inner:
        found += [(*way, key), *places(value, (*way, key))]
    return found


def changed(item: Any, place: tuple[Any, ...], value: Any) -> Any:
    item = copy.deepcopy(item)
    inner = item
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return item


@pytest.mark.parametrize(
    ("path", "annotations"),
    [
        ("/a\\", {"use-regex": "true"}),
        ("/a", {"affinity": "cookie", "session-cookie-path": "/é b"}),
        ("/a", {"enable-cors": "true", "cors-max-age": "9" * 5000}),
    ],
)
def test_an_ingress_that_makes_no_sense_hides_no_other(path: str, annotations: dict[str, str]) -> None:
    found = planned(world(ingresses=[ingress(path, annotations), ingress("/", {}, "good")]))
    (port,) = (each for each in found.ports.values() if "ingress" in each.gateway)
    assert port.site.route(RouteRequest(b"good.example.com", b"/")) is not None


@settings(max_examples=150, deadline=None)
@given(TEXTS.map("/{}".format), st.dictionaries(st.sampled_from(sorted(ANNOTATIONS)), TEXTS, max_size=4))
def test_no_ingress_breaks_a_plan(path: str, annotations: dict[str, str]) -> None:
    plan(world(ingresses=[ingress(path, annotations), ingress("/", {}, "good")]), context("lb"))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([camel_case(each) for each in FIELDS]), ANYTHING, max_size=2))
def test_no_policy_breaks_a_plan(given_settings: dict[str, Any]) -> None:
    spec = {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}], **given_settings}
    there = world(routes=[route()], policies=[{"metadata": metadata("odd"), "spec": spec}])
    assert plan(there, context()).routes == 1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_route_breaks_a_plan(data: st.DataObject) -> None:
    spec = yaml.safe_load(WHOLE_ROUTE)["rules"]
    place = data.draw(st.sampled_from(places(spec)))
    rules = changed(spec, place, data.draw(ANYTHING))
    there = world(routes=[route(name="good"), route(*rules, name="odd")], services=[service()])
    found = planned(there)
    (port,) = found.ports.values()
    rule = port.site.route(RouteRequest(b"", b"/"))
    assert rule is not None
    assert found.routes == 2
