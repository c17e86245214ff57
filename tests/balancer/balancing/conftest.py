"""How hypothesis runs here: as long as a loaded machine takes, and often enough for a quick `make test`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "balancing", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("balancing")
