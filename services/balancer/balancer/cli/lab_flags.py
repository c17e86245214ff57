"""The flags of `python -m balancer lab`, and the endpoints that they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from balancer.balancing.cost import RequestKinds
from balancer.balancing.strategies import STRATEGIES
from balancer.lab import replay
from balancer.lab.fleet import FLEETS, Script
from balancer.lab.traffic import ARRIVALS, COSTS

REQUESTS: Final = 20_000
"""Of each run, where the traffic is simulated."""

MOST: Final = 1e9
"""Of anything."""
_WHOLE: Final = ("workers", "queue", "cache")
_SWITCHES: Final = ("hangs", "reports")
_ABOVE_ZERO: Final = ("workers", "slower", "weight")
"""Of these, what has to be above 0; the others are 0 or more."""
SHORTEST: Final = 0.001
"""Seconds between two pauses, or two reports, at the least: each is an event."""

DESCRIBED: Final = (
    *("fleet", "endpoints", "workers", "endpoint"),
    *("costs", "mean", "arrivals", "burst", "users", "load"),
)
"""What a recording brings itself."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    fleet = parser.add_argument_group("endpoints")
    fleet.add_argument("--fleet", choices=FLEETS, default="equal", help="a fleet by name (equal)")
    fleet.add_argument("--endpoints", type=_positive, default=4, metavar="N", help="its size (4)")
    fleet.add_argument("--workers", type=_positive, default=4, metavar="N", help="requests an endpoint works on (4)")
    fleet.add_argument(
        "--endpoint",
        action="append",
        metavar="[N*]KEY=VALUE,…",
        help="one endpoint (or N alike) instead of --fleet, repeatedly: workers, slower, fails (a share), hangs, "
        "pause_every and pause (s), joins_after (s), slower_after (s), leaves_after (s), queue, weight, cache (paths), "
        "reports",
    )
    fleet.add_argument("--load-reports", action="store_true", help="all report their load: LB_ENDPOINT_LOAD=orca")
    parser.add_argument("logs", nargs="*", metavar="LOG", help="the same as --replay LOG…")
    traffic = parser.add_argument_group("traffic")
    traffic.add_argument("--costs", choices=COSTS, default="exponential", help="how costs are spread (exponential)")
    traffic.add_argument("--mean", type=_above_zero, default=0.008, metavar="S", help="work of a request (0.008)")
    traffic.add_argument("--arrivals", choices=ARRIVALS, default="poisson", help="how requests come (poisson)")
    traffic.add_argument("--burst", type=_positive, default=20, metavar="N", help="requests of a burst (20)")
    traffic.add_argument("--users", type=_positive, default=64, metavar="N", help="clients of a closed loop (64)")
    traffic.add_argument("--load", type=_above_zero, default=0.7, metavar="X", help="share of capacity (0.7)")
    traffic.add_argument(
        "--requests",
        type=_positive,
        metavar="N",
        help=f"of each run ({REQUESTS:,}); of a replay the newest at most ({replay.MOST:,})",
    )
    traffic.add_argument(
        "--replay",
        nargs="+",
        default=[],
        metavar="LOG",
        help="access logs instead, gzipped or not; - is standard input",
    )
    traffic.add_argument("--cluster", default="", metavar="NAME", help="which Service's, where routes lead to several")
    balancer = parser.add_argument_group("balancer")
    balancer.add_argument(
        "--strategies", "--strategy", default=",".join(_default()), metavar="A,B", help="which; module:Class too"
    )
    balancer.add_argument("--replicas", type=_replicas, default=1, metavar="N", help="1 to 8 balancers (1)")
    balancer.add_argument("--news-every", type=_every, default=0.0, metavar="S", help="they report so often (never)")
    balancer.add_argument("--naive", action="store_true", help="and believe every word, however old it is")
    balancer.add_argument(
        "--news-late", type=_from_zero, default=0.0, metavar="S", help="and a report takes so long (0)"
    )
    balancer.add_argument(
        "--newcomer",
        type=_positive,
        metavar="N",
        help="the last replica starts at half-time, and only its first N requests are measured",
    )
    balancer.add_argument(
        "--hand-over", action="store_true", help="and takes over what the first replica has learned until then"
    )
    balancer.add_argument(
        "--hash-key", choices=("client-ip", "path"), default="client-ip", help="LB_HASH_KEY (client-ip)"
    )
    balancer.add_argument("--cost-key", type=_cost_key, default="", metavar="path:RE", help="LB_COST_KEY (none)")
    balancer.add_argument("--limit", type=_positive, metavar="N", help="LB_ENDPOINT_MAX_REQUESTS (none)")
    balancer.add_argument("--eject-after", type=_from_zero_whole, default=5, metavar="N", help="LB_EJECT_AFTER (5)")
    balancer.add_argument("--eject-time", type=_above_zero, default=10.0, metavar="S", help="LB_EJECT_TIME (10)")
    balancer.add_argument("--slow-start", type=_from_zero, default=0.0, metavar="S", help="LB_SLOW_START (0)")
    balancer.add_argument(
        "--blackout", type=_from_zero, default=10.0, metavar="S", help="LB_ENDPOINT_LOAD_BLACKOUT (10)"
    )
    balancer.add_argument("--retries", type=_from_zero_whole, default=2, metavar="N", help="LB_RETRIES (2)")
    balancer.add_argument(
        "--retry-statuses", type=_statuses, default="503", metavar="N,N", help="LB_RETRY_STATUSES, or none (503)"
    )
    balancer.add_argument("--timeout", type=_above_zero, default=30.0, metavar="S", help="LB_RESPONSE_TIMEOUT (30)")
    output = parser.add_argument_group("output")
    output.add_argument("--seeds", type=_positive, default=5, metavar="N", help="runs of each strategy (5)")
    output.add_argument(
        "--claims", action="store_true", help="instead, try what docs/strategies.md says of when to use which strategy"
    )
    output.add_argument("--json", action="store_true", help="print JSON")
    output.add_argument("--svg", type=Path, metavar="FILE", help="write the picture there")


def check(arguments: argparse.Namespace) -> None:
    """Raise ValueError for a flag that would say nothing beside the others."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    if arguments.replay:
        for name in DESCRIBED:
            if getattr(arguments, name) != parser.get_default(name):
                raise ValueError(f"--{name} describes what a recording brings itself: leave out the one or the other")
    for name, arrivals in (("users", "closed"), ("burst", "bursts")):
        if arguments.arrivals != arrivals and getattr(arguments, name) != parser.get_default(name):
            raise ValueError(f"--{name} needs --arrivals {arrivals}")
    if arguments.replicas < 2:
        if arguments.news_every or arguments.news_late or arguments.naive:
            raise ValueError("what is reported needs --replicas 2 or more, to report it to each other")
        if arguments.newcomer is not None:
            raise ValueError("--newcomer needs --replicas 2 or more")
    if not arguments.news_every and (arguments.news_late or arguments.naive):
        raise ValueError("--news-late and --naive need --news-every: without it nothing is reported")
    if arguments.hand_over and arguments.newcomer is None:
        raise ValueError("--hand-over needs --newcomer, a replica to hand over to")


def scripts(spec: str, workers: int) -> list[Script]:
    """`3*slower=10,workers=2` as endpoints."""
    number, star, rest = spec.partition("*")
    if not star:
        number, rest = "1", spec
    values: dict[str, object] = {"workers": workers}
    for pair in rest.split(",") if rest else ():
        key, _, value = pair.partition("=")
        if key not in Script.__slots__:
            raise ValueError(f"--endpoint {spec!r}: unknown {key!r}: allowed are {', '.join(Script.__slots__)}")
        if key in _SWITCHES:
            values[key] = _switch(spec, key, value)
            continue
        try:
            made = values[key] = int(value) if key in _WHOLE else float(value)
        except ValueError as error:
            raise ValueError(f"--endpoint {spec!r}: {key} is no number: {value!r}") from error
        most = 1.0 if key == "fails" else MOST
        too_small = (key in _ABOVE_ZERO and made == 0) or (key == "pause_every" and 0 < made < SHORTEST)
        if too_small or not 0 <= made <= most:
            raise ValueError(f"--endpoint {spec!r}: {key} cannot be {value}")
    if not number.isdigit() or int(number) < 1:
        raise ValueError(f"--endpoint {spec!r}: {number!r} is no number of endpoints")
    return [Script(**values)] * int(number)  # type: ignore[arg-type]


def _default() -> list[str]:
    return [name for name in STRATEGIES if name not in ("n-to-one", "primary-backup", "consistent-hash")]


def _switch(spec: str, key: str, text: str) -> bool:
    if text not in ("1", "true", "yes", "0", "false", "no"):
        raise ValueError(f"--endpoint {spec!r}: {key} is 1 or 0, not {text!r}")
    return text in ("1", "true", "yes")


def _cost_key(text: str) -> str:
    if text and not text.startswith("path:"):
        raise argparse.ArgumentTypeError(f"{text!r}: only path:REGULAR-EXPRESSION, since an access log has no headers")
    try:
        RequestKinds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error


def _positive(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _from_zero_whole(text: str) -> int:
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def _from_zero(text: str) -> float:
    value = _number(text)
    if not 0.0 <= value <= MOST:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def _every(text: str) -> float:
    value = _from_zero(text)
    if 0.0 < value < SHORTEST:
        raise argparse.ArgumentTypeError(f"must be 0, or {SHORTEST:g} or more")
    return value


def _statuses(text: str) -> frozenset[int]:
    found = frozenset(_whole(each) for each in text.split(",")) if text != "none" else frozenset()
    if not all(400 <= each <= 599 for each in found):
        raise argparse.ArgumentTypeError("must be from 400 to 599 each")
    return found


def _replicas(text: str) -> int:
    value = _whole(text)
    if not 1 <= value <= 8:
        raise argparse.ArgumentTypeError("must be 1 to 8")
    return value


def _above_zero(text: str) -> float:
    value = _number(text)
    if not 0.0 < value <= MOST:
        raise argparse.ArgumentTypeError("must be above 0")
    return value
