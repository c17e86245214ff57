"""Settings: read once from the environment, checked together, frozen."""

from __future__ import annotations

from balancer.settings.backends import parse_backend, parse_backends, parse_backends_file
from balancer.settings.environment import SettingsError, load, service_links, value_of
from balancer.settings.model import Settings, table
from balancer.settings.table import Row

__all__ = [
    "Row",
    "Settings",
    "SettingsError",
    "load",
    "parse_backend",
    "parse_backends",
    "parse_backends_file",
    "service_links",
    "table",
    "value_of",
]
