"""Why there is no endpoint for a request. The proxy turns `reason` into a status, a Proxy-Status and a log line."""

from __future__ import annotations


class NoEndpoint(Exception):
    """No endpoint can take the request now; `reason` is the short standard text, `remedy` a sentence for a person."""

    reason = "no endpoints"
    remedy = "Discovery has found no endpoint: see /readyz of the admin port for what it last said."


class AllEjected(NoEndpoint):
    """Every endpoint is ejected, unhealthy or drained by hand, and panic does not apply."""

    reason = "all ejected"
    remedy = "Every endpoint failed lately: see /api/endpoints of the admin port for each one's reason."


class AllAtLimit(NoEndpoint):
    """Every endpoint has LB_ENDPOINT_MAX_REQUESTS in flight: the request may wait in the queue."""

    reason = "all at their limit"
    remedy = "Every endpoint has as many requests as LB_ENDPOINT_MAX_REQUESTS allows: add endpoints or raise it."


class QueueFull(AllAtLimit):
    """As many requests wait already as LB_QUEUE_SIZE allows."""

    reason = "queue full"
    remedy = "LB_QUEUE_SIZE requests wait already for an endpoint below its limit: add endpoints."


class AllTried(NoEndpoint):
    """There are endpoints, but this request has tried each of them."""

    reason = "all tried"
    remedy = "Each endpoint has failed this request once."
