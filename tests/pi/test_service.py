from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from tests.pi.conftest import Pi

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(("path", "body"), [("/0", "3\n"), ("/1", "3.1\n"), ("/10", "3.1415926535\n"), ("/007", None)])
def test_a_number_gets_that_many_decimals_and_a_newline(pi: Pi, path: str, body: str | None) -> None:
    reply = pi.get(path)
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.text == (body or "3.1415926\n")


def test_a_million_decimals_arrive_whole(pi: Pi) -> None:
    reply = pi.get("/1000000")
    assert len(reply.body) == int(reply.headers["content-length"]) == 1_000_003
    assert reply.text.endswith("5779458151\n")


def test_a_browser_gets_the_page_and_caches_know_that_it_depends(pi: Pi) -> None:
    page, text = pi.get("/1000", Accept=BROWSER), pi.get("/1000", Accept="*/*")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.text.startswith("<!doctype html>")
    assert text.headers["content-type"].startswith("text/plain")
    assert page.headers["vary"] == text.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    "path",
    ["/abc", "/-1", "/+1", "/1.5", "/1e3", "/1_0", "/%20", "/٣", "/1000001", "/99999999999", f"/{'9' * 5000}", "/0x1"],
)
def test_bad_input_gets_400_with_what_is_allowed(pi: Pi, path: str) -> None:
    reply = pi.get(quote(path, safe="/%+"))
    assert reply.status == 400
    assert "N from 0 to 1000000" in reply.text
    assert reply.text.count("\n") == 1
    assert len(reply.text) < 250


def test_the_page_for_bad_input_is_a_page(pi: Pi) -> None:
    reply = pi.get("/%3Cscript%3E", Accept=BROWSER)
    assert (reply.status, reply.headers["content-type"]) == (400, "text/html; charset=utf-8")
    assert "<script>" not in reply.text


@pytest.mark.parametrize("path", ["/10/", "/a/b", "/10/20", "//10", "/healthz/x"])
def test_deeper_paths_get_404(pi: Pi, path: str) -> None:
    assert pi.get(path).status == 404


@pytest.mark.parametrize("path", ["/10", "/", "/healthz", "/abc"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_get_405(pi: Pi, method: str, path: str) -> None:
    reply = pi.get(path, method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/10", "/1000", "/abc", "/a/b", "/healthz", "/readyz", "/favicon.ico"])
@pytest.mark.parametrize("accept", ["*/*", BROWSER])
def test_head_has_the_headers_of_get_and_no_body(pi: Pi, path: str, accept: str) -> None:
    pi.wait_until_ready()
    got, head = pi.get(path, Accept=accept), pi.get(path, "HEAD", Accept=accept)
    assert (head.status, head.body) == (got.status, b"")
    differing = {"date", "server-timing", "endpoint-load-metrics"} | (
        {"content-length"} if accept == BROWSER else set()
    )  # the page tells times
    assert got.headers.keys() == head.headers.keys()
    assert all(head.headers[name] == value for name, value in got.headers.items() if name not in differing)


def test_the_root_says_in_a_line_what_to_do(pi: Pi) -> None:
    text = pi.get("/").text
    assert text.count("\n") == 1
    assert "/10 is 3.1415926535" in text
    assert "<form" in pi.get("/", Accept=BROWSER).text


def test_the_form_leads_to_the_number(pi: Pi) -> None:
    reply = pi.get("/?decimals=250", Accept=BROWSER)
    assert (reply.status, reply.headers["location"]) == (303, "/250")
    assert pi.get("/?decimals=abc", Accept=BROWSER).status == 400


def test_every_response_tells_who_served_it(pi: Pi) -> None:
    for path in ("/", "/10", "/abc", "/a/b", "/healthz", "/readyz", "/favicon.ico"):
        assert pi.get(path).headers["x-served-by"] == "test"
    assert pi.get("/10", "POST").headers["x-served-by"] == "test"


def test_digits_are_not_cached_and_tell_where_the_time_went(pi: Pi) -> None:
    headers = pi.get("/50000").headers
    assert headers["cache-control"] == "no-store"
    timing = re.fullmatch(r"queue;dur=[\d.]+, compute;dur=([\d.]+), layout;dur=[\d.]+", headers["server-timing"])
    assert timing
    assert float(timing[1]) > 1


def test_a_favicon_is_no_error(pi: Pi) -> None:
    assert pi.get("/favicon.ico").status == 204


def test_a_connection_serves_many_requests(pi: Pi) -> None:
    client = pi.connect()
    assert {client.send("/10").reply().text for _ in range(5)} == {"3.1415926535\n"}


def _compute_ms(pi: Pi, path: str) -> float:
    found = re.search(r"compute;dur=([\d.]+)", pi.get(path).headers["server-timing"])
    assert found
    return float(found[1])


def test_every_request_computes_afresh(start: Callable[..., Pi]) -> None:
    pi = start(workers=1)
    first = _compute_ms(pi, "/200000")
    assert max(_compute_ms(pi, "/200000") for _ in range(3)) > first / 2


def test_with_the_cache_a_worker_computes_a_length_once(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, cache="on")
    first = _compute_ms(pi, "/200000")
    assert min(_compute_ms(pi, path) for path in ("/200000", "/199999")) < first / 10
    assert [pi.get(f"/{decimals}").text for decimals in (0, 1, 10)] == ["3\n", "3.1\n", "3.1415926535\n"]


def test_a_delay_is_added_to_digits_but_not_to_health(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, delay_ms=300)
    pi.wait_until_ready()
    started = time.monotonic()
    pi.get("/10")
    delayed = time.monotonic() - started
    pi.get("/healthz")
    healthy = time.monotonic() - started - delayed
    assert delayed >= 0.3
    assert healthy < 0.3


def test_a_share_of_requests_fails_on_demand_but_health_does_not(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, fail_rate=0.5)
    statuses = [pi.get("/10").status for _ in range(60)]
    assert set(statuses) == {200, 500}
    assert 10 <= statuses.count(500) <= 50
    assert {pi.get("/healthz").status for _ in range(10)} == {200}


def test_the_most_digits_are_a_setting(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, max_digits=20)
    assert (pi.get("/20").status, pi.get("/21").status) == (200, 400)
    assert "N from 0 to 20:" in pi.get("/21").text


def test_several_addresses_can_be_listened_on(start: Callable[..., Pi]) -> None:
    pi = start(workers=1, host="127.0.0.1, 127.0.0.2")
    other = re.search(r"http://127\.0\.0\.2:(\d+)", pi.log[-1])
    assert other
    socket.create_connection(("127.0.0.2", int(other[1])), timeout=5).close()
    assert pi.get("/10").status == 200
