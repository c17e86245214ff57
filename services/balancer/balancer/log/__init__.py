"""What the balancer logs: messages about transitions on stderr, one line a request on stdout.

Neither ever holds up a request, and whatever a client or an endpoint sent is escaped, so that no line can be forged.
"""

from __future__ import annotations

from balancer.log.access import AccessEntry, AccessLog
from balancer.log.messages import configure
from balancer.log.output import Output

__all__ = ["AccessEntry", "AccessLog", "Output", "configure"]
