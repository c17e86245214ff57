"""A Gateway's listeners: which are good, which are not and why, and which certificates they show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from balancer.discovery.gateway.conditions import Condition, merged
from balancer.discovery.gateway.objects import GROUP, Gateway, Json, Listener, Meta, Ref, Secret
from balancer.discovery.gateway.world import World

HTTP_KINDS: Final = ((GROUP, "HTTPRoute"), (GROUP, "GRPCRoute"))
KINDS: Final = {
    "HTTP": HTTP_KINDS,
    "HTTPS": HTTP_KINDS,
    "TLS": ((GROUP, "TLSRoute"),),
    "TCP": ((GROUP, "TCPRoute"),),
}
"""What may attach, by the protocols that we speak."""
TOGETHER: Final = {"HTTPS": "TLS"}
"""Protocols that stand for others where one port is asked for twice: TLS clients say by name which they want."""

ACCEPTED: Final = Condition("Accepted", True, "Accepted")
NO_CONFLICTS: Final = Condition("Conflicted", False, "NoConflicts")
RESOLVED: Final = Condition("ResolvedRefs", True, "ResolvedRefs")

Usable = Callable[[Secret], str]
"""Says what is wrong with a certificate and its key; empty: nothing."""


@dataclass(slots=True)
class Checked:
    """A listener that has been looked at; routes are counted later."""

    listener: Listener
    kinds: tuple[tuple[str, str], ...] = ()
    """Group and kind of the routes that may attach."""
    accepted: Condition = ACCEPTED
    conflicted: Condition = NO_CONFLICTS
    resolved: Condition = RESOLVED
    certificates: list[Secret] = field(default_factory=list)
    owner: str = ""
    """The ListenerSet that it is of, with its namespace; empty: the Gateway's own."""

    @property
    def id(self) -> str:
        """Its name among all listeners of the Gateway: sets choose their listeners' names by themselves."""
        return f"{self.owner}/{self.listener.name}" if self.owner else self.listener.name

    @property
    def serves(self) -> bool:
        """Whether it can be opened."""
        has_certificate = bool(self.certificates) or not ends_tls(self.listener)
        return self.accepted.holds and bool(self.kinds) and has_certificate

    def conditions(self, has_address: bool) -> list[Condition]:
        """What its status says; `has_address`: the Gateway has one, so that what serves can be reached."""
        if self.serves and has_address:
            programmed = Condition("Programmed", True, "Programmed")
        elif self.serves:
            programmed = Condition("Programmed", False, "Pending", "The Gateway has no address yet.")
        else:
            why = next(each for each in (self.accepted, self.resolved) if not each.holds)
            reason = self.conflicted.reason if self.conflicted.holds else "Invalid"
            programmed = Condition("Programmed", False, reason, why.message)
        return [self.accepted, self.conflicted, self.resolved, programmed]


def ends_tls(listener: Listener) -> bool:
    """Whether TLS ends here, so that it needs a certificate."""
    return listener.protocol == "HTTPS" or (listener.protocol == "TLS" and listener.tls_mode == "Terminate")


def check(world: World, gateway: Gateway, usable: Usable) -> list[Checked]:
    """Every listener of a Gateway, in its order."""
    return [check_one(world, gateway.meta, each, gateway.listeners, usable) for each in gateway.listeners]


def check_one(world: World, owner: Meta, listener: Listener, others: Sequence[Listener], usable: Usable) -> Checked:
    """A listener of a Gateway or a ListenerSet, among others that it may not conflict with."""
    checked = Checked(listener, owner=str(owner) if owner.kind == "ListenerSet" else "")
    served = KINDS.get(listener.protocol)
    if checked.owner and listener.protocol != "UDP":
        # The port may be another's, whatever is served there: that is what its owner can do something about.
        _check_conflicts(others, checked)
    if served is None and checked.conflicted.holds:
        return checked
    if served is None:
        words = f"Protocol {listener.protocol} is not served: {', '.join(KINDS)} are."
        checked.accepted = Condition("Accepted", False, "UnsupportedProtocol", words)
        return checked
    if listener.protocol == "HTTPS" and listener.tls_mode != "Terminate":
        checked.accepted = Condition("Accepted", False, "UnsupportedValue", "An HTTPS listener can only terminate TLS.")
        return checked
    _check_conflicts(others, checked)
    checked.kinds = served if listener.kinds is None else tuple(each for each in listener.kinds if each in served)
    if listener.kinds is not None and len(checked.kinds) < len(listener.kinds):
        kinds = ", ".join(kind for group, kind in listener.kinds if (group, kind) not in served)
        words = f"Routes of these kinds cannot attach here: {kinds}."
        checked.resolved = Condition("ResolvedRefs", False, "InvalidRouteKinds", words)
    if ends_tls(listener):
        _check_certificates(world, owner, checked, usable)
    return checked


def _check_conflicts(listeners: Sequence[Listener], checked: Checked) -> None:
    ours = checked.listener
    for other in listeners:
        if other is ours or other.port != ours.port or other.protocol not in KINDS:
            continue
        if _family(other) != _family(ours):
            reason, what = "ProtocolConflict", "with another protocol"
        elif other.hostname == ours.hostname:
            reason, what = "HostnameConflict", "with the same host name"
        else:
            continue
        words = f"Listener {other.name} has port {ours.port} too, {what}."
        checked.conflicted = Condition("Conflicted", True, reason, words)
        checked.accepted = Condition("Accepted", False, reason, words)
        return


def _family(listener: Listener) -> str:
    return TOGETHER.get(listener.protocol, listener.protocol)


def _check_certificates(world: World, owner: Meta, checked: Checked, usable: Usable) -> None:
    problems = [] if checked.listener.certificates else [("InvalidCertificateRef", "It names no certificate.")]
    for ref in checked.listener.certificates:
        reason, words, secret = _certificate(world, owner, ref, usable)
        if secret is not None:
            checked.certificates.append(secret)
        else:
            problems.append((reason, words))
    if problems:
        checked.resolved = Condition("ResolvedRefs", False, *problems[0])


def _certificate(world: World, owner: Meta, ref: Ref, usable: Usable) -> tuple[str, str, Secret | None]:
    """Reason and words for what is wrong, or the Secret."""
    invalid = "InvalidCertificateRef"
    if (ref.group, ref.kind) != ("", "Secret"):
        return invalid, f"A certificate is a Secret, and not a {ref.kind} of group {ref.group or 'core'}.", None
    name = f"Secret {ref.namespace}/{ref.name}"
    # Before anything is said of the Secret: that it exists is none of the Gateway's business without a grant.
    if not world.may_refer(GROUP, owner.kind, owner.namespace, ref):
        return "RefNotPermitted", f"No ReferenceGrant in {ref.namespace} lets {owner.kind}s refer to {name}.", None
    secret = world.secrets.get((ref.namespace, ref.name))
    if secret is None:
        return invalid, f"There is no {name}.", None
    if secret.certificate is None or secret.key is None:
        return invalid, f"{name} is not of type kubernetes.io/tls with tls.crt and tls.key in PEM.", None
    problem = usable(secret)
    return (invalid, f"{name} cannot be used: {problem}.", None) if problem else ("", "", secret)


def statuses(
    listeners: Sequence[Checked],
    attached: Mapping[str, Collection[str]],
    present: Mapping[str, Json],
    ports: Mapping[int, int],
    generation: int,
    now: str,
) -> list[Json]:
    """What the status of a Gateway or a set says of each listener.

    `attached`: the routes of each, by its id; `present`: what is stated now; `ports`: those that can be reached.
    """
    stated: list[Json] = []
    for checked in listeners:
        name = checked.listener.name
        before = present.get(name) or {}
        conditions = checked.conditions(checked.listener.port in ports)
        stated.append(
            {
                "name": name,
                "supportedKinds": [{"group": group, "kind": kind} for group, kind in checked.kinds],
                "attachedRoutes": len(attached.get(checked.id, ())),
                "conditions": merged(before.get("conditions") or (), conditions, generation, now),
            }
        )
    return stated
