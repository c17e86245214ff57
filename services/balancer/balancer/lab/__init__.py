"""The lab: the real pool, strategies, ejection, retries and queue under a simulated clock.

It answers "what would happen if": another strategy, more replicas, a slow endpoint. It holds no second copy of any rule
of balancing, only what balancing meets: a clock, endpoints that work and fail, and clients. Nothing but the command
line imports it. `python -m balancer lab --help` says what it can do.
"""
