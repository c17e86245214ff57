"""Ingresses: what we read of them, and their translation into the router's rules.

As ingress-nginx has it where it is the one with the most users: paths of type ImplementationSpecific are prefixes, a
host with a certificate is sent to https, a canary takes its share of the Ingress with the same host and path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from balancer.discovery.gateway.backends import ClusterSpec, Outcome, Reference, Resolver
from balancer.discovery.gateway.ingress_annotations import Options, read
from balancer.discovery.gateway.objects import Json, Meta, Ref, meta_of
from balancer.discovery.gateway.patterns import check_pattern
from balancer.routing.candidates import Entry
from balancer.routing.match import EXACT, PATTERN, PREFIX, Match, Wanted, host_matches
from balancer.routing.rule import Affinity, Backend, Limits, PathChange, PatternChange, Redirect, Rule

CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"
DEFAULT_PLACE: Final = 1 << 20
"""A default backend stands behind all rules."""


@dataclass(frozen=True, slots=True)
class Ingress:
    meta: Meta
    ingress_class: str
    annotations: Json
    default: Json | None
    rules: tuple[Json, ...]
    tls: tuple[tuple[tuple[str, ...], str], ...]
    """Hosts, and the name of the Secret with their certificate."""
    status: Json


def ingress(item: Json) -> Ingress:
    spec = item.get("spec") or {}
    annotations = item["metadata"].get("annotations") or {}
    return Ingress(
        meta=meta_of("Ingress", item),
        ingress_class=spec.get("ingressClassName") or annotations.get(CLASS_ANNOTATION) or "",
        annotations=annotations,
        default=spec.get("defaultBackend"),
        rules=tuple(spec.get("rules") or ()),
        tls=tuple(
            (tuple(host.lower() for host in each.get("hosts") or ()), each.get("secretName") or "")
            for each in spec.get("tls") or ()
        ),
        status=item.get("status") or {},
    )


PathKey = tuple[str, str]
"""Host and path."""


@dataclass(frozen=True, slots=True)
class Canary:
    """What another Ingress takes of a path's requests."""

    meta: Meta
    options: Options
    backend: Json


@dataclass(slots=True)
class Taken:
    """One Ingress as rules."""

    plain: list[Entry] = field(default_factory=list)
    """At port 80."""
    secure: list[Entry] = field(default_factory=list)
    """At port 443."""
    clusters: dict[str, ClusterSpec] = field(default_factory=dict)
    outcomes: dict[Reference, Outcome] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What is not served, in words."""


def paths_of(found: Ingress) -> Iterable[tuple[str, Json]]:
    """Each host (empty: every one) with each of its paths."""
    for rule in found.rules:
        for path in (rule.get("http") or {}).get("paths") or ():
            yield (rule.get("host") or "").lower(), path


def canaries(ingresses: Iterable[Ingress]) -> dict[PathKey, list[Canary]]:
    """By host and path, the Ingresses that take a share, the oldest first."""
    found: dict[PathKey, list[Canary]] = {}
    for each in sorted(ingresses, key=lambda one: (one.meta.created, one.meta.key)):
        options = read(each.annotations)
        if options.canary and not options.refused:
            for host, path in paths_of(each):
                found.setdefault((host, path.get("path") or "/"), []).append(
                    Canary(each.meta, options, path["backend"])
                )
    return found


def translate(resolver: Resolver, found: Ingress, shares: Mapping[PathKey, Sequence[Canary]]) -> Taken:
    """An Ingress's rules; `shares` are the canaries by host and path. One that is itself a canary has none."""
    translation = _Translation(resolver, found, shares)
    if not translation.options.canary:
        translation.all_paths()
    return translation.taken


class _Translation:
    """One Ingress on the way."""

    def __init__(self, resolver: Resolver, found: Ingress, shares: Mapping[PathKey, Sequence[Canary]]) -> None:
        self._resolver = resolver
        self._found = found
        self._shares = shares
        self._name = str(found.meta)
        self.options = read(found.annotations)
        self.taken = Taken(problems=list(self.options.refused))
        self._secure_hosts = [host for hosts, _ in found.tls for host in hosts or ("",)]

    def all_paths(self) -> None:
        """Every path of every rule, then the default backend."""
        for place, (host, path) in enumerate(paths_of(self._found)):
            value, kind = path.get("path") or "/", path.get("pathType") or "ImplementationSpecific"
            try:
                self._path(host, value, kind, path["backend"], place)
            except ValueError as error:
                self.taken.problems.append(f"path {value}: {error}")
                match = Match(value.encode(), EXACT if kind == "Exact" else PREFIX)
                self._put(host, match, Rule(self._name), place)
        if self._found.default is not None:
            self._put("", Match(), self._rule(self._found.default, None), DEFAULT_PLACE)
        if self.options.app_root:
            for host in dict.fromkeys(host for host, _ in paths_of(self._found)):
                to = Redirect(302, path=PathChange(self.options.app_root.encode()))
                self._put(host, Match(b"/", EXACT), Rule(self._name, redirect=to), -1)

    def _path(self, host: str, value: str, kind: str, backend: Json, place: int) -> None:
        options = self.options
        if options.redirect:
            self._put(host, Match(value.encode()), Rule(self._name, redirect=_redirect(options)), place)
            return
        change: PathChange | None = PathChange(options.rewrite.encode()) if options.rewrite else None
        if kind == "Exact":
            match_of = _Matching(value.encode(), EXACT)
        elif options.regex or "$" in options.rewrite:
            # As it stands, too: a backslash at its end would be for what follows here.
            problem = check_pattern(value) or check_pattern(f"{value}.*")
            if problem:
                raise ValueError(problem)
            # nginx looks for the pattern at the path's beginning, in any case, and cares for no rest.
            match_of = _Matching(b"(?i:%b).*" % value.encode(), PATTERN)
            if options.rewrite:
                try:
                    change = PatternChange(value.encode(), options.rewrite.encode())
                except re.error as error:
                    raise ValueError(str(error)) from None
        else:
            match_of = _Matching(value.encode(), PREFIX)
        weighted = [(backend, 0)]
        for canary in self._shares.get((host, value), ()):
            if canary.meta.namespace == self._found.meta.namespace:
                place_of = self._by_request(host, match_of, canary, change, place, backend)
                weighted += place_of
        main = self._rule(backend, change)
        shares = [(self._backend(each), weight) for each, weight in weighted[1:] if weight]
        if shares and main.backends:
            left = max(0, self.options_total(host, value) - sum(weight for _, weight in shares))
            main = self._rule(
                backend, change, [Backend(main.backends[0].cluster, left), *(Backend(n, w) for n, w in shares)]
            )
        self._put(host, match_of.plain(), main, place)

    def options_total(self, host: str, value: str) -> int:
        """What the weights of a path's canaries are of."""
        return max((each.options.canary_total for each in self._shares.get((host, value), ())), default=100)

    def _by_request(
        self, host: str, match_of: _Matching, canary: Canary, change: PathChange | None, place: int, main: Json
    ) -> list[tuple[Json, int]]:
        """Rules for requests that say where they want to go; the weight of those that say nothing."""
        options = canary.options
        to, back = self._rule(canary.backend, change), self._rule(main, change)
        if options.canary_header:
            name = options.canary_header.encode()
            if options.canary_value:
                self._put(host, match_of.asking(Wanted(name, options.canary_value.encode())), to, place)
                return [(canary.backend, options.canary_weight)]
            if options.canary_pattern:
                problem = check_pattern(options.canary_pattern)
                if problem:
                    raise ValueError(problem)
                self._put(host, match_of.asking(Wanted(name, options.canary_pattern.encode(), True)), to, place)
                return [(canary.backend, options.canary_weight)]
            self._put(host, match_of.asking(Wanted(name, b"always")), to, place)
            self._put(host, match_of.asking(Wanted(name, b"never")), back, place)
        if options.canary_cookie:
            name = re.escape(options.canary_cookie).encode()
            for value, rule in ((b"always", to), (b"never", back)):
                wanted = Wanted(b"cookie", b"(?:.*; ?)?%b=%b(?:;.*)?" % (name, value), True)
                self._put(host, match_of.asking(wanted), rule, place)
        return [(canary.backend, options.canary_weight)]

    def _rule(self, backend: Json, change: PathChange | None, backends: Sequence[Backend] | None = None) -> Rule:
        options = self.options
        if options.refused:
            return Rule(self._name)
        limits = Limits(options.allow, options.deny, options.max_body)
        return Rule(
            self._name,
            [Backend(self._backend(backend))] if backends is None else backends,
            host=options.vhost.encode() or None,
            path=change,
            backend_timeout=options.read_timeout,
            limits=limits if limits.allow or limits.deny or limits.max_body >= 0 else None,
            cors=options.cors,
            affinity=Affinity(options.affinity, options.cookie_attributes) if options.affinity else None,
        )

    def _backend(self, item: Json) -> str:
        """The cluster of a backend; empty where there is none."""
        service = item.get("service")
        if service is None:
            self.taken.problems.append("a backend that is no Service")
            return ""
        port = service.get("port") or {}
        namespace = self._found.meta.namespace
        number = port.get("number") or self._resolver.port_named(namespace, service["name"], port.get("name") or "")
        reference: Reference = ("Ingress", namespace, Ref("", "Service", namespace, service["name"], number))
        spec, _, words = self.taken.outcomes[reference] = self._resolver.outcome(*reference)
        if spec is None:
            self.taken.problems.append(words)
            return ""
        overrides = self._overrides()
        if overrides:
            # Of its own: what one Ingress asks for must not change the requests of other routes to the Service.
            spec = replace(spec, overrides=overrides, variant=self._found.meta.name)
        self.taken.clusters[spec.name] = spec
        return spec.name

    def _overrides(self) -> tuple[tuple[str, object], ...]:
        options = self.options
        found: list[tuple[str, object]] = []
        if options.affinity:
            found += [("strategy", "consistent-hash"), ("hash_key", f"cookie:{options.affinity}")]
        if options.connect_timeout is not None:
            found.append(("connect_timeout", options.connect_timeout))
        if options.protocol:
            found.append(("upstream_protocol", options.protocol))
        return tuple(found)

    def _put(self, host: str, match: Match, rule: Rule, place: int) -> None:
        entry = Entry(host.encode(), match, rule, self._found.meta.created, self._name, place)
        self.taken.secure.append(entry)
        if self._goes_to_https(host):
            to = Rule(self._name, redirect=Redirect(308, scheme=b"https"), limits=rule.limits)
            entry = Entry(host.encode(), match, to, self._found.meta.created, self._name, place)
        self.taken.plain.append(entry)

    def _goes_to_https(self, host: str) -> bool:
        options = self.options
        if options.force_ssl_redirect:
            return True
        return options.ssl_redirect and any(host_matches(each.encode(), host.encode()) for each in self._secure_hosts)


class _Matching:
    """A path's matches: the same path, asking for more or less beside it."""

    def __init__(self, path: bytes, kind: int) -> None:
        self._path = path
        self._kind = kind

    def plain(self) -> Match:
        return Match(self._path, self._kind)

    def asking(self, wanted: Wanted) -> Match:
        return Match(self._path, self._kind, headers=[wanted])


def _redirect(options: Options) -> Redirect:
    to = urlsplit(options.redirect)
    return Redirect(
        options.redirect_status,
        scheme=to.scheme.encode() or None,
        host=(to.hostname or "").encode() or None,
        port=to.port,
        path=PathChange((to.path or "/").encode()),
    )
