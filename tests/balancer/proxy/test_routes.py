"""A Gateway's port: requests find their cluster, changed as a rule says, or an answer of our own."""

from __future__ import annotations

from ipaddress import ip_network
from random import Random

from balancer.balancing.pool import Policy as PoolPolicy
from balancer.balancing.pool import Pool
from balancer.balancing.retry import RetryBudget
from balancer.balancing.strategies import load
from balancer.proxy.cluster import Cluster, Policy
from balancer.proxy.fields import forwarded_once
from balancer.proxy.interfaces import Upstreams
from balancer.proxy.messages import HTTP_1_1, RequestFields, RequestHead, ResponseHead
from balancer.proxy.routes import SiteRouter, host_of
from balancer.routing.candidates import Entry
from balancer.routing.match import EXACT, Match
from balancer.routing.rule import Affinity, Backend, Edits, Limits, PathChange, Redirect, Rule
from balancer.routing.site import Site
from balancer.routing.table import Table
from balancer.settings import Settings


class NoUpstreams(Upstreams):
    """Nothing is sent."""


def cluster(name: str) -> Cluster:
    pool = Pool(load("round-robin", Random(1)), "round-robin", PoolPolicy(), Random(1), name)
    settings = Settings(gateway_class="lb", own_service="lb")
    return Cluster(name, pool, Policy(settings), RetryBudget(0.2), NoUpstreams())


NOWHERE, WEB, API = cluster("default"), cluster("shop/web:80"), cluster("shop/api:80")


def router(*entries: Entry) -> SiteRouter:
    made = SiteRouter(NOWHERE, 8080)
    made.use(Site({b"": Table(entries)}), {each.name: each for each in (WEB, API)})
    return made


def request(
    target: bytes = b"/",
    host: bytes = b"shop.example.com:8080",
    client: str = "192.0.2.1",
    length: int = 0,
    cookie: bytes = b"",
) -> RequestHead:
    received = [(b"Host", host), (b"X-Team", b"a")]
    if cookie:
        received.append((b"Cookie", cookie))
    fields = RequestFields(received)
    fields.client = client
    fields.length = length
    fields.fields = list(received)
    fields.authority = host
    return RequestHead("GET", b"http", target, HTTP_1_1, fields)


def test_a_request_goes_to_the_cluster_of_its_rule() -> None:
    routes = router(
        Entry(b"shop.example.com", Match(b"/"), Rule("web", [Backend(WEB.name)])),
        Entry(b"", Match(b"/api"), Rule("api", [Backend(API.name)])),
    )
    routed = routes.route(request())
    assert (routed.cluster, routed.route, routed.head, routed.error) == (WEB, "web", None, None)
    assert routes.route(request(b"/api/x?y=1", b"other.org")).cluster is API


def test_the_dot_that_ends_a_whole_name_makes_no_other_host() -> None:
    routes = router(Entry(b"shop.example.com", Match(b"/"), Rule("web", [Backend(WEB.name)])))
    for host in (b"shop.example.com.", b"Shop.Example.COM.:8080"):
        assert routes.route(request(host=host)).cluster is WEB
    assert host_of(b"[::1]:80") == b"[::1]"


def test_without_a_rule_the_answer_is_404_and_without_a_backend_500() -> None:
    routes = router(
        Entry(b"", Match(b"/none"), Rule("none")),
        Entry(b"", Match(b"/bad"), Rule("bad", [Backend("")])),
        Entry(b"", Match(b"/zero"), Rule("zero", [Backend(WEB.name, 0), Backend(API.name, 0)])),
        Entry(b"", Match(b"/half"), Rule("half", [Backend(WEB.name), Backend("")])),
    )
    for path, status in ((b"/", 404), (b"/none", 500), (b"/bad", 500), (b"/zero", 500)):
        error = routes.route(request(path)).error
        assert error is not None
        assert error.status == status
    answered = [routes.route(request(b"/half")).error is None for _ in range(100)]
    assert answered.count(True) == 50


def test_a_repeated_head_is_routed_once_and_again_when_the_rules_change() -> None:
    routes = router(Entry(b"", Match(b"/"), Rule("web", [Backend(WEB.name)])))
    head = request()
    assert routes.route(head) is routes.route(head)
    routes.use(Site({b"": Table([Entry(b"", Match(b"/"), Rule("api", [Backend(API.name)]))])}), {API.name: API})
    assert routes.route(head).cluster is API


def test_what_a_rule_changes_is_changed_for_the_endpoint_alone() -> None:
    rule = Rule(
        "web",
        [Backend(WEB.name, 1, Edits(set=[(b"x-team", b"b")]), Edits(remove=[b"server"]))],
        Edits(add=[(b"x-new", b"1")]),
        Edits(set=[(b"x-by", b"lb")]),
        host=b"inside.example.com",
        path=PathChange(b"/v2", b"/v1"),
        timeout=3.0,
    )
    head = request(b"/v1/x?y=1")
    routed = router(Entry(b"", Match(b"/v1"), rule)).route(head)
    sent = routed.head
    assert sent is not None
    assert sent.target == b"/v2/x?y=1"
    assert sent.authority == b"inside.example.com"
    assert sorted(sent.fields.fields) == [(b"Host", b"inside.example.com"), (b"x-new", b"1"), (b"x-team", b"b")]
    assert head.fields.fields == [(b"Host", b"shop.example.com:8080"), (b"X-Team", b"a")]
    assert routed.timeout == 3.0
    answer = ResponseHead(200)
    answer.fields = [(b"Server", b"x"), (b"Date", b"now")]
    assert routed.edited(answer).fields == [(b"Date", b"now"), (b"x-by", b"lb")]
    assert routed.edited(answer) is routed.edited(answer)


def test_max_forwards_counts_in_the_head_that_a_rule_has_changed() -> None:
    rule = Rule("web", [Backend(WEB.name)], Edits(set=[(b"x-team", b"b")]), path=PathChange(b"/v2", b"/v1"))
    head = request(b"/v1/x")
    head.fields.fields.append((b"Max-Forwards", b"3"))
    sent = router(Entry(b"", Match(b"/v1"), rule)).route(head).head
    assert sent is not None
    less = forwarded_once(sent, 2)
    assert less.target == b"/v2/x"
    assert less.authority == sent.authority
    assert (b"Max-Forwards", b"2") in less.fields.fields
    assert (b"x-team", b"b") in less.fields.fields


def test_a_redirect_names_the_gateways_port_and_not_ours() -> None:
    rule = Rule("old", redirect=Redirect(301, host=b"new.example.com"))
    routed = router(Entry(b"", Match(b"/x", EXACT), rule)).route(request(b"/x?y=1"))
    assert routed.redirect is not None
    assert routed.redirect.status == 301
    assert (b"Location", b"http://new.example.com:8080/x?y=1") in routed.redirect.fields


def test_the_host_of_an_authority_is_told_from_its_port() -> None:
    assert host_of(b"a.com:80") == b"a.com"
    assert host_of(b"a.com") == b"a.com"
    assert host_of(b"[::1]:80") == b"[::1]"
    assert host_of(b"[::1]") == b"[::1]"


def test_a_request_whose_fields_a_rule_changes_is_still_what_it_was() -> None:
    """A gRPC call among them: by what it is, its stream may be silent, and its deadline holds."""
    fields = RequestFields([(b"host", b"a")])
    fields.length, fields.bound, fields.expects_continue, fields.grpc, fields.timeout = 7, True, True, True, 2.5
    fields.client, fields.upgrade, fields.request_id, fields.explain = "1.2.3.4", b"websocket", b"id", b"1"
    fields.max_forwards, fields.trace_context = 3, [(b"traceparent", b"x")]
    changed = fields.with_fields([(b"x", b"y")], b"b")
    own = {"fields", "authority", "http1", "http2"}
    # What a compiled class has too, unlike __slots__.
    public = [name for name in dir(RequestFields) if not name.startswith("_")]
    kept = [name for name in public if name not in own and not callable(getattr(RequestFields, name))]
    assert [name for name in kept if getattr(changed, name) != getattr(fields, name)] == []
    assert (changed.fields, changed.authority) == ([(b"x", b"y")], b"b")


def test_a_rule_lets_in_whom_it_allows_and_no_larger_bodies() -> None:
    limits = Limits([ip_network("10.0.0.0/8")], [ip_network("10.9.0.0/16")], 100)
    routes = router(Entry(b"", Match(), Rule("web", [Backend(WEB.name)], limits=limits)))
    statuses = {
        (client, length): error.status if (error := routes.route(request(client=client, length=length)).error) else 200
        for client, length in (("10.1.1.1", 100), ("10.1.1.1", 101), ("10.9.1.1", 0), ("192.0.2.1", 0))
    }
    assert list(statuses.values()) == [200, 413, 403, 403]
    assert routes.route(request(client="10.1.1.1")).max_body == 100


def test_a_client_without_a_cookie_is_given_one_of_its_own_and_chosen_for_by_it() -> None:
    rule = Rule("web", [Backend(WEB.name)], affinity=Affinity("route", "; Path=/"))
    routes = router(Entry(b"", Match(), rule))
    head = request()
    given = []
    for _ in range(2):
        routed = routes.route(head)
        answer = ResponseHead(200)
        answer.fields = [(b"Set-Cookie", b"theirs=1")]
        fields = routed.edited(answer).fields
        assert fields[0] == (b"Set-Cookie", b"theirs=1")
        name, line = fields[1]
        assert name == b"set-cookie"
        pair, _, attributes = line.decode().partition(";")
        assert attributes == " Path=/"
        assert routed.info is not None
        assert routed.info.cookie("route") == pair.removeprefix("route=")
        assert routed.head is None  # The endpoint sees what the client has sent.
        given.append(pair)
    assert given[0] != given[1]
    back = request(cookie=given[0].encode())
    assert routes.route(back) is routes.route(back)
    assert routes.route(back).response is None
