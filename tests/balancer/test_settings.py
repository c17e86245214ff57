"""Settings: what a person writes in the environment becomes values, or one readable line for each fault."""

from __future__ import annotations

import contextlib
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from balancer.balancing.endpoint import EndpointSpec
from balancer.balancing.strategies import STRATEGIES
from balancer.settings import (
    Settings,
    SettingsError,
    load,
    parse_backend,
    parse_backends,
    parse_backends_file,
    service_links,
    table,
    value_of,
)
from balancer.settings.table import as_markdown, as_text

NEEDED = {"LB_BACKENDS": "a:1"}


def faults(**environ: str) -> list[str]:
    """What is said of `environ`, which is wrong."""
    with pytest.raises(SettingsError) as raised:
        load(environ)
    return raised.value.faults


def loaded(**environ: str) -> Settings:
    return load(NEEDED | environ)


# Values.


def test_every_default_is_in_force_when_only_backends_are_given() -> None:
    settings = load(NEEDED)
    for row in table():
        if row.field != "backends":
            assert row.kind.show(getattr(settings, row.field)) == row.default


def test_defaults_are_those_of_the_design() -> None:
    settings = load(NEEDED)
    assert (settings.mode, settings.host, settings.port) == ("http", ("0.0.0.0",), 8080)
    assert (settings.admin_host, settings.admin_port, settings.admin_token) == ("127.0.0.1", 8081, None)
    assert (settings.connect_timeout, settings.response_timeout, settings.idle_timeout) == (2, 60, 60)
    assert (settings.max_header_bytes, settings.max_headers, settings.max_uri_bytes) == (65536, 128, 16384)
    assert (settings.retries, settings.retry_budget, settings.retry_statuses) == (2, 0.2, frozenset({503}))
    assert (settings.eject_after, settings.eject_time, settings.eject_max_share) == (5, 10, 0.5)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("LB_PORT", " 9000 ", 9000),
        ("LB_HOST", "127.0.0.1, ::", ("127.0.0.1", "::")),
        ("LB_HOST", "[::1]", ("::1",)),
        ("LB_CONNECT_TIMEOUT", "0.25", 0.25),
        ("LB_MAX_HEADER_BYTES", "1MiB", 1 << 20),
        ("LB_MAX_HEADER_BYTES", "20000", 20000),
        ("LB_MAX_BODY_BYTES", "2 gib", 2 << 30),
        ("LB_MAX_BODY_BYTES", "none", None),
        ("LB_ENDPOINT_MAX_REQUESTS", "7", 7),
        ("LB_ACCESS_LOG", "off", False),
        ("LB_ACCESS_LOG", "true", True),
        ("LB_ENDPOINT_LOAD", "orca", True),
        ("LB_ENDPOINT_LOAD", "on", True),
        ("LB_ENDPOINT_LOAD", "off", False),
        ("LB_TRUSTED_PROXIES", "10.0.0.0/8,::1", (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
        ("LB_RETRY_STATUSES", "502,503", frozenset({502, 503})),
        ("LB_RETRY_STATUSES", "none", frozenset()),
        ("LB_HEALTH_STATUS", "200-299,404", ((200, 299), (404, 404))),
        ("LB_HEALTH_PATH", "tcp", "tcp"),
        ("LB_HEALTH_PATH", "grpc", "grpc"),
        ("LB_HEALTH_PATH", "grpc:my.pkg.Greeter", "grpc:my.pkg.Greeter"),
        ("LB_KUBERNETES_PORT", "8000", 8000),
        ("LB_KUBERNETES_PORT", "http", "http"),
        ("LB_STRATEGY", "my_package.module:MyStrategy", "my_package.module:MyStrategy"),
        ("LB_HASH_KEY", "header:X-User", "header:X-User"),
        ("LB_TOTAL_TIMEOUT", "0", 0.0),
        ("LB_TLS_CERT", "", None),
    ],
)
def test_a_value_is_read_as_the_type_that_the_rest_of_the_code_uses(variable: str, text: str, value: object) -> None:
    settings = loaded(**{variable: text})
    found = getattr(settings, variable.removeprefix("LB_").lower())
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LB_PORT", "70000"),
        ("LB_PORT", "-1"),
        ("LB_PORT", "٣"),
        ("LB_PORT", "1_000"),
        ("LB_CONNECT_TIMEOUT", "0"),
        ("LB_CONNECT_TIMEOUT", "nan"),
        ("LB_CONNECT_TIMEOUT", "5s"),
        ("LB_CONNECT_TIMEOUT", "."),
        ("LB_MAX_HEADER_BYTES", "0"),
        ("LB_MAX_HEADER_BYTES", "64kb"),
        ("LB_ACCESS_LOG", "maybe"),
        ("LB_RETRY_BUDGET", "1.5"),
        ("LB_RETRY_STATUSES", "200"),
        ("LB_HEALTH_STATUS", "299-200"),
        ("LB_HEALTH_STATUS", "none"),
        ("LB_HEALTH_PATH", "health"),
        ("LB_HEALTH_PATH", "grpc:a b"),
        ("LB_HEALTH_PATH", "grpcx"),
        ("LB_HEALTH_PATH", "/a b"),
        ("LB_HASH_KEY", "header:"),
        ("LB_STRATEGY", "fastest"),
        ("LB_STRATEGY", "module:"),
        ("LB_HOST", ","),
        ("LB_HOST", "a b"),
        ("LB_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("LB_KUBERNETES_SERVICE", "Upper"),
        ("LB_KUBERNETES_PORT", "0"),
        ("LB_DNS_PORT", "0"),
        ("LB_ADMIN_TOKEN", "two words"),
        ("LB_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable_and_what_is_allowed(variable: str, text: str) -> None:
    [line] = faults(**NEEDED, **{variable: text})
    row = next(row for row in table() if row.variable == variable)
    shown = "********" if row.secret else text
    assert line.startswith(f"{variable}={shown}: ")
    assert line.endswith(f"allowed: {row.allowed}")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("peers", "why"),
    [
        ("10.0.0.1:8081,10.0.0.2:99999", "10.0.0.2:99999: the port '99999' is no number from 1 to 65535"),
        ("lb-0:0", "lb-0:0: the port '0' is no number from 1 to 65535"),
        ("lb-0:8081, lb-0:8081", " lb-0:8081: given twice"),
        ("[::g]:8081", ""),
        ("10.0.0.300:8081", "10.0.0.300:8081: '10.0.0.300' is no IPv4 address"),
    ],
)
def test_replicas_that_cannot_be_are_told_before_the_start(peers: str, why: str) -> None:
    [line] = faults(**NEEDED, LB_PEERS=peers, LB_PEERS_TOKEN="x")
    assert line.startswith("LB_PEERS=")
    assert why in line


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load(NEEDED).port = 1


def test_settings_made_by_hand_read_nothing_but_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LB_PORT", "9999")
    assert Settings(backends=parse_backends(["a:1"])).port == 8080


# Faults.


def test_every_fault_is_told_at_once_each_on_a_line() -> None:
    lines = faults(LB_BACKENDS="a:1", LB_PORT="x", LB_MODE="udp", LB_EJECTAFTER="5", LB_TLS_CERT="/c")
    assert [line.split("=")[0].split()[0] for line in lines] == ["LB_EJECTAFTER", "LB_MODE", "LB_PORT", "LB_TLS_CERT"]


def test_primary_backup_is_another_name_of_n_to_one() -> None:
    assert loaded(**NEEDED, LB_STRATEGY="primary-backup").strategy == "n-to-one"


def test_a_misspelt_variable_is_told_with_the_one_that_was_meant() -> None:
    assert faults(**NEEDED, LB_EJECTAFTER="5") == ["LB_EJECTAFTER=5: no such setting; did you mean LB_EJECT_AFTER?"]


def test_a_misspelt_strategy_is_told_with_the_one_that_was_meant() -> None:
    [line] = faults(**NEEDED, LB_STRATEGY="roundrobin")
    assert "did you mean round-robin?" in line
    assert all(name in line for name in STRATEGIES)


def test_a_secret_is_never_told_not_even_under_a_misspelt_name() -> None:
    told = "\n".join(faults(LB_ADMIN_TOKEN="top secret", LB_ADMIN_TOKN="topsecret", LB_ADMNTOKEN="topsecret"))
    assert "secret" not in told.replace("top secret", "secret")
    assert told.count("********") == 3
    settings = loaded(LB_ADMIN_TOKEN="topsecret")
    assert "topsecret" not in repr(settings)
    assert settings.effective()["LB_ADMIN_TOKEN"] == "********"
    assert loaded().effective()["LB_ADMIN_TOKEN"] == "none"


def test_a_value_with_line_ends_or_of_great_length_stays_one_short_line() -> None:
    for value in ("1\nLB_PORT is fine", "\x1b[31m", "x" * 100_000):
        [line] = faults(**NEEDED, LB_PORT=value)
        assert line.isprintable()
        assert len(line) < 300


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "LB_DISCOVERY=static needs endpoints"),
        ({"LB_BACKENDS": "a:1", "LB_BACKENDS_FILE": "/f"}, "both set"),
        ({"LB_DISCOVERY": "dns", "LB_DNS_PORT": "80"}, "needs LB_DNS_NAME"),
        ({"LB_DISCOVERY": "dns", "LB_DNS_NAME": "a"}, "needs LB_DNS_PORT"),
        ({"LB_DISCOVERY": "kubernetes"}, "needs LB_KUBERNETES_SERVICE"),
        (NEEDED | {"LB_TLS_KEY": "/k"}, "LB_TLS_CERT and LB_TLS_KEY go together"),
        (NEEDED | {"LB_UPSTREAM_TLS_CA": "/ca"}, "LB_UPSTREAM_TLS=on"),
        (NEEDED | {"LB_MAX_URI_BYTES": "1MiB"}, "LB_MAX_URI_BYTES must not be above LB_MAX_HEADER_BYTES"),
        (NEEDED | {"LB_PROXY_PROTOCOL": "on"}, "needs LB_TRUSTED_PROXIES"),
        (
            NEEDED | {"LB_MODE": "tcp", "LB_STRATEGY": "consistent-hash", "LB_HASH_KEY": "path"},
            "LB_HASH_KEY can only be client-ip",
        ),
        (NEEDED | {"LB_UPSTREAM_PROXY_PROTOCOL": "v2"}, "LB_UPSTREAM_PROXY_PROTOCOL needs LB_MODE=tcp"),
        (NEEDED | {"LB_ADMIN_PORT": "8080"}, "LB_PORT and LB_ADMIN_PORT are the same"),
    ],
)
def test_settings_that_contradict_each_other_stop_the_start(environ: dict[str, str], words: str) -> None:
    [line] = faults(**environ)
    assert words in line


def test_a_contradiction_is_not_told_of_a_setting_that_is_wrong_anyway() -> None:
    assert len(faults(LB_BACKENDS="nonsense")) == 1
    assert len(faults(LB_DISCOVERY="dnss")) == 1


# The file and the environment.


def test_the_env_file_is_read_and_the_environment_comes_before_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# ours\nLB_BACKENDS=a:1\nLB_PORT=1111\nLB_ADMIN_PORT='2222'\nPI_NAME=x\n")
    settings = load({"LB_PORT": "3333"}, file)
    assert (settings.port, settings.admin_port) == (3333, 2222)


def test_a_misspelt_variable_in_the_env_file_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("LB_PROT=1\n")
    with pytest.raises(SettingsError, match="LB_PORT"):
        load(NEEDED, file)


def test_no_env_file_is_no_fault(tmp_path: Path) -> None:
    assert load(NEEDED, tmp_path / ".env").port == 8080


def test_variables_of_others_are_none_of_our_business() -> None:
    assert loaded(PORT="x", lb_port="x", LBX="x", PATH="/").port == 8080


KUBERNETES = {
    "LB_SERVICE_HOST": "10.0.0.1",
    "LB_SERVICE_PORT": "8080",
    "LB_SERVICE_PORT_HTTP": "8080",
    "LB_PORT": "tcp://10.0.0.1:8080",
    "LB_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "LB_PORT_8080_TCP_ADDR": "10.0.0.1",
    "LB_PORT_8080_TCP_PORT": "8080",
    "LB_PORT_8080_TCP_PROTO": "tcp",
    "LB_PI_SERVICE_HOST": "10.0.0.2",
    "LB_PI_PORT": "tcp://10.0.0.2:8000",
    "LB_PI_PORT_8000_TCP_ADDR": "10.0.0.2",
    "LB_ADMIN_PORT": "tcp://10.0.0.3:8081",
    "LB_DNS_PORT_53_UDP_PROTO": "udp",
}


def test_what_kubernetes_injects_for_a_service_called_lb_is_ignored_and_named() -> None:
    settings = loaded(**KUBERNETES)
    assert (settings.port, settings.admin_port) == (8080, 8081)
    assert service_links(KUBERNETES | {"LB_MODE": "tcp", "PI_SERVICE_HOST": "x"}) == sorted(KUBERNETES)


def test_what_kubernetes_injects_does_not_hide_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LB_PORT=9000\n")
    assert load(NEEDED | KUBERNETES, tmp_path / ".env").port == 9000


def test_what_only_looks_like_a_service_link_is_a_fault() -> None:
    assert len(faults(**NEEDED, LB_SERVICE_HOSTS="x", LB_PI_PORT="8000", LB_PORT_TCP="x")) == 3


def test_one_setting_can_be_read_whatever_the_others_say() -> None:
    assert value_of("admin_port", {"LB_ADMIN_PORT": "9", "LB_PORT": "x"}) == 9
    assert value_of("admin_port", {}) == 8081
    with pytest.raises(SettingsError, match="LB_ADMIN_PORT=x"):
        value_of("admin_port", {"LB_ADMIN_PORT": "x"})


# Backends.


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("10.0.0.1:80", EndpointSpec("10.0.0.1", 80)),
        ("[2001:DB8::0:1]:80", EndpointSpec("2001:db8::1", 80)),
        ("pi-1.pi.svc:8000;weight=2.5", EndpointSpec("pi-1.pi.svc", 8000, 2.5)),
        (" pi:8000 ; weight = 3 ", EndpointSpec("pi", 8000, 3.0)),
    ],
)
def test_a_backend_is_read(text: str, spec: EndpointSpec) -> None:
    assert parse_backend(text) == spec


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pi", "no port"),
        (":80", "no host"),
        ("pi:", "port ''"),
        ("pi:0", "port '0'"),
        ("pi:65536", "port '65536'"),
        ("::1:80", "brackets"),
        ("[::1]", "no port"),
        ("[::x]:80", "no IPv6 address"),
        ("10.0.0.256:80", "no IPv4 address"),
        ("http://pi:80", "a URL"),
        ("pi_{}:80", "no host name"),
        ("a..b:80", "no host name"),
        ("pi:80;weight=0", "above 0"),
        ("pi:80;weight=-1", "not weight=N"),
        ("pi:80;colour=red", "not weight=N"),
    ],
)
def test_a_malformed_backend_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_backend(text)


def test_each_malformed_backend_is_named() -> None:
    lines = faults(LB_BACKENDS="good:1,bad,worse:x,good:1")
    assert [line.split(": ")[0] for line in lines] == ["LB_BACKENDS=bad", "LB_BACKENDS=worse:x", "LB_BACKENDS=good:1"]


def test_a_backends_file_has_one_a_line_with_comments() -> None:
    text = "# ours\na:1\n\n  b:2;weight=3  # the big one\n"
    assert parse_backends_file(text) == (EndpointSpec("a", 1), EndpointSpec("b", 2, 3.0))


@given(st.text(max_size=40))
def test_any_text_is_a_backend_or_refused_as_such(text: str) -> None:
    with contextlib.suppress(ValueError):
        spec = parse_backend(text)
        assert parse_backend(spec.address).host == spec.host


@given(st.sampled_from([row.variable for row in table()]), st.text(max_size=30))
def test_any_text_is_a_value_or_a_fault_of_printable_lines(variable: str, text: str) -> None:
    told: list[str] = []
    try:
        load(NEEDED | {variable: text})
    except SettingsError as error:
        told = error.faults
    assert all(line.isprintable() for line in told)


# The table.


def test_each_row_has_a_meaning_and_what_it_shows_can_be_written() -> None:
    for row in table():
        assert row.meaning.endswith(".")
        assert row.kind.parse(row.default) == Settings.model_fields[row.field].default
        assert row.schema


def test_what_is_effective_can_be_loaded_again() -> None:
    settings = loaded(LB_BACKENDS="a:1;weight=2,[::1]:5", LB_MAX_BODY_BYTES="5MiB", LB_HEALTH_STATUS="200,300-302")
    assert load(settings.effective()) == settings


def test_help_and_docs_tell_every_setting_of_its_group_once() -> None:
    for text in (as_text(table()), as_markdown(table())):
        for row in table():
            assert text.count(f"{row.variable}=") == 1 or text.count(f"| `{row.variable}` |") == 1
    assert max(len(line) for line in as_text(table(), 80).splitlines()) <= 80
