"""Settings as values of the chart: `balancer.settings.ejectAfter` is LB_EJECT_AFTER."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from balancer.settings import table
from pi.settings import Settings as PiSettings

MADE_BY_THE_CHART = {
    "kubernetes_service",
    "kubernetes_port",
    "kubernetes_namespace",
    "admin_token",
    "gateway_class",
    "ingress_class",
}


def camel_case(name: str) -> Any:
    return re.sub(r"_(.)", lambda match: match[1].upper(), name)


def plain_value(schema: Any) -> Any:
    """Some value that a setting's schema allows, as a person would write it."""
    if "anyOf" in schema:
        return plain_value(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema["type"][0] if isinstance(schema["type"], list) else schema["type"]
    return {"integer": 1, "number": 1, "boolean": True}.get(kind, "x")


def test_every_setting_of_the_balancer_can_be_given(render: Any) -> None:
    rows = [row for row in table() if row.field not in MADE_BY_THE_CHART]
    fixed = {"strategy": "m:C", "hash_key": "path", "cost_key": "path:/*", "health_path": "/", "admin_host": "::"}
    given = {row.field: fixed.get(row.field, plain_value(row.schema)) for row in rows}
    env = render(values={"balancer": {"settings": {camel_case(name): value for name, value in given.items()}}}).env()
    assert {row.variable: env.get(row.variable) for row in rows} == {
        row.variable: str(given[row.field]) for row in rows
    }


def test_every_setting_of_the_pi_service_can_be_given(render: Any) -> None:
    given: dict[str, Any] = {name: 1 for name in PiSettings.model_fields if name not in {"host", "name", "cache"}}
    given |= {"host": "::", "name": "x", "cache": "on"}
    env = render(values={"pi": {"settings": {camel_case(name): value for name, value in given.items()}}}).env("lb-pi")
    assert env == {f"PI_{name.upper()}": str(value) for name, value in given.items()}


@pytest.mark.parametrize(
    ("argument", "variable", "value"),
    [
        ("strategy=least-connections", "LB_STRATEGY", "least-connections"),
        ("ejectAfter=0", "LB_EJECT_AFTER", "0"),
        ("ejectMaxShare=0.25", "LB_EJECT_MAX_SHARE", "0.25"),
        ("maxConnections=1000000", "LB_MAX_CONNECTIONS", "1000000"),
        ("maxBodyBytes=100000000", "LB_MAX_BODY_BYTES", "100000000"),
        ("maxBodyBytes=1GiB", "LB_MAX_BODY_BYTES", "1GiB"),
        ("maxBodyBytes=none", "LB_MAX_BODY_BYTES", "none"),
        ("accessLog=off", "LB_ACCESS_LOG", "off"),
        ("upstreamProxyProtocol=off", "LB_UPSTREAM_PROXY_PROTOCOL", "off"),
        ("retryStatuses={502,503}", "LB_RETRY_STATUSES", "502,503"),
        ("retryStatuses=503", "LB_RETRY_STATUSES", "503"),
        ("tlsCert=/etc/cert.pem", "LB_TLS_CERT", "/etc/cert.pem"),
        ("preferZone=zone-a", "LB_PREFER_ZONE", "zone-a"),
    ],
)
def test_a_setting_on_the_command_line(render: Any, argument: str, variable: str, value: str) -> None:
    assert render("--set", f"balancer.settings.{argument}").env()[variable] == value


@pytest.mark.parametrize(
    ("text", "variable", "value"),
    [
        ("accessLog: off", "LB_ACCESS_LOG", "off"),
        ("accessLog: on", "LB_ACCESS_LOG", "on"),
        ("upstreamProxyProtocol: off", "LB_UPSTREAM_PROXY_PROTOCOL", "off"),
        ("maxBodyBytes: 100000000", "LB_MAX_BODY_BYTES", "100000000"),
        ("drainDelay: 2.5", "LB_DRAIN_DELAY", "2.5"),
        ('host: ["0.0.0.0", "::"]', "LB_HOST", "0.0.0.0,::"),
        ('adminHost: ["0.0.0.0", "::"]', "LB_ADMIN_HOST", "0.0.0.0,::"),
        ("trustedProxies: [10.0.0.0/8, fd00::/8]", "LB_TRUSTED_PROXIES", "10.0.0.0/8,fd00::/8"),
    ],
)
def test_a_setting_in_a_file(render: Any, tmp_path: Path, text: str, variable: str, value: str) -> None:
    """YAML makes false of `off`, and 1e+08 of a large number."""
    file = tmp_path / "values.yaml"
    file.write_text(f"balancer: {{settings: {{{text}}}}}")
    assert render("--values", str(file)).env()[variable] == value


def test_pi_takes_a_list_of_hosts_too(render: Any) -> None:
    assert render(values={"pi": {"settings": {"host": ["0.0.0.0", "::"]}}}).env("lb-pi")["PI_HOST"] == "0.0.0.0,::"


def test_null_gives_back_the_programs_own_default(render: Any) -> None:
    rendered = render("--set", "balancer.settings.drainTimeout=null", "--set", "balancer.settings.adminHost=null")
    assert "LB_DRAIN_TIMEOUT" not in rendered.env()
    assert "LB_ADMIN_HOST" not in rendered.env()
    assert rendered.pod()["terminationGracePeriodSeconds"] == 5 + 30 + 5


@pytest.mark.parametrize(
    ("delay", "timeout", "grace"), [(5, 30, 40), (0, 0, 5), (10, 120, 135), (0.5, 1.2, 7), ("2.5", "2.5", 10)]
)
def test_the_grace_period_covers_the_drain(render: Any, delay: Any, timeout: Any, grace: int) -> None:
    settings = {"drainDelay": delay, "drainTimeout": timeout}
    rendered = render(values={"balancer": {"settings": settings}, "pi": {"settings": settings}})
    assert rendered.pod("lb")["terminationGracePeriodSeconds"] == grace
    assert rendered.pod("lb-pi")["terminationGracePeriodSeconds"] == grace


def test_ports_follow_the_settings(render: Any) -> None:
    rendered = render(
        values={"balancer": {"settings": {"port": 80, "adminPort": 90}}, "pi": {"settings": {"port": 70}}}
    )
    assert [port["containerPort"] for port in rendered.container("lb")["ports"]] == [80, 90]
    assert [port["containerPort"] for port in rendered.container("lb-pi")["ports"]] == [70]
    assert [port["port"] for port in rendered.one("Service")["spec"]["ports"]] == [8080]


def test_tcp_mode_names_the_port_so(render: Any) -> None:
    rendered = render("--set", "balancer.settings.mode=tcp")
    assert rendered.container()["ports"][0]["name"] == "tcp"
    (port,) = rendered.one("Service")["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("tcp", "tcp")


# What helm says when it refuses, which a person reads without this chart at hand.


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("balancer.settings.ejectAftr=3", "at '/balancer/settings': additional properties 'ejectAftr' not allowed"),
        ("balancer.replcas=3", "at '/balancer': additional properties 'replcas' not allowed"),
        ("balncer.replicas=3", "at '': additional properties 'balncer' not allowed"),
        ("pi.settings.digits=3", "at '/pi/settings': additional properties 'digits' not allowed"),
        ("balancer.settings.drainDelay=-1", "at '/balancer/settings/drainDelay': minimum: got -1, want 0"),
        ("balancer.replicas=two", "at '/balancer/replicas': got string, want integer"),
        ("balancer.settings.logLevel=loud", "value must be one of 'debug', 'info', 'warning', 'error'"),
        ("balancer.image.digest=abc", "at '/balancer/image/digest': 'abc' does not match pattern"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(refusal: Any, argument: str, sentence: str) -> None:
    assert sentence in refusal("--set", argument)


@pytest.mark.parametrize("strategy", ["fastest", "Round-Robin", ""])
def test_an_unknown_strategy_is_refused_with_the_list_of_names(refusal: Any, strategy: str) -> None:
    said = refusal("--set", f"balancer.settings.strategy={strategy}")
    least = ["least-connections", "least-response-time", "least-work"]
    names = ["n-to-one", "round-robin", *least, "random-of-two", "consistent-hash"]
    names.append("primary-backup")
    assert (
        f"at '/balancer/settings/strategy': value must be one of {', '.join(map(repr, [*names, 'module:Class']))}"
        in said
    )
    assert len(said.strip().splitlines()) == 3, "one line for the fault"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"pi": {"enabled": False}}, "set backend.service to the name of a Service"),
        ({"backend": {"service": "shop"}}, "add pi.enabled=false"),
        ({"backend": {"namespace": "shop"}}, "add pi.enabled=false and backend.service"),
        ({"balancer": {"settings": {"discovery": "static"}}}, "set balancer.settings.backends"),
        ({"balancer": {"settings": {"discovery": "dns"}}}, "set balancer.settings.dnsName"),
        ({"balancer": {"settings": {"kubernetesService": "shop"}}}, "give it as backend.service"),
        (
            {"balancer": {"settings": {"adminToken": "x"}, "adminTokenSecret": {"name": "y"}}},
            "are both set: choose one",
        ),
        ({"httpRoute": {"enabled": True}}, "set httpRoute.parentRefs"),
    ],
)
def test_values_that_contradict_each_other_are_refused_in_a_sentence(refusal: Any, values: Any, sentence: str) -> None:
    assert sentence in refusal(values=values)


def test_all_contradictions_are_told_at_once(refusal: Any) -> None:
    said = refusal(values={"pi": {"enabled": False}, "httpRoute": {"enabled": True}})
    assert "backend.service" in said
    assert "httpRoute.parentRefs" in said
