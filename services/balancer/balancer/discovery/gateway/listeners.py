"""A Gateway's listeners: which are good, which are not and why, and which certificates they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from balancer.discovery.gateway.conditions import Condition
from balancer.discovery.gateway.objects import GROUP, Gateway, Listener, Ref, Secret
from balancer.discovery.gateway.world import World

HTTP_KINDS: Final = ((GROUP, "HTTPRoute"), (GROUP, "GRPCRoute"))
KINDS: Final = {"HTTP": HTTP_KINDS, "HTTPS": HTTP_KINDS}
"""What may attach, by the protocols that we speak."""

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

    @property
    def serves(self) -> bool:
        """Whether it can be opened."""
        needs_certificate = self.listener.protocol == "HTTPS"
        return self.accepted.holds and bool(self.kinds) and (bool(self.certificates) or not needs_certificate)

    def conditions(self, has_address: bool) -> list[Condition]:
        """What its status says; `has_address`: the Gateway has one, so that what serves can be reached."""
        if self.serves and has_address:
            programmed = Condition("Programmed", True, "Programmed")
        elif self.serves:
            programmed = Condition("Programmed", False, "Pending", "The Gateway has no address yet.")
        else:
            why = next(each for each in (self.accepted, self.resolved) if not each.holds)
            programmed = Condition("Programmed", False, "Invalid", why.message)
        return [self.accepted, self.conflicted, self.resolved, programmed]


def check(world: World, gateway: Gateway, usable: Usable) -> list[Checked]:
    """Every listener of a Gateway, in its order."""
    return [_checked(world, gateway, listener, usable) for listener in gateway.listeners]


def _checked(world: World, gateway: Gateway, listener: Listener, usable: Usable) -> Checked:
    checked = Checked(listener)
    served = KINDS.get(listener.protocol)
    if served is None:
        words = f"Protocol {listener.protocol} is not served: {' and '.join(KINDS)} are."
        checked.accepted = Condition("Accepted", False, "UnsupportedProtocol", words)
        return checked
    if listener.protocol == "HTTPS" and listener.tls_mode != "Terminate":
        checked.accepted = Condition("Accepted", False, "UnsupportedValue", "An HTTPS listener can only terminate TLS.")
        return checked
    _check_conflicts(gateway.listeners, checked)
    checked.kinds = served if listener.kinds is None else tuple(each for each in listener.kinds if each in served)
    if listener.kinds is not None and len(checked.kinds) < len(listener.kinds):
        kinds = ", ".join(kind for group, kind in listener.kinds if (group, kind) not in served)
        words = f"Routes of these kinds cannot attach here: {kinds}."
        checked.resolved = Condition("ResolvedRefs", False, "InvalidRouteKinds", words)
    if listener.protocol == "HTTPS":
        _check_certificates(world, gateway, checked, usable)
    return checked


def _check_conflicts(listeners: Sequence[Listener], checked: Checked) -> None:
    ours = checked.listener
    for other in listeners:
        if other is ours or other.port != ours.port or other.protocol not in KINDS:
            continue
        if other.protocol != ours.protocol:
            reason, what = "ProtocolConflict", "with another protocol"
        elif other.hostname == ours.hostname:
            reason, what = "HostnameConflict", "with the same host name"
        else:
            continue
        words = f"Listener {other.name} has port {ours.port} too, {what}."
        checked.conflicted = Condition("Conflicted", True, reason, words)
        checked.accepted = Condition("Accepted", False, reason, words)
        return


def _check_certificates(world: World, gateway: Gateway, checked: Checked, usable: Usable) -> None:
    problems = [] if checked.listener.certificates else [("InvalidCertificateRef", "It names no certificate.")]
    for ref in checked.listener.certificates:
        reason, words, secret = _certificate(world, gateway, ref, usable)
        if secret is not None:
            checked.certificates.append(secret)
        else:
            problems.append((reason, words))
    if problems:
        checked.resolved = Condition("ResolvedRefs", False, *problems[0])


def _certificate(world: World, gateway: Gateway, ref: Ref, usable: Usable) -> tuple[str, str, Secret | None]:
    """Reason and words for what is wrong, or the Secret."""
    invalid = "InvalidCertificateRef"
    if (ref.group, ref.kind) != ("", "Secret"):
        return invalid, f"A certificate is a Secret, and not a {ref.kind} of group {ref.group or 'core'}.", None
    name = f"Secret {ref.namespace}/{ref.name}"
    # Before anything is said of the Secret: that it exists is none of the Gateway's business without a grant.
    if not world.may_refer(GROUP, "Gateway", gateway.meta.namespace, ref):
        return "RefNotPermitted", f"No ReferenceGrant in {ref.namespace} lets Gateways refer to {name}.", None
    secret = world.secrets.get((ref.namespace, ref.name))
    if secret is None:
        return invalid, f"There is no {name}.", None
    if secret.certificate is None or secret.key is None:
        return invalid, f"{name} is not of type kubernetes.io/tls with tls.crt and tls.key in PEM.", None
    problem = usable(secret)
    return (invalid, f"{name} cannot be used: {problem}.", None) if problem else ("", "", secret)
