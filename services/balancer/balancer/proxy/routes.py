"""The router of a Gateway's port: rules by the request's head, and what a rule changes, worked out once for each head.

A client repeats its heads, and one that repeats is one object: what was found for it is kept there, so that all but the
first of them cost one comparison. A new set of rules is a new Era, which no memo was made for.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from balancer.balancing.request import RequestInfo
from balancer.proxy.cluster import Cluster, Mirrored, Routed, Router
from balancer.proxy.messages import RequestHead, ResponseHead
from balancer.proxy.responses import BODY_TOO_LARGE, NO_BACKEND, NO_ROUTE, NOT_ALLOWED, Error
from balancer.routing.match import RouteRequest
from balancer.routing.rule import Affinity, Backend, Edits, Limits, Rule
from balancer.routing.site import Site

_NOWHERE: Final = Rule("")


class _Era:
    """The time in which rules and clusters stay the same."""

    __slots__ = ("clusters", "site")

    def __init__(self, site: Site, clusters: Mapping[str, Cluster]) -> None:
        self.site = site
        self.clusters = clusters


class _Memo:
    """What was found for one head."""

    __slots__ = ("era", "one", "routed", "rule", "unknown")

    def __init__(self, era: _Era, rule: Rule) -> None:
        self.era = era
        self.rule = rule
        self.one: Routed | None = None
        """Where there is only one way."""
        self.routed: dict[Backend, Routed] = {}
        self.unknown = False
        """Whether each of these requests gets a cookie of its own."""


class SiteRouter(Router):
    """Routes by the rules of a site, which may be replaced at any time."""

    __slots__ = ("_era", "_port")

    def __init__(self, nowhere: Cluster, port: int) -> None:
        """`nowhere` is the cluster of what goes to none; `port` the Gateway's, for redirects."""
        super().__init__(nowhere)
        self._port = port
        self._era = _Era(Site({}), {})

    def use(self, site: Site, clusters: Mapping[str, Cluster]) -> None:
        """Route by these rules from now on, to clusters by name; neither changes while it is in use."""
        if site is not self._era.site or clusters is not self._era.clusters:
            self._era = _Era(site, clusters)

    def route(self, head: RequestHead) -> Routed:
        memo = head.routes
        if not isinstance(memo, _Memo) or memo.era is not self._era:
            memo = head.routes = self._find(head)
        if memo.one is not None:
            return memo.one
        rule = memo.rule
        backend = rule.choose()
        if backend is None:
            return self._answer(rule, NO_BACKEND)
        if memo.unknown and rule.affinity is not None:
            return self._to_stay(head, rule, backend, rule.affinity)
        routed = memo.routed.get(backend)
        if routed is None:
            routed = memo.routed[backend] = self._to(head, rule, backend)
        return routed

    def _find(self, head: RequestHead) -> _Memo:
        request = _route_request(head)
        rule = self._era.site.route(request)
        memo = _Memo(self._era, rule or _NOWHERE)
        if rule is None:
            memo.one = self._answer(_NOWHERE, NO_ROUTE)
        elif rule.limits is not None and (refused := _refused(head, rule.limits)) is not None:
            memo.one = self._answer(rule, refused)
        elif rule.redirect is not None:
            memo.one = routed = Routed(self.only, rule.name)
            host = host_of(head.authority)
            location = rule.redirect.location(head.scheme, host, self._port, request.path, request.query)
            routed.redirect = redirect = ResponseHead(rule.redirect.status)
            redirect.fields = [(b"Location", location), (b"Content-Length", b"0")]
            redirect.length = 0
            routed.response = rule.response
        elif rule.cors is not None and (fields := rule.cors.preflight(request)) is not None:
            memo.one = routed = Routed(self.only, rule.name)
            routed.redirect = ResponseHead(200)
            routed.redirect.fields = [*fields, (b"content-length", b"0")]
            routed.redirect.length = 0
        elif rule.affinity is not None and head.info.cookie(rule.affinity.cookie) is None:
            memo.unknown = True
        elif len(rule.backends) == 1:
            only = rule.choose()
            memo.one = self._answer(rule, NO_BACKEND) if only is None else self._to(head, rule, only)
        return memo

    def _answer(self, rule: Rule, error: Error) -> Routed:
        routed = Routed(self.only, rule.name)
        routed.error = error
        return routed

    def _to(self, head: RequestHead, rule: Rule, backend: Backend) -> Routed:
        cluster = self._era.clusters.get(backend.cluster)
        if cluster is None:
            return self._answer(rule, NO_BACKEND)
        routed = Routed(cluster, rule.name)
        routed.head = _changed(head, rule, backend)
        routed.response = rule.response
        if backend.response is not None:
            routed.response = rule.response.then(backend.response) if rule.response is not None else backend.response
        if rule.timeout is not None:
            routed.timeout = rule.timeout
        routed.attempt_timeout = rule.backend_timeout or 0.0
        routed.retrying = rule.retry
        if rule.cors is not None:
            said = rule.cors.edits(_route_request(head))
            if said is not None:
                routed.response = routed.response.then(said) if routed.response is not None else said
        if rule.limits is not None:
            routed.max_body = rule.limits.max_body
        if rule.mirrors and not head.fields.upgrade:
            routed.mirrors = self._mirrors(head, rule)
        return routed

    def _mirrors(self, head: RequestHead, rule: Rule) -> tuple[Mirrored, ...]:
        sent = _changed(head, rule) or head
        found = [(self._era.clusters.get(each.cluster), each) for each in rule.mirrors]
        return tuple([Mirrored(cluster, sent, each) for cluster, each in found if cluster is not None])

    def _to_stay(self, head: RequestHead, rule: Rule, backend: Backend, affinity: Affinity) -> Routed:
        """To the endpoint of a cookie that the client is now given, and will come back with."""
        routed = self._to(head, rule, backend)
        if routed.error is not None:
            return routed
        pair = f"{affinity.cookie}={secrets.token_hex(16)}".encode()
        info = head.info
        routed.info = RequestInfo(info.client, info.method, info.path, [*info.headers, (b"Cookie", pair)])
        given = Edits(add=[(b"set-cookie", pair + affinity.attributes.encode())])
        routed.response = routed.response.then(given) if routed.response is not None else given
        return routed


def _route_request(head: RequestHead) -> RouteRequest:
    path, _, query = head.target.partition(b"?")
    fields = [(name.lower(), value) for name, value in head.fields.received]
    return RouteRequest(host_of(head.authority).lower(), path, head.method.encode(), query, fields)


def _refused(head: RequestHead, limits: Limits) -> Error | None:
    """Why a rule does not take a request that is meant for it; None: it does."""
    if not limits.lets_in(head.fields.client):
        return NOT_ALLOWED
    return BODY_TOO_LARGE if 0 <= limits.max_body < head.fields.length else None


def _changed(head: RequestHead, rule: Rule, backend: Backend | None = None) -> RequestHead | None:
    """What the endpoint is sent, where that is not what the client has sent."""
    own = None if backend is None else backend.request
    if rule.request is None and own is None and rule.host is None and rule.path is None:
        return None
    fields = head.fields.fields
    for edits in (rule.request, own):
        if edits is not None:
            fields = edits.applied(fields)
    authority = head.authority
    if rule.host is not None:
        authority = rule.host
        fields = [(name, rule.host if name.lower() == b"host" else value) for name, value in fields]
    target = head.target
    if rule.path is not None:
        path, mark, query = target.partition(b"?")
        target = rule.path.applied(path) + mark + query
    return RequestHead(head.method, head.scheme, target, head.version, head.fields.with_fields(fields, authority))


def host_of(authority: bytes) -> bytes:
    """The host of an authority, without its port and the dot that may end a whole name (RFC 3986 §3.2.2)."""
    if authority.endswith(b"]"):
        return authority
    host, colon, _ = authority.rpartition(b":")
    return (host if colon else authority).removesuffix(b".")
