"""Who writes: one replica, by a Lease (coordination.k8s.io), as others' leader elections do it.

A lease that nobody renews is taken when it has looked the same for its whole duration by our own clock: two machines'
clocks need not agree. It is given back at the end, so that the next replica writes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from balancer.discovery.gateway.api import CONFLICT, MISSING, ClusterApi, Refused
from balancer.discovery.gateway.objects import Json
from balancer.discovery.kubeapi import ApiError

DURATION: Final = 15
"""Seconds after which a lease that is not renewed is free."""
RENEW: Final = 3.0
"""Seconds between two looks at it."""
GIVE_UP: Final = 10.0
"""Seconds without a renewal after which the leader stops to write: well before another may begin."""

log = structlog.get_logger()


class Leadership:
    """Tries for ever to be the leader, and says when it is."""

    def __init__(
        self, api: ClusterApi, name: str, identity: str, clock: Callable[[], float], gained: Callable[[], None]
    ) -> None:
        """`gained` is called whenever we have become the leader; `clock` never goes back (s)."""
        self._api = api
        self._name = name
        self._identity = identity
        self._clock = clock
        self._gained = gained
        self._seen: Any = None
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self._leads = False

    @property
    def leads(self) -> bool:
        """Whether we may write now."""
        return self._leads and self._clock() - self._renewed_at < GIVE_UP

    async def run(self) -> None:
        """Hold the lease or wait for it, until cancelled."""
        while True:
            try:
                await self._step()
            except ApiError as error:
                log.debug("lease not renewed", lease=self._name, error=str(error))
            await asyncio.sleep(RENEW)

    async def release(self) -> None:
        """Let another have it at once."""
        if self.leads:
            self._leads = False
            with suppress(ApiError):
                lease = await self._api.call("GET", self._path(self._name))
                if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                    await self._write(lease, "")

    async def _step(self) -> None:
        try:
            lease = await self._api.call("GET", self._path(self._name))
        except Refused as refused:
            if refused.status != MISSING:
                raise
            lease = {"metadata": {"name": self._name}}
        now = self._clock()  # By now, however long the answer took: it may have been renewed while we waited.
        spec = lease.get("spec") or {}
        holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime")
        if (holder, renewed) != self._seen:
            self._seen, self._seen_at = (holder, renewed), now
        free = not holder or holder == self._identity or now - self._seen_at > DURATION
        if not free:
            self._leads = False
            return
        try:
            await self._write(lease, self._identity)
        except Refused as refused:
            if refused.status != CONFLICT:
                raise
            self._leads = False
            return
        led = self.leads
        self._leads, self._renewed_at = True, now
        if not led and self.leads:
            log.info("leading", lease=self._name)
            self._gained()

    async def _write(self, lease: Json, holder: str) -> None:
        spec = dict(lease.get("spec") or {})
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        if spec.get("holderIdentity") != holder:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec.update(holderIdentity=holder, renewTime=now, leaseDurationSeconds=DURATION)
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": lease["metadata"], "spec": spec}
        exists = bool(lease["metadata"].get("resourceVersion"))
        await self._api.call("PUT" if exists else "POST", self._path(self._name if exists else ""), body=body)

    def _path(self, name: str) -> str:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self._api.namespace}/leases"
        return f"{path}/{name}" if name else path
