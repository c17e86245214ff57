"""In a pod, messages name the chart's value beside each variable: a user of Helm has set no variable."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

ELSEWHERE = {
    "LB_KUBERNETES_SERVICE": "backend.service",
    "LB_KUBERNETES_PORT": "backend.port",
    "LB_KUBERNETES_NAMESPACE": "backend.namespace",
    "LB_TLS_CERT": "balancer.tls.secretName",
    "LB_TLS_KEY": "balancer.tls.secretName",
    "LB_ADMIN_TLS_CERT": "balancer.adminTls.secretName",
    "LB_ADMIN_TLS_KEY": "balancer.adminTls.secretName",
    "LB_ADMIN_TOKEN": "balancer.adminTokenSecret",
}
"""Variables that the chart sets from values outside `balancer.settings`."""

FIELDS = ("remedy", "error", "detail")
"""Fields of a log message whose text may ask for another value of a setting."""

_VARIABLE = re.compile(r"\bLB_[A-Z0-9]+(?:_[A-Z0-9]+)*\b(?:=[^\s,;:]+)?")


def value_for(variable: str) -> str:
    """The chart's value that sets `variable`: `balancer.settings.ejectAfter` for LB_EJECT_AFTER."""
    if variable in ELSEWHERE:
        return ELSEWHERE[variable]
    first, *rest = variable.removeprefix("LB_").lower().split("_")
    return "balancer.settings." + first + "".join(part.capitalize() for part in rest)


def beside(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text`; in a pod, the chart's value follows each variable, unless the text names the chart already."""
    if "KUBERNETES_SERVICE_HOST" not in environ or "the chart's" in text or "LB_" not in text:
        return text
    return _VARIABLE.sub(lambda found: f"{found[0]} (the chart's {value_for(found[0].partition('=')[0])})", text)
