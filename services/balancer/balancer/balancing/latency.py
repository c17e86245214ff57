"""The latency of an endpoint, as one number that rises at once and falls slowly."""

from __future__ import annotations


class PeakEwma:
    """To be written: see issue 3, least-response-time."""
