"""A route's rules as the router's: matches, filters, backends, timeouts.

What we do not know is never passed over in silence: a filter may be what keeps somebody out. Such a rule is dropped,
and the route's status says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from balancer.discovery.gateway.backends import (
    CARRIED,
    HTTP1,
    TCP,
    ClusterSpec,
    Outcome,
    Reference,
    Resolver,
    Unresolved,
)
from balancer.discovery.gateway.objects import Json, Route, ref
from balancer.discovery.gateway.patterns import check_pattern
from balancer.discovery.gateway.policies import Overrides
from balancer.routing.cors import Cors
from balancer.routing.match import EXACT, PATTERN, PREFIX, Match, Wanted
from balancer.routing.rule import Backend, Edits, Mirror, PathChange, Redirect, Retrying, Rule

KINDS_OF_PATH: Final = {"Exact": EXACT, "PathPrefix": PREFIX, "RegularExpression": PATTERN}
UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
UNKNOWN: Final = ""
"""The cluster of a backend that may not or cannot be had."""


class Unsupported(Exception):
    """A rule that asks for something that we do not do."""


@dataclass(slots=True)
class Translated:
    """A route's rules, the clusters that they need, and what is wrong with the rest."""

    overrides: Overrides = ()
    """Settings that its clusters have for it."""
    rules: list[tuple[int, Sequence[Match], Rule]] = field(default_factory=list)
    """Each rule that is taken, with its place in the route and what it matches."""
    clusters: set[ClusterSpec] = field(default_factory=set)
    unresolved: Unresolved | None = None
    """The first reference that could not be followed."""
    dropped: list[str] = field(default_factory=list)
    """Why each rule that is not taken is not."""
    outcomes: dict[Reference, Outcome] = field(default_factory=dict)
    """Every reference that was followed: while they lead there, this is what the route means."""


def translate(resolver: Resolver, route: Route, overrides: Overrides = ()) -> Translated:
    """All rules of a route; `overrides` are settings by a policy for it."""
    result = Translated(overrides)
    if route.meta.kind in CARRIED:
        _carry(resolver, route, result)
        return result
    nothing: Json = {}
    read = _grpc_match if route.meta.kind == "GRPCRoute" else _match
    for place, item in enumerate(route.rules):
        try:
            matches = [read(each) for each in item.get("matches") or [nothing]]
            rule = _rule(resolver, route, item, matches, result)
        except Unsupported as problem:
            result.dropped.append(f"rule {item.get('name') or place}: {problem}")
        else:
            result.rules.append((place, matches, rule))
    return result


def _carry(resolver: Resolver, route: Route, result: Translated) -> None:
    """The rules of a route of connections: where to, and nothing else."""
    for place, item in enumerate(route.rules):
        backends = [
            Backend(_cluster(resolver, route, each, result), each.get("weight", 1))
            for each in item.get("backendRefs") or ()
        ]
        result.rules.append((place, [Match()], Rule(_name(route, item), backends)))


def _name(route: Route, item: Json) -> str:
    return f"{route.meta}/{item['name']}" if item.get("name") else str(route.meta)


def _rule(resolver: Resolver, route: Route, item: Json, matches: Sequence[Match], result: Translated) -> Rule:
    prefix = matches[0].path
    filters = _Filters(resolver, route, result, prefix).take(item.get("filters") or ())
    backends = []
    for each in item.get("backendRefs") or ():
        own = _Filters(resolver, route, result, prefix).take(each.get("filters") or ())
        if own.redirect or own.path or own.host or own.mirrors or own.cors:
            raise Unsupported("a backend's own filters can only change header fields")
        weight = each.get("weight", 1)
        backends.append(Backend(_cluster(resolver, route, each, result), weight, own.request, own.response))
    if item.get("sessionPersistence"):
        raise Unsupported("sessionPersistence is not supported")
    timeouts = item.get("timeouts") or {}
    return Rule(
        name=_name(route, item),
        backends=backends,
        request=filters.request,
        response=filters.response,
        redirect=filters.redirect,
        host=filters.host,
        path=filters.path,
        mirrors=filters.mirrors,
        cors=filters.cors,
        retry=_retrying(item.get("retry")),
        timeout=seconds(timeouts.get("request")),
        backend_timeout=seconds(timeouts.get("backendRequest")),
    )


def _cluster(resolver: Resolver, route: Route, item: Json, result: Translated) -> str:
    reference = route.meta.kind, route.meta.namespace, ref(item, route.meta.namespace, "", "Service")
    spec, reason, words = result.outcomes[reference] = resolver.outcome(*reference)
    if spec is None:
        result.unresolved = result.unresolved or Unresolved(reason, words)
        return UNKNOWN
    if route.meta.kind == "GRPCRoute" and spec.protocol == HTTP1:
        # Its Service does not say it, but gRPC is HTTP/2: of its own, since others may speak HTTP/1.1 to that port.
        spec = replace(spec, overrides=(("upstream_protocol", "h2c"),), variant="grpc")
    if result.overrides:
        own = {**dict(spec.overrides), **dict(result.overrides)}
        # Routes of two kinds may have one name.
        variant = f"{TCP}:{route.meta.kind}:{route.meta}" if spec.protocol == TCP else str(route.meta)
        spec = replace(spec, overrides=tuple(own.items()), variant=variant)
    result.clusters.add(spec)
    return spec.name


class _Filters:
    """The filters of one rule, or of one backend, one after the other."""

    def __init__(self, resolver: Resolver, route: Route, result: Translated, prefix: bytes) -> None:
        self._context = resolver, route, result
        self._prefix = prefix
        self.request: Edits | None = None
        self.response: Edits | None = None
        self.redirect: Redirect | None = None
        self.host: bytes | None = None
        self.path: PathChange | None = None
        self.mirrors: list[Mirror] = []
        self.cors: Cors | None = None

    def take(self, items: Sequence[Json]) -> _Filters:
        for item in items:
            kind = item["type"]
            if kind == "RequestHeaderModifier":
                self.request = _edits(item["requestHeaderModifier"])
            elif kind == "ResponseHeaderModifier":
                self.response = _edits(item["responseHeaderModifier"])
            elif kind == "RequestRedirect":
                self.redirect = self._redirect(item["requestRedirect"])
            elif kind == "URLRewrite":
                self._rewrite(item["urlRewrite"])
            elif kind == "RequestMirror":
                self._mirror(item["requestMirror"])
            elif kind == "CORS":
                self.cors = _cors(item["cors"])
            else:
                raise Unsupported(f"filter {kind} is not supported")
        if self.redirect is not None and (self.path is not None or self.host is not None):
            raise Unsupported("a redirect leaves nothing to rewrite")
        return self

    def _redirect(self, item: Json) -> Redirect:
        scheme, host = item.get("scheme"), item.get("hostname")
        return Redirect(
            status=item.get("statusCode") or 302,
            scheme=scheme.encode() if scheme else None,
            host=host.encode() if host else None,
            port=item.get("port"),
            path=self._path(item.get("path")),
        )

    def _rewrite(self, item: Json) -> None:
        host = item.get("hostname")
        self.host = host.encode() if host else None
        self.path = self._path(item.get("path"))

    def _mirror(self, item: Json) -> None:
        resolver, route, result = self._context
        cluster = _cluster(resolver, route, item["backendRef"], result)
        fraction, percent = item.get("fraction"), item.get("percent")
        share = 1.0 if percent is None else percent / 100
        if fraction is not None:
            share = fraction["numerator"] / (fraction.get("denominator") or 100)
        if cluster != UNKNOWN and share > 0:
            self.mirrors.append(Mirror(cluster, share))

    def _path(self, item: Json | None) -> PathChange | None:
        if item is None:
            return None
        if item["type"] == "ReplaceFullPath":
            return PathChange(_bytes(item.get("replaceFullPath") or "", "path"))
        if item["type"] == "ReplacePrefixMatch":
            return PathChange(_bytes(item.get("replacePrefixMatch") or "", "path"), self._prefix)
        raise Unsupported(f"path modifier {item['type']} is not supported")


def _retrying(item: Json | None) -> Retrying | None:
    if item is None:
        return None
    codes, attempts = item.get("codes"), item.get("attempts")
    return Retrying(
        statuses=frozenset(codes) if codes else None,
        attempts=-1 if attempts is None else attempts,
        backoff=seconds(item.get("backoff")) or 0.0,
    )


def _cors(item: Json) -> Cors:
    max_age = item.get("maxAge")
    return Cors(
        origins=[_bytes(each, "allowOrigins") for each in item.get("allowOrigins") or ()],
        methods=[_bytes(each, "allowMethods") for each in item.get("allowMethods") or ()],
        headers=[_bytes(each, "allowHeaders") for each in item.get("allowHeaders") or ()],
        exposed=[_bytes(each, "exposeHeaders") for each in item.get("exposeHeaders") or ()],
        credentials=bool(item.get("allowCredentials")),
        max_age=5 if max_age is None else int(max_age),
    )


def _edits(item: Json) -> Edits:
    return Edits(
        set=[(each["name"].lower().encode(), _bytes(each["value"], each["name"])) for each in item.get("set") or ()],
        add=[(each["name"].lower().encode(), _bytes(each["value"], each["name"])) for each in item.get("add") or ()],
        remove=[name.lower().encode() for name in item.get("remove") or ()],
    )


def _match(item: Json) -> Match:
    path = item.get("path") or {}
    kind = KINDS_OF_PATH.get(path.get("type") or "PathPrefix")
    if kind is None:
        raise Unsupported(f"path type {path['type']} is not supported")
    value = path.get("value") or "/"
    if kind == PATTERN:
        _checked(value)
    return Match(
        path=value.encode(),
        kind=kind,
        method=(item.get("method") or "").encode(),
        headers=_wanted(item.get("headers") or (), lowered=True),
        parameters=_wanted(item.get("queryParams") or (), lowered=False),
    )


def _grpc_match(item: Json) -> Match:
    """A gRPC method is a path: /service/method, asked for by POST."""
    method = item.get("method") or {}
    service, name = method.get("service") or "", method.get("method") or ""
    kind, path = PREFIX, f"/{service}"
    if method.get("type") == "RegularExpression":
        kind, path = PATTERN, f"/{service or '[^/]+'}/{name or '[^/]+'}"
        _checked(path)
    elif name:
        kind, path = (EXACT, f"/{service}/{name}") if service else (PATTERN, f"/[^/]+/{re.escape(name)}")
    return Match(path.encode(), kind, headers=_wanted(item.get("headers") or (), lowered=True))


def _wanted(items: Sequence[Json], lowered: bool) -> list[Wanted]:
    """Of several that name one field the first counts."""
    wanted: dict[bytes, Wanted] = {}
    for item in items:
        name = (item["name"].lower() if lowered else item["name"]).encode()
        is_pattern = item.get("type") == "RegularExpression"
        if is_pattern:
            _checked(item["value"])
        if name not in wanted:
            wanted[name] = Wanted(name, item["value"].encode(), is_pattern)
    return list(wanted.values())


def _checked(pattern: str) -> None:
    problem = check_pattern(pattern)
    if problem:
        raise Unsupported(f"pattern {pattern!r}: {problem}")


def _bytes(text: str, what: str) -> bytes:
    """A value that goes on the wire as it is: no line may end in it."""
    if not text.isprintable():
        raise Unsupported(f"{what} holds a character that may not stand there")
    return text.encode()


def seconds(duration: str | None) -> float | None:
    """A duration of the API (GEP-2257: `1h30m`, `500ms`) in seconds; None for none."""
    if duration is None:
        return None
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", duration))
