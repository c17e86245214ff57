"""Where we run, for hints: our node by the downward API, its zone from the first source that knows it.

Kubernetes gives a pod its node. It gives the zone from 1.35 on, as a label of the pod; before, the zone of a node
stands beside every endpoint on that node: in the slices of the Service that is balanced, if it has one there, else in
those of our own Service, where our own pod is. So no right to read Nodes is needed.
"""

from __future__ import annotations

from collections.abc import Callable

from balancer.discovery.endpointslices import Slice, parse
from balancer.discovery.kubeapi import ApiError, SliceApi
from balancer.discovery.topology import Place
from balancer.discovery.words import Looked


class Whereabouts:
    """Our place in the cluster, looked for until it is known."""

    def __init__(self, node: str, zone: str, own_service: str) -> None:
        self._node = node
        self._zone = zone
        self._own_service = own_service
        self._local = False
        self._why = ""
        """Why the zone is not known."""

    async def find(self, api: SliceApi, zone_of: Callable[[str], str], service: Looked) -> Place:
        """The place now; `service` is the one that is balanced, `zone_of` gives the zone of a node by its slices."""
        if service is not None and not isinstance(service, str):
            self._local = (service.get("spec") or {}).get("internalTrafficPolicy") == "Local"
        if self._node and not self._zone:
            self._zone = zone_of(self._node) or await self._of_our_own_pod(api)
        return Place(self._node, self._zone, self._local)

    async def _of_our_own_pod(self, api: SliceApi) -> str:
        if not self._own_service:
            return ""
        slices: list[Slice] = []
        try:
            await api.list_all(api.namespace, self._own_service, lambda item: slices.append(parse(item, None)))
        except ApiError as error:
            self._why = f" {error}"
            return ""
        return next((slice_.zones[self._node] for slice_ in slices if self._node in slice_.zones), "")

    def problem(self, looked: Looked, some: bool, service: str) -> tuple[str, str]:
        """Kind and words of what keeps hints from being used; "" and "" when nothing does."""
        if isinstance(looked, str):
            return "no_policy", f"Whether the Service's internalTrafficPolicy is Local is not known: {looked}"
        if self._local and not some:
            where = f"on our node {self._node}" if self._node else "known to be on our node: set LB_NODE_NAME"
            return (
                "none_local",
                f"internalTrafficPolicy of Service {service} is Local, and none of its endpoints is {where}.",
            )
        if not self._node:
            return "no_place", (
                "LB_PREFER_ZONE is auto, and our node is not known: set LB_NODE_NAME to the pod's spec.nodeName by the "
                "downward API, as the chart does."
            )
        return "", ""
