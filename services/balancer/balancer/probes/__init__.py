"""Active health checks: each endpoint is asked now and then, off the request path, whether it is healthy."""

from balancer.probes.ask import Ask
from balancer.probes.checking import MAX_AT_ONCE, Probes
from balancer.probes.schedule import Schedule, Streak

__all__ = ["MAX_AT_ONCE", "Ask", "Probes", "Schedule", "Streak"]
