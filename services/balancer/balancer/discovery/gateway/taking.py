"""Routes taken into the drafts of their Gateways, and what their statuses say of it.

A route that is what it was, in a world where it means what it meant, is not looked at again: among ten thousand, a
change of one costs what that one costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from balancer.discovery.gateway.attachment import attach, parents
from balancer.discovery.gateway.backends import Resolver
from balancer.discovery.gateway.conditions import Condition, in_place, merged
from balancer.discovery.gateway.listener_sets import SetDraft
from balancer.discovery.gateway.memory import Known, Memory, RouteId
from balancer.discovery.gateway.objects import SENSELESS, Json, Key, Route
from balancer.discovery.gateway.policies import Overrides, Target
from balancer.discovery.gateway.result import Context, Draft, Plan, status_write
from balancer.discovery.gateway.rules import Translated, translate
from balancer.discovery.gateway.world import World
from balancer.routing.candidates import Entry

log = structlog.get_logger()


class Taking:
    """Takes one route after the other."""

    def __init__(
        self,
        world: World,
        context: Context,
        memory: Memory,
        resolver: Resolver,
        overrides: Mapping[Target, Overrides],
        drafts: Mapping[Key, Draft],
        sets: Mapping[Key, SetDraft],
        result: Plan,
    ) -> None:
        self._world = world
        self._context = context
        self._memory = memory
        self._drafts = drafts
        self._sets = sets
        self._result = result
        self._resolver = resolver
        self._overrides = overrides
        self._seen: set[RouteId] = set()
        gateways = [(key, each.gateway.meta.generation, each.gateway.listeners) for key, each in drafts.items()]
        attached = [
            (key, each.found.meta.generation, each.found.listeners, each.allowed, each.draft.gateway.meta.key)
            for key, each in sets.items()
        ]
        self._epoch = memory.begin((gateways, attached, world.namespaces))

    def forget(self) -> None:
        """All routes have been taken: what there is of others goes."""
        self._memory.forget(self._seen)

    def take(self, route: Route) -> None:
        """One route: its rules to the listeners that take it, its clusters to the plan, its status to be written."""
        if not route.parents and not route.status:
            return
        known = self._known(route)
        if known.route is not route or known.epoch is not self._epoch:
            self._evaluate(route, known)
            known.route, known.epoch = route, self._epoch
        result = self._result
        if known.named:
            result.routes += 1
            for spec in known.translated.clusters:
                result.clusters[spec.name] = spec
        name = f"{route.meta.kind} {route.meta}"
        for gateway, listener in known.attached:
            draft = self._drafts[gateway]
            draft.parts.setdefault(listener, {})[name] = known.entries
            draft.attached.setdefault(listener, set()).add(name)
        if known.write is not None:
            result.statuses.append(known.write)

    def _evaluate(self, route: Route, known: Known) -> None:
        """Which listeners take a route, and what its status says of it."""
        controller, translated = self._world.controller, known.translated
        named = list(parents(route, self._drafts, self._sets))
        present: Sequence[Json] = route.status.get("parents") or ()
        before = [each for each in present if each.get("controllerName") == controller]
        known.named, known.write = bool(named), None
        attached: dict[tuple[Key, str], None] = {}
        entries: list[Json] = []
        for parent in named:
            listeners, accepts = attach(self._world, route, parent)
            if translated.rules or not translated.dropped:
                attached.update(((parent.gateway, each.id), None) for each in listeners)
            json = route.parent_json[parent.place]
            known_as: Json = next((each for each in before if each.get("parentRef") == json), {})
            conditions = _conditions(accepts, translated)
            written = merged(_kept(known_as), conditions, route.meta.generation, self._context.now)
            entries.append({"parentRef": json, "controllerName": controller, "conditions": written})
        known.attached = tuple(attached)
        if named or before:
            known.write = status_write(route, {"parents": in_place(present, controller, "parentRef", entries)})

    def _known(self, route: Route) -> Known:
        meta = route.meta
        key: RouteId = (meta.kind, meta.uid, meta.key)
        self._seen.add(key)
        known = self._memory.routes.get(key)
        own = self._overrides.get((meta.kind, meta.namespace, meta.name), ())
        made_of = (meta.generation, own)
        if (
            known is not None
            and (known.generation, known.overrides) == made_of
            and self._resolver.still(known.outcomes)
        ):
            return known
        try:
            translated = translate(self._resolver, route, own)
        except SENSELESS as error:
            log.warning("route not understood", kind=meta.kind, route=str(meta), error=repr(error))
            translated = Translated(own, dropped=[f"it makes no sense: {error!r}"])
        known = Known(meta.generation, own, translated.outcomes, translated, _entries(route, translated))
        self._memory.routes[key] = known
        return known


def _entries(route: Route, translated: Translated) -> tuple[Entry, ...]:
    return tuple(
        Entry(host.encode(), match, rule, route.meta.created, str(route.meta), place)
        for place, matches, rule in translated.rules
        for host in route.hostnames or ("",)
        for match in matches
    )


def _kept(present: Json) -> list[Json]:
    """Our entry's conditions without those that are said only where they hold."""
    return [each for each in present.get("conditions") or () if each.get("type") != "PartiallyInvalid"]


def _conditions(accepts: Condition, translated: Translated) -> list[Condition]:
    conditions = [accepts]
    if accepts.holds and translated.dropped:
        words = "; ".join(translated.dropped)
        if translated.rules:
            partly = Condition("PartiallyInvalid", True, "UnsupportedValue", f"Dropped Rule: {words}")
            conditions.append(partly)
        else:
            conditions = [Condition("Accepted", False, "UnsupportedValue", words)]
    problem = translated.unresolved
    if problem is None:
        conditions.append(Condition("ResolvedRefs", True, "ResolvedRefs"))
    else:
        conditions.append(Condition("ResolvedRefs", False, problem.reason, str(problem)))
    return conditions
