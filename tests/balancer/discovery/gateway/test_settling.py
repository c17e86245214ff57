"""Any order of events: what is seen late, written late or refused, decided by two leaders, changed by hand.

Once writes settle, nothing more is wanted, and every Gateway is served at ports of its own, by its own rules. And
meanwhile a Gateway that nobody touched keeps the ports that it had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from tests.balancer.discovery.gateway import cluster

from balancer.discovery.gateway import addresses, objects
from balancer.discovery.gateway.addresses import ServiceWrite, service_name
from balancer.discovery.gateway.ingress import ingress
from balancer.discovery.gateway.memory import Memory
from balancer.discovery.gateway.objects import Key, Meta
from balancer.discovery.gateway.plan import plan
from balancer.discovery.gateway.result import Plan, StatusWrite
from balancer.discovery.gateway.world import World
from balancer.routing.match import RouteRequest

HOME = "lb-system"
INGRESSES = f"{HOME}/ingress:lb"
PARSE: dict[str, Any] = {
    "GatewayClass": objects.gateway_class,
    "Gateway": objects.gateway,
    "HTTPRoute": objects.http_route,
    "Ingress": ingress,
    "Service": objects.service,
}
FIELDS = {
    "GatewayClass": "classes",
    "Gateway": "gateways",
    "HTTPRoute": "routes",
    "Ingress": "ingresses",
    "Service": "services",
}
NAMES = [f"g{number}" for number in range(4)]
PORTS: list[tuple[int, ...]] = [(80,), (81,), (80, 81), (80, 81, 443), (443,)]
BY_HAND = ["delete", "selector", "udp", "own", "twice", "stolen"]

Write = ServiceWrite | Meta | StatusWrite
Objects = dict[tuple[str, Key], Any]


class Api:
    """The objects that there are, and how writes are taken: by the version that they name."""

    def __init__(self) -> None:
        self.objects: Objects = {}
        self.time = 0
        self.watches: list[dict[str, list[tuple[Key, Any]]]] = []

    def put(self, kind: str, item: Any) -> None:
        self.time += 1
        key = (item["metadata"].get("namespace", ""), item["metadata"]["name"])
        before = self.objects.get((kind, key))
        old: dict[str, Any] = before["metadata"] if before is not None else {"generation": 0, "uid": f"{self.time}"}
        old.setdefault("creationTimestamp", f"{self.time:09}")
        same = before is not None and before["spec"] == item["spec"]
        keeps = {name: old[name] for name in ("uid", "creationTimestamp")}
        metadata = {**item["metadata"], **keeps, "resourceVersion": f"{self.time}"}
        metadata["generation"] = old["generation"] + (not same)
        self._happens(kind, key, {**item, "metadata": metadata})

    def delete(self, kind: str, key: Key) -> None:
        self.time += 1
        self._happens(kind, key, None)

    def _happens(self, kind: str, key: Key, item: Any) -> None:
        if item is None:
            self.objects.pop((kind, key), None)
        else:
            self.objects[kind, key] = item
        for watch in self.watches:
            watch.setdefault(kind, []).append((key, item))

    def take(self, write: Write) -> None:
        """A write, as the API takes or refuses it."""
        if isinstance(write, ServiceWrite):
            self._service(write)
            return
        kind, key = ("Service", write.key) if isinstance(write, Meta) else (write.kind, write.key)
        there = self.objects.get((kind, key))
        if there is None or there["metadata"]["resourceVersion"] != write.version:
            return
        if isinstance(write, Meta):
            self.delete(kind, key)
        else:
            self.put(kind, {**there, "status": {**there.get("status", {}), **json.loads(json.dumps(write.status))}})

    def _service(self, write: ServiceWrite) -> None:
        key = (HOME, write.name)
        there = self.objects.get(("Service", key))
        if write.exists != (there is not None):
            return
        body = write.body
        if there is None:
            spec = {**body["spec"], "clusterIP": f"10.96.0.{self.time}"}
            self.put("Service", {**body, "metadata": {**body["metadata"], "namespace": HOME}, "spec": spec})
        elif there["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]:
            merged = {**there["spec"], **body["spec"]}
            selector = {**there["spec"]["selector"], **body["spec"]["selector"]}
            merged["selector"] = {name: value for name, value in selector.items() if value is not None}
            self.put("Service", {**there, "metadata": {**there["metadata"], **body["metadata"]}, "spec": merged})


@dataclass
class Replica:
    """What one has seen of it, and remembers."""

    late: dict[str, list[tuple[Key, Any]]] = field(default_factory=dict)
    view: Objects = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)

    def see(self, kind: str, events: int) -> None:
        for key, item in self.late.get(kind, [])[:events]:
            if item is None:
                self.view.pop((kind, key), None)
            else:
                self.view[kind, key] = PARSE[kind](item)
        self.late[kind] = self.late.get(kind, [])[events:]

    def see_all(self) -> None:
        for kind in PARSE:
            self.see(kind, len(self.late.get(kind, ())))

    def world(self) -> World:
        kinds = {
            name: {key: each for (of, key), each in self.view.items() if of == kind} for kind, name in FIELDS.items()
        }
        return World(cluster.CONTROLLER, HOME, namespaces=cluster.world().namespaces, **kinds)


class Play:
    """Two replicas, of which one leads, and what is on its way to the API."""

    def __init__(self, keeps: bool) -> None:
        """`keeps`: whether ports that nobody touched must stay: there is room, so that no two hashes meet."""
        self.keeps = keeps
        self.api = Api()
        self.replicas = [Replica(), Replica()]
        self.api.watches = [each.late for each in self.replicas]
        self.leader = 0
        self.under_way: list[Write] = []
        self.settled: dict[tuple[str, int], tuple[str, int]] = {}
        """By Gateway and port, its uid and ours, since nobody has touched it."""
        self.stolen = False
        """Whether somebody has given a Service the ports of another, and that has not been put right yet."""
        self.api.put("GatewayClass", cluster.gateway_class())
        front = cluster.service("front", HOME, [{"port": 80}], selector={"app": "lb"})
        self.api.put("Service", front)
        self.api.put("Service", cluster.service())
        for number, name in enumerate(NAMES):
            self.api.put("HTTPRoute", cluster.route(name=f"of-{name}", parents=[{"name": name}]))
            if number:
                parents: list[objects.Json] = [{"name": NAMES[number - 1]}, {"name": name}]
                shared = cluster.route(name=f"shared-{number}", hostnames=[f"s{number}.com"], parents=parents)
                self.api.put("HTTPRoute", shared)
        self.gateway(NAMES[0], (80, 81))
        self.gateway(NAMES[1], (80,))
        self.settles()

    # What happens.

    def gateway(self, name: str, ports: tuple[int, ...]) -> None:
        there = self.api.objects.get(("Gateway", ("shop", name)))
        self.settled = {key: each for key, each in self.settled.items() if key[0] != f"shop/{name}" or key[1] in ports}
        listeners = [cluster.listener(f"p{port}", port) for port in ports]
        item = dict(cluster.gateway(*listeners, name=name))
        self.api.put("Gateway", {**item, "status": there.get("status", {})} if there else item)

    def gone(self, name: str) -> None:
        self._touched(name)
        self.api.delete("Gateway", ("shop", name))

    def ingress(self, there: bool) -> None:
        backend = {"service": {"name": "web", "port": {"number": 8080}}}
        spec = {"ingressClassName": "lb", "defaultBackend": backend}
        if there:
            self.api.put("Ingress", {"metadata": {"name": "all", "namespace": "shop"}, "spec": spec})
        else:
            self.api.delete("Ingress", ("shop", "all"))

    def by_hand(self, name: str, what: str) -> None:
        """Somebody changes a Gateway's Service."""
        key = (HOME, self._service_of(name))
        there = self.api.objects.get(("Service", key))
        if there is None:
            return
        self._touched(name)
        if what == "delete":
            self.api.delete("Service", key)
            return
        spec = json.loads(json.dumps(there["spec"]))
        if what == "selector":
            spec["selector"]["odd"] = "x"
        elif what == "stolen":
            others = [each for (kind, _), each in self.api.objects.items() if kind == "Service"]
            for port, other in zip(spec["ports"], others[::-1], strict=False):
                port["targetPort"] = other["spec"]["ports"][0].get("targetPort", 8080)
            self.settled, self.stolen = {}, True
        else:
            taken = spec["ports"][-1]["targetPort"]
            changes = {"udp": {"protocol": "UDP"}, "own": {"targetPort": 8080}, "twice": {"targetPort": taken}}
            spec["ports"][0] |= changes[what]
            self.stolen |= what == "twice"
        self.api.put("Service", {**there, "spec": spec})

    def sees(self, replica: int, kind: str) -> None:
        self.replicas[replica].see(kind, 1)

    def plans(self, replica: int) -> None:
        found = self._planned(self.replicas[replica])
        if replica == self.leader:
            self.under_way += self._writes(found)

    def lands(self, number: int) -> None:
        if self.under_way:
            self.api.take(self.under_way.pop(number % len(self.under_way)))

    def lost(self, number: int) -> None:
        if self.under_way:
            self.under_way.pop(number % len(self.under_way))

    def leads(self, replica: int, restarted: bool) -> None:
        self.leader = replica
        if restarted:
            self.replicas[replica].memory = Memory()

    def settles(self) -> None:
        for write in self.under_way:
            self.api.take(write)
        self.under_way = []
        for _ in range(12):
            for each in self.replicas:
                each.see_all()
            writes = self._writes(self._planned(self.replicas[self.leader]))
            if not writes:
                break
            for write in writes:
                self.api.take(write)
        else:
            raise AssertionError(f"it never settles: {writes}")
        self._check()

    # What must be so.

    def _check(self) -> None:
        plans = [self._planned(each) for each in [*self.replicas, replace(self.replicas[0], memory=Memory())]]
        served = [{ours: (port.gateway, port.port) for ours, port in found.ports.items()} for found in plans]
        assert served[0] == served[1] == served[2]
        assert not any(self._writes(found) for found in plans)
        gateways = {key[1]: each for (kind, key), each in self.api.objects.items() if kind == "Gateway"}
        wanted = {(f"shop/{n}", each["port"]) for n, item in gateways.items() for each in item["spec"]["listeners"]}
        assert sorted(served[0].values()) == sorted(wanted | {(INGRESSES, 80)})
        assert self._leads_to() == {(of, "TCP", ours) for ours, of in served[0].items()}
        assert all(addresses.FIRST_PORT <= ours <= addresses.LAST_PORT for ours in served[0])
        for port in plans[0].ports.values():
            rule = port.site.route(RouteRequest(b"", b"/"))
            of = f"shop/of-{port.gateway.removeprefix('shop/')}"
            there = of if port.gateway != INGRESSES else "shop/all"
            assert rule.name == there if rule is not None else port.gateway == INGRESSES
        self.stolen = False
        self.settled = {
            (gateway, port): (gateways[gateway.removeprefix("shop/")]["metadata"]["uid"], ours)
            for ours, (gateway, port) in served[0].items()
            if gateway != INGRESSES
        }

    def _leads_to(self) -> set[tuple[tuple[str, int], str, int]]:
        """By Gateway and port, where its Service leads."""
        made = [each for (kind, _), each in self.api.objects.items() if kind == "Service"]
        gateways = [(each["metadata"].get("annotations", {}).get("lb/gateway"), each) for each in made]
        return {
            ((gateway, port["port"]), port["protocol"], port["targetPort"])
            for gateway, each in gateways
            if gateway is not None
            for port in each["spec"]["ports"]
        }

    def _planned(self, replica: Replica) -> Plan:
        self.api.time += 1  # Which no status may say again and again.
        found = plan(replica.world(), replace(cluster.context("lb"), now=f"{self.api.time:09}"), replica.memory)
        # What comes by a Gateway's Service never gets to another's rules.
        for of, protocol, ours in self._leads_to() if self.keeps and not self.stolen else ():
            if ours in found.ports and protocol == "TCP":
                assert (found.ports[ours].gateway, found.ports[ours].port) == of
        for (gateway, port), (uid, ours) in self.settled.items() if self.keeps else ():
            there = replica.view.get(("Gateway", ("shop", gateway.removeprefix("shop/"))))
            if there is not None and there.meta.uid == uid and any(each.port == port for each in there.listeners):
                assert ours in found.ports, (gateway, port)
                assert (found.ports[ours].gateway, found.ports[ours].port) == (gateway, port)
        return found

    @staticmethod
    def _writes(found: Plan) -> list[Write]:
        return [*found.services, *found.obsolete, *found.statuses]

    def _touched(self, name: str) -> None:
        self.settled = {key: each for key, each in self.settled.items() if key[0] != f"shop/{name}"}

    @staticmethod
    def _service_of(name: str) -> str:
        return service_name(objects.gateway(cluster.gateway(name=name)))


STEPS: list[Callable[[Random], tuple[Any, ...]]] = [
    lambda random: ("gateway", random.choice(NAMES), random.choice(PORTS)),
    lambda random: ("gateway", random.choice(NAMES), random.choice(PORTS)),
    lambda random: ("gone", random.choice(NAMES)),
    lambda random: ("ingress", random.random() < 0.5),
    lambda random: ("by_hand", random.choice(NAMES), random.choice(BY_HAND)),
    lambda random: ("sees", random.randrange(2), random.choice(["Gateway", "Service"])),
    lambda random: ("sees", random.randrange(2), random.choice(["Gateway", "Service"])),
    lambda random: ("plans", random.randrange(2)),
    lambda random: ("plans", random.randrange(2)),
    lambda random: ("lands", random.randrange(20)),
    lambda random: ("lands", random.randrange(20)),
    lambda random: ("lost", random.randrange(20)),
    lambda random: ("leads", random.randrange(2), random.random() < 0.5),
    lambda random: ("settles",),
]


def steps(seed: int) -> Iterator[tuple[Any, ...]]:
    random = Random(seed)
    for _ in range(random.randrange(5, 60)):
        yield random.choice(STEPS)(random)


def play(seed: int, roomy: bool) -> None:
    done: list[tuple[Any, ...]] = []
    last = addresses.LAST_PORT if roomy else addresses.FIRST_PORT + 15
    with patch.object(addresses, "LAST_PORT", last):
        stage = Play(keeps=roomy)
        try:
            for name, *arguments in [*steps(seed), ("settles",)]:
                done.append((name, *arguments))
                getattr(stage, name)(*arguments)
        except Exception as error:
            error.add_note(f"seed {seed}: {done}")
            raise


@pytest.mark.parametrize("roomy", [True, False])
def test_whatever_comes_late_everything_settles(roomy: bool) -> None:
    for seed in range(150):
        play(seed, roomy)
