"""The rules that a pool keeps, as the settings give them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """The pool's rules, as plain values; each is the setting `LB_…` of the same name."""

    mode: str = "http"
    endpoint_max_requests: int | None = None
    queue_size: int = 1024
    eject_after: int = 5
    eject_time: float = 10.0
    eject_max_share: float = 0.5
    panic_share: float = 0.3
    slow_start: float = 0.0
    prefer_zone: str | None = None
    hash_key: str = "client-ip"
    cost_key: str = ""
    endpoint_load: bool = False
    endpoint_load_blackout: float = 10.0
    endpoint_load_expiry: float = 180.0
