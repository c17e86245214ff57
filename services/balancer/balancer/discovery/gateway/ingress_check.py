"""What would become of an Ingress here, in words: what behaves the same, what does not, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from balancer.discovery.gateway.ingress import Ingress, paths_of
from balancer.discovery.gateway.ingress_annotations import (
    ANNOTATIONS,
    DIFFERS,
    PREFIX,
    REFUSED,
    SAME,
    UNKNOWN,
    Options,
    read,
)
from balancer.discovery.gateway.patterns import check_pattern


@dataclass(frozen=True, slots=True)
class Line:
    """One statement: `verdict` is one of same, differs, ignored, refused."""

    verdict: str
    subject: str
    words: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:8} {self.subject}" + (f": {self.words}" if self.words else "")


def check(found: Ingress) -> list[Line]:
    """Every annotation, path and certificate of an Ingress."""
    options = read(found.annotations)
    lines = [_annotation(str(name), str(value), options) for name, value in sorted(found.annotations.items())]
    lines += _paths(found, options)
    for hosts, secret in found.tls:
        subject = f"tls {', '.join(hosts) or 'of every host'}"
        if secret:
            lines.append(Line(SAME, subject, f"Secret {secret}"))
        else:
            lines.append(Line(DIFFERS, subject, "there is no default certificate: name a Secret"))
    if found.default is not None:
        lines.append(_backend("default backend", found.default))
    return [line for line in lines if line.subject]


def _annotation(name: str, value: str, options: Options) -> Line:
    if not name.startswith(PREFIX):
        theirs = name.startswith("cert-manager.io/") or "external-dns" in name
        return Line(SAME, f"{name}={value}", "read by others") if theirs else Line("", "")
    short = name.removeprefix(PREFIX)
    subject = f"{short}={' '.join(value.split())[:60]}"
    problem = next((each for each in options.refused if each.startswith(f"{short}: ")), "")
    if problem:
        return Line(REFUSED, subject, f"{problem.partition(': ')[2]}; the Ingress's paths would answer 500")
    verdict, words = ANNOTATIONS.get(short, UNKNOWN)
    return Line(SAME, subject, "off") if verdict == REFUSED else Line(verdict, subject, words)


def _paths(found: Ingress, options: Options) -> Iterator[Line]:
    for host, path in paths_of(found):
        value, kind = path.get("path") or "/", path.get("pathType") or "ImplementationSpecific"
        subject = f"{host or '*'}{value} ({kind})"
        backend = _backend(subject, path.get("backend") or {})
        if backend.verdict != SAME:
            yield backend
        elif kind != "Exact" and (options.regex or "$" in options.rewrite):
            problem = check_pattern(f"{value}.*")
            yield Line(REFUSED, subject, f"as a pattern: {problem}") if problem else Line(SAME, subject, "a pattern")
        elif kind == "ImplementationSpecific":
            yield Line(DIFFERS, subject, "a prefix by whole parts: /v2 is none of /v2example")
        elif options.rewrite:
            yield Line(SAME, subject, f"every path becomes {options.rewrite}, as with ingress-nginx")
        else:
            yield Line(SAME, subject)


def _backend(subject: str, item: object) -> Line:
    is_service = isinstance(item, dict) and "service" in item
    return Line(SAME, subject) if is_service else Line(REFUSED, subject, "a backend has to be a Service")
