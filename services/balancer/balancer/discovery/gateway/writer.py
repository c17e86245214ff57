"""Writes what a plan wants written: Services for Gateways, and statuses. Only the leader does.

A write names the version of the object that it was made for: a change made meanwhile wins, and the event of that
change makes the next plan.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Final

import structlog

from balancer.discovery.gateway.addresses import ServiceWrite
from balancer.discovery.gateway.api import CONFLICT, MISSING, ClusterApi, Refused
from balancer.discovery.gateway.objects import GROUP, Json, Meta
from balancer.discovery.gateway.policies import GROUP as POLICY_GROUP
from balancer.discovery.gateway.policies import PLURAL
from balancer.discovery.gateway.result import Plan, StatusWrite
from balancer.discovery.kubeapi import ApiError

AT_ONCE: Final = 8
"""Writes under way together."""
RETRY: Final = 1.0
"""Seconds until a write that failed is made again."""

PATHS: Final = {
    "GatewayClass": f"/apis/{GROUP}/v1/gatewayclasses",
    "Gateway": f"/apis/{GROUP}/v1/namespaces/{{}}/gateways",
    "BackendTLSPolicy": f"/apis/{GROUP}/v1/namespaces/{{}}/backendtlspolicies",
    "ListenerSet": f"/apis/{GROUP}/v1/namespaces/{{}}/listenersets",
    "LoadBalancingPolicy": f"/apis/{POLICY_GROUP}/v1alpha1/namespaces/{{}}/{PLURAL}",
    "GRPCRoute": f"/apis/{GROUP}/v1/namespaces/{{}}/grpcroutes",
    "Ingress": "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "HTTPRoute": f"/apis/{GROUP}/v1/namespaces/{{}}/httproutes",
    "TLSRoute": f"/apis/{GROUP}/v1/namespaces/{{}}/tlsroutes",
    "TCPRoute": f"/apis/{GROUP}/v1/namespaces/{{}}/tcproutes",
}

Write = Callable[[], Coroutine[None, None, None]]

log = structlog.get_logger()


class Writer:
    """Writes the latest plan; one that comes while another is written waits, and only the last of those."""

    def __init__(self, api: ClusterApi, leads: Callable[[], bool], again: Callable[[], None]) -> None:
        """`again` asks for a new plan: a write has failed."""
        self._api = api
        self._leads = leads
        self._again = again
        self._latest: Plan | None = None
        self._wanted = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._fault = ""
        """What is wrong, as logged."""
        self._missed: list[str] = []
        """Why writes of this plan have not been made; empty words for one that came too late."""
        self._retry: asyncio.TimerHandle | None = None

    def write(self, plan: Plan) -> None:
        """Write what this plan wants, and nothing of those before."""
        self._latest = plan
        self._wanted.set()

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                plan, self._latest = self._latest, None
                if plan is not None and self._leads():
                    await self._written(plan)
        finally:
            if self._retry is not None:
                self._retry.cancel()

    async def _written(self, plan: Plan) -> None:
        self._missed = []
        # Services first: a Gateway's address comes from there.
        await self._all([partial(self._service, each) for each in plan.services])
        await self._all([partial(self._delete, each) for each in plan.obsolete])
        await self._all([partial(self._status, each) for each in plan.statuses])
        fault = next(filter(None, self._missed), "")
        if fault and fault != self._fault:
            log.warning("gateway write failed", error=fault)
        self._fault = fault
        if self._missed and self._retry is None:
            # Not waited for: what others want written need not wait for what is refused time and again.
            self._retry = asyncio.get_running_loop().call_later(RETRY, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._again()

    async def _all(self, writes: Sequence[Write]) -> None:
        if writes:
            await asyncio.gather(*map(self._attempt, writes))

    async def _attempt(self, write: Write) -> None:
        async with self._slots:
            if not self._leads():  # Lost meanwhile: another may write by now.
                return
            try:
                await write()
            except Refused as refused:
                if refused.status == CONFLICT:
                    # Its object has changed meanwhile, whose event makes the next plan; but there are conflicts about
                    # others, such as a ResourceQuota, that no event comes of.
                    self._missed.append("")
                elif refused.status != MISSING:
                    self._missed.append(str(refused))
            except ApiError as error:
                self._missed.append(str(error))

    async def _service(self, write: ServiceWrite) -> None:
        path = f"/api/v1/namespaces/{self._api.namespace}/services"
        if write.exists:
            await self._api.call("PATCH", f"{path}/{write.name}", body=write.body)
        else:
            await self._api.call("POST", path, body=write.body)

    async def _delete(self, meta: Meta) -> None:
        path = f"/api/v1/namespaces/{self._api.namespace}/services/{meta.name}"
        # Neither one that was made again, nor one that is another's by now.
        unchanged = {"uid": meta.uid, "resourceVersion": meta.version}
        await self._api.call("DELETE", path, body={"preconditions": unchanged})

    async def _status(self, write: StatusWrite) -> None:
        namespace, name = write.key
        body: Json = {"metadata": {"resourceVersion": write.version}, "status": write.status}
        await self._api.call("PATCH", f"{PATHS[write.kind].format(namespace)}/{name}/status", body=body)
