"""What is wrong with what the API says of a Service, in words: the cause, and the remedy by variable and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from balancer.discovery.endpointslices import Merged

HOPELESS: Final = frozenset({"no_slices", "no_port"})
"""Problems that a start must not pass over: nothing can be served before somebody mends them."""
FAULTS_TOLD: Final = 3
PORT: Final = "LB_KUBERNETES_PORT (the chart's backend.port)"

Looked = Mapping[str, Any] | None | str
"""The Service as the API gives it, None when there is none, or why it could not be looked at."""


def problem(merged: Merged, service: str, namespace: str, port: str | None, looked: Looked) -> str:
    """A sentence or two on `merged.problem`; "" when there is none."""
    named = f"Service {service} in namespace {namespace}"
    if merged.problem == "no_slices":
        return _no_slices(named, service, namespace, looked)
    if merged.problem == "no_port":
        return _no_port(merged, named, port)
    if merged.problem == "several_ports":
        return (
            f"{named} has got ports of other names: its EndpointSlices have {', '.join(merged.ports)}. The port "
            f"{merged.port_name or 'without a name'} stays in use until the next start: set {PORT} to the one that is "
            "meant."
        )
    if merged.problem == "bad_address":
        shown = ", ".join(merged.faults[:FAULTS_TOLD])
        more = len(merged.faults) - FAULTS_TOLD
        return (
            f"Left out, as no address: {shown}{f' and {more} more' if more > 0 else ''} ({named}). What writes the "
            "slice must write addresses in canonical form, as 10.0.0.1 or fd00::1."
        )
    return ""


def _no_port(merged: Merged, named: str, port: str | None) -> str:
    have = f"its EndpointSlices have {', '.join(merged.ports)}"
    if not merged.ports and merged.others:
        return f"{named} has no TCP port, and no other can be balanced: {have}{', '.join(merged.others)}."
    if not merged.ports:
        return f"{named} names no port, as many headless Services: set {PORT} to the number that its pods listen at."
    if port is None and len(merged.ports) > 1:
        return (
            f"{named} has more than one port: set LB_KUBERNETES_PORT to one of "
            f"{', '.join(merged.ports)} (the chart's backend.port)."
        )
    if port is None:
        return f"{named} does not say one number: {have}. Set {PORT} to the number that its pods listen at."
    return (
        f"{named} has no port {port}: {have}. Set {PORT} to one of these names or numbers (the pods' port, not the "
        "Service's)."
    )


def _no_slices(named: str, service: str, namespace: str, looked: Looked) -> str:
    if looked is None:
        return (
            f"There is no EndpointSlice of {named}, nor the Service itself (kubectl -n {namespace} get service "
            f"{service}): are LB_KUBERNETES_SERVICE and LB_KUBERNETES_NAMESPACE (the chart's backend.service and "
            "backend.namespace) right?"
        )
    if isinstance(looked, str):
        return (
            f"There is no EndpointSlice of {named}. Does the Service exist (kubectl -n {namespace} get service "
            f"{service}), and has it a selector? Without one, somebody must write its EndpointSlices. One of type "
            f"ExternalName never has any: it takes LB_DISCOVERY=dns. We cannot look ourselves: {looked}"
        )
    spec: Mapping[str, Any] = looked.get("spec") or {}
    if spec.get("type") == "ExternalName":
        name = spec.get("externalName") or "its externalName"
        return (
            f"{named} is of type ExternalName: it stands for the name {name} and has no EndpointSlices. Balance that "
            f"name: LB_DISCOVERY=dns, LB_DNS_NAME={name} and LB_DNS_PORT (the chart's balancer.settings.discovery=dns, "
            ".dnsName and .dnsPort, with pi.enabled=false)."
        )
    if not spec.get("selector"):
        return (
            f"{named} has no selector, and nobody has written EndpointSlices for it: give it one, or write slices with "
            f"the label kubernetes.io/service-name: {service}."
        )
    return (
        f"There is no EndpointSlice of {named} yet, though it has a selector: the cluster's controller manager makes "
        f"them within seconds. See: kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={service}."
    )
