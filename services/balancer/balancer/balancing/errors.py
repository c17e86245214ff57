"""Why there is no endpoint for a request. The proxy turns `reason` into a status, a Proxy-Status and a log line."""

from __future__ import annotations

from typing import ClassVar


class NoEndpoint(Exception):
    """No endpoint can take the request now; `reason` is the short standard text, `remedy` a sentence for a person."""

    reason: ClassVar[str] = "no endpoints"
    remedy: ClassVar[str] = "Discovery has found no endpoint: see /readyz of the admin port for what it last said."


class AllEjected(NoEndpoint):
    """Every endpoint is ejected, unhealthy or drained by hand, and panic does not apply."""

    reason: ClassVar[str] = "all ejected"
    remedy: ClassVar[str] = "Every endpoint failed lately: see /api/endpoints of the admin port for each one's reason."


class AllAtLimit(NoEndpoint):
    """Every endpoint has LB_ENDPOINT_MAX_REQUESTS in flight: the request may wait in the queue."""

    reason: ClassVar[str] = "all at their limit"
    remedy: ClassVar[str] = (
        "Every endpoint has as many requests as LB_ENDPOINT_MAX_REQUESTS allows: add endpoints or raise it."
    )


class QueueFull(AllAtLimit):
    """As many requests wait already as LB_QUEUE_SIZE allows."""

    reason: ClassVar[str] = "queue full"
    remedy: ClassVar[str] = "LB_QUEUE_SIZE requests wait already for an endpoint below its limit: add endpoints."


class AllTried(NoEndpoint):
    """There are endpoints, but this request has tried each of them."""

    reason: ClassVar[str] = "all tried"
    remedy: ClassVar[str] = "Each endpoint has failed this request once."
