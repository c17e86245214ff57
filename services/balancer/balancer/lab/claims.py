"""When to use which strategy: each claim of the documentation, as an experiment that anyone can repeat.

`python -m balancer lab --claims` runs them all and prints the table of docs/strategies.md.

Above 300 lines because it is one list, in the order of that table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from balancer.balancing.policy import Policy
from balancer.lab.claim import BUSIEST, FAILED, FIRST, LAST, MEAN, P50, P99, SECOND, SLOWDOWN, Claim, Finding, try_claim
from balancer.lab.experiment import ALL, HANDED_OVER, NOTHING, Newcomer, Setting
from balancer.lab.fleet import Script, named
from balancer.lab.replica import Rules
from balancer.lab.traffic import KINDS, Kind, Traffic

REQUESTS: Final = 4_000
SEEDS: Final = (1, 2, 3)


def _equal(endpoints: int, workers: int) -> tuple[Script, ...]:
    return tuple(named("equal", endpoints, workers))


_ONE_SLOW: Final = tuple(named("one-slow", 4, 4))
_ONE_FAILING: Final = tuple(named("one-failing", 4, 4))
_ONE_HUNG: Final = tuple(named("one-hung", 4, 4))


def _starts_late(knows: str) -> Setting:
    return Setting(_ONE_SLOW, replicas=2, newcomer=Newcomer(knows, 100))


_NO_RETRIES: Final = Rules(retries=0, response_timeout=1.0)
_NEVER_EJECTED: Final = Rules(Policy(eject_after=1_000_000), retries=0)
_KINDS: Final = Traffic("kinds")
_BY_HEADER: Final = tuple(replace(kind, path="/rpc", method="POST", header=kind.path[1:]) for kind in KINDS)
_RARE: Final = (
    Kind("/items", 1.0, 0.008),
    *(Kind(f"/once/{first}{second}", 0.0002, 0.8, "fixed") for first in "abcde" for second in "klmnopqrst"),
)
_POLLS: Final = (Kind("/items", 0.97, 0.01), Kind("/poll", 0.03, 0.0, "fixed", idle=2.0))
_STREAMS: Final = (Kind("/events", 1.0, 0.008, stream=2.0),)
_HOT: Final = (Kind("/hot", 0.5, 0.008), *(Kind(f"/user/{number}", 0.005, 0.008) for number in range(100)))
_BY_PATH: Final = Rules(Policy(hash_key="path"))
_SLOWER: Final = (*[Script(4)] * 3, Script(4, slower=4.0))
_LONG: Final = Traffic(mean=0.3)
_REPORTED: Final = Setting(
    tuple(replace(script, reports=True) for script in _SLOWER),
    _LONG,
    rules=Rules(Policy(endpoint_load=True, endpoint_load_blackout=1.0)),
)
_TURNS_SLOW: Final = (*[Script(4)] * 3, Script(4, slower=10.0, slower_after=0.5))
_KEPT: Final = Traffic("kinds", kinds=tuple(Kind(f"/user/{name}", 1.0, 0.01, "fixed") for name in range(1000, 1400)))
_KEEPS: Final = Script(4, cache=400)
_SHARDS: Final = tuple(Kind(f"/user/{name}", 1.0, 0.01) for name in range(1000, 1400))

CLAIMS: Final = (
    Claim(
        "round-robin",
        "endpoints are equal and requests cost the same",
        "16 endpoints, 4 workers each, all requests 8 ms",
        Setting(_equal(16, 4), Traffic("fixed")),
        "least-connections",
        P99,
        at_most=1.005,
    ),
    Claim(
        "round-robin",
        "beware: a slow endpoint gets as much as a fast one",
        "one of four endpoints 10 times as slow",
        Setting(_ONE_SLOW),
        "least-connections",
        LAST,
        at_least=3.0,
        at_most=30.0,
    ),
    Claim(
        "round-robin",
        "endpoints differ, and report their load (`LB_ENDPOINT_LOAD`)",
        "one of four endpoints 4 times as slow, requests of 300 ms",
        _REPORTED,
        "round-robin, without reports",
        P99,
        at_most=0.2,
        elsewhere=Setting(_SLOWER, _LONG),
    ),
    Claim(
        "least-connections",
        "requests differ in cost",
        "16 endpoints of one worker",
        Setting(_equal(16, 1)),
        "round-robin",
        P99,
        at_most=0.8,
    ),
    Claim(
        "least-connections",
        "connections last",
        "4 endpoints that carry 8 at once, connections of 2 s, load 0.8",
        Setting(_equal(4, 8), Traffic(mean=2.0), load=0.8, rules=Rules(response_timeout=600.0, client_timeout=600.0)),
        "round-robin",
        MEAN,
        at_most=0.95,
    ),
    Claim(
        "least-connections",
        "each endpoint should hold just its share",
        "one of four endpoints 10 times as slow to answer, responses that then last 2 s, load 0.05",
        Setting(_ONE_SLOW, Traffic("kinds", kinds=_STREAMS), load=0.05),
        "least-work",
        LAST,
        at_least=5.0,
        at_most=50.0,
    ),
    Claim(
        "least-connections",
        "beware: an endpoint that fails fast looks idle",
        "one of four endpoints fails; no ejection, no retries",
        Setting(_ONE_FAILING, rules=_NEVER_EJECTED),
        "least-response-time",
        FAILED,
        at_least=10.0,
        at_most=float("inf"),
    ),
    Claim(
        "least-connections",
        "reports of load (`LB_ENDPOINT_LOAD`) help it too, though less",
        "one of four endpoints 4 times as slow, requests of 300 ms",
        _REPORTED,
        "least-connections, without reports",
        P99,
        at_least=0.4,
        at_most=0.85,
        elsewhere=Setting(_SLOWER, _LONG),
    ),
    Claim(
        "least-response-time",
        "endpoints differ",
        "one of four endpoints 10 times as slow",
        Setting(_ONE_SLOW),
        "least-connections",
        P99,
        at_most=0.6,
    ),
    Claim(
        "least-response-time",
        "some turn slow",
        "one of four endpoints turns 10 times as slow after half a second",
        Setting(_TURNS_SLOW),
        "least-connections",
        P99,
        at_most=0.6,
    ),
    Claim(
        "least-response-time",
        "it notices that sooner than least-work",
        "one of four endpoints turns 10 times as slow after half a second",
        Setting(_TURNS_SLOW),
        "least-work",
        P99,
        at_most=0.95,
    ),
    Claim(
        "least-response-time",
        "some hang at times",
        "one of four endpoints hangs; no retries",
        Setting(_ONE_HUNG, rules=_NO_RETRIES),
        "least-connections",
        FAILED,
        at_most=0.8,
    ),
    Claim(
        "least-response-time",
        "some fail at times",
        "one of four endpoints fails; no retries",
        Setting(_ONE_FAILING, rules=_NO_RETRIES),
        "least-connections",
        FAILED,
        at_most=0.6,
    ),
    Claim(
        "least-response-time",
        "several replicas that do not know of each other, endpoints that differ",
        "8 blind replicas, one of 8 endpoints 10 times as slow",
        Setting(tuple(named("one-slow", 8, 4)), replicas=8),
        "least-connections",
        P99,
        at_most=0.6,
    ),
    Claim(
        "least-response-time",
        "there it is better than least-work too",
        "8 blind replicas, one of 8 endpoints 10 times as slow",
        Setting(tuple(named("one-slow", 8, 4)), replicas=8),
        "least-work",
        P99,
        at_most=0.9,
    ),
    Claim(
        "least-response-time",
        "beware: with one replica least-work does better, even where no path shows what a request costs",
        "8 endpoints of one worker, one of them 4 times as slow, heavy-tailed costs that nothing shows",
        Setting((*[Script(1)] * 7, Script(1, slower=4.0)), Traffic("heavy-unknown", mean=0.03), load=0.6),
        "least-work",
        P99,
        at_least=1.15,
        at_most=3.0,
    ),
    Claim(
        "least-response-time",
        "beware: a rare expensive request of an unknown kind looks like a slow endpoint",
        "8 endpoints of one worker; one request in a hundred takes 0.8 s, and has a path of its own",
        Setting(_equal(8, 1), Traffic("kinds", kinds=_RARE)),
        "least-connections",
        MEAN,
        at_least=1.05,
        at_most=2.0,
    ),
    Claim(
        "least-response-time",
        "beware: pauses of all endpoints look like slow ones",
        "4 endpoints that pause for 150 ms now and then",
        Setting(tuple(named("noisy", 4, 4))),
        "least-connections",
        P99,
        at_least=1.0,
        at_most=2.0,
    ),
    Claim(
        "least-work",
        "requests differ in cost and the path shows it",
        "16 endpoints of one worker, three kinds of request of 4, 20 and 300 ms",
        Setting(_equal(16, 1), _KINDS),
        "least-connections",
        SLOWDOWN,
        at_most=0.8,
    ),
    Claim(
        "least-work",
        "requests differ in cost and a header shows it (`LB_COST_KEY`)",
        "the same, all by one path, with a header that names the kind",
        Setting(_equal(16, 1), Traffic("kinds", kinds=_BY_HEADER), rules=Rules(Policy(cost_key="header:x-kind"))),
        "least-connections",
        SLOWDOWN,
        at_most=0.8,
    ),
    Claim(
        "least-work",
        "some requests wait for something, as long polls do",
        "4 endpoints on asyncio, which work on one request at a time; 4 polls of 2 s at each",
        Setting(_equal(4, 1), Traffic("kinds", kinds=_POLLS)),
        "least-connections",
        P50,
        at_most=0.8,
    ),
    Claim(
        "least-work",
        "and endpoints differ",
        "8 endpoints of one worker, one of them 4 times as slow, the same requests",
        Setting((*[Script(1)] * 7, Script(1, slower=4.0)), _KINDS),
        "least-connections",
        MEAN,
        at_most=0.9,
    ),
    Claim(
        "least-work",
        "one endpoint is slow",
        "one of four endpoints 10 times as slow",
        Setting(_ONE_SLOW),
        "least-response-time",
        P99,
        at_most=1.02,
    ),
    Claim(
        "least-work",
        "endpoints turn slow",
        "one of four endpoints turns 10 times as slow after half a second",
        Setting(_TURNS_SLOW),
        "least-connections",
        P99,
        at_most=0.75,
    ),
    Claim(
        "least-work",
        "where requests and endpoints do not differ it chooses as least-connections does",
        "16 endpoints of one worker",
        Setting(_equal(16, 1)),
        "least-connections",
        P99,
        at_least=0.99,
        at_most=1.01,
    ),
    Claim(
        "least-work",
        "beware: it has to learn, and is least-connections until it has",
        "16 endpoints of one worker, the same requests, the first 200",
        Setting(_equal(16, 1), _KINDS),
        "least-connections",
        SLOWDOWN,
        at_least=0.9,
        at_most=1.1,
        requests=200,
    ),
    Claim(
        "least-work",
        "a replica that has just started knows what the others have learned (`LB_PEERS`)",
        "the second of two replicas starts late, its first 100 requests; one of four endpoints 10 times as slow",
        _starts_late(HANDED_OVER),
        "least-work, one that knows nothing",
        P99,
        at_most=0.6,
        elsewhere=_starts_late(NOTHING),
    ),
    Claim(
        "least-work",
        "and chooses as well as one that has been there from the start",
        "the same",
        _starts_late(HANDED_OVER),
        "least-work, one that has been there",
        P99,
        at_least=0.5,
        at_most=1.3,
        elsewhere=_starts_late(ALL),
    ),
    Claim(
        "random-of-two",
        "many replicas that do not know of each other: about as good as least-connections",
        "8 blind replicas, 16 endpoints of one worker",
        Setting(_equal(16, 1), replicas=8),
        "least-connections",
        P99,
        at_most=1.1,
    ),
    Claim(
        "random-of-two",
        "beware: it meets a slow endpoint more often",
        "one of four endpoints 10 times as slow",
        Setting(_ONE_SLOW),
        "least-connections",
        P99,
        at_least=1.05,
        at_most=3.0,
    ),
    Claim(
        "random-of-two",
        "beware: with one replica it is worse",
        "16 endpoints of one worker",
        Setting(_equal(16, 1)),
        "least-connections",
        P99,
        at_least=1.1,
        at_most=2.0,
    ),
    Claim(
        "consistent-hash",
        "endpoints keep something for a key",
        "8 endpoints; each keeps 80 of 400 users' data, with which a request takes a tenth; hashed by path",
        Setting(
            tuple(Script(4, cache=80) for _ in range(8)),
            Traffic("kinds", kinds=_SHARDS),
            load=0.5,
            rules=_BY_PATH,
        ),
        "least-connections",
        MEAN,
        at_most=0.6,
    ),
    Claim(
        "consistent-hash",
        "the bound on load moves a part of a hot key's requests to others",
        "8 endpoints of one worker; half of the requests have one path; hashed by path",
        Setting(_equal(8, 1), Traffic("kinds", kinds=_HOT), load=0.6, rules=_BY_PATH),
        "consistent-hash, at load 0.02, where it moves next to none",
        BUSIEST,
        at_least=0.25,
        at_most=0.5,
        elsewhere=Setting(_equal(8, 1), Traffic("kinds", kinds=_HOT), load=0.02, rules=_BY_PATH),
    ),
    Claim(
        "consistent-hash",
        "beware: some keys are hotter than others",
        "8 endpoints of one worker that keep nothing; half of the requests have one path; hashed by path",
        Setting(_equal(8, 1), Traffic("kinds", kinds=_HOT), load=0.6, rules=_BY_PATH),
        "least-connections",
        P99,
        at_least=1.1,
        at_most=3.0,
    ),
    Claim(
        "n-to-one",
        "one active endpoint, the others in reserve",
        "4 endpoints, load 0.15",
        Setting(_equal(4, 4), load=0.15),
        "round-robin",
        FIRST,
        at_least=4.0,
        at_most=4.01,
    ),
    Claim(
        "n-to-one",
        "the next takes over while it is out",
        "the first of 4 endpoints is down, load 0.15",
        Setting((Script(4, joins_after=1e9), *_equal(3, 4)), load=0.15),
        "round-robin",
        SECOND,
        at_least=2.9,
        at_most=3.01,
    ),
    Claim(
        "n-to-one",
        "beware: the others are cold when they are needed",
        "4 endpoints that keep the data of 400 users, with which a request takes a tenth; the first leaves after 10 s",
        Setting((Script(4, cache=400, leaves_after=10.0), *[_KEEPS] * 3), _KEPT, load=0.15),
        "n-to-one, where it stays",
        MEAN,
        at_least=1.15,
        at_most=2.0,
        elsewhere=Setting((_KEEPS,) * 4, _KEPT, load=0.15),
    ),
)
"""In the order of the table of strategies."""


def check(
    requests: int = REQUESTS, seeds: Sequence[int] = SEEDS, progress: Callable[[int], None] | None = None
) -> Iterator[Finding]:
    """Try every claim, with `requests` requests for each of `seeds`."""
    for claim in CLAIMS:
        yield try_claim(claim, requests, seeds, progress)
