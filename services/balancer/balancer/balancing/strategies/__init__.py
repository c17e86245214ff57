"""The strategies, one a file, and the registry that gives each its name."""

from __future__ import annotations

from balancer.balancing.chance import Random
from balancer.balancing.strategies.round_robin import RoundRobin
from balancer.balancing.strategies.strategy import Strategy

__all__ = ["Random", "RoundRobin", "Strategy"]
