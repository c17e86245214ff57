"""Every metric there is, in one table: the collector and docs/metrics.md are both made from it.

Counting costs nothing on the hot path: a `read` looks at plain integers when Prometheus asks. What belongs to one
endpoint has the labels `cluster` and `endpoint` and goes when the endpoint does; histograms are kept for the whole. No
label comes from a request, so that no client can make the number of series grow.

Above 300 lines because it is that table: the functions that read more than one attribute come first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from balancer import __version__
from balancer.admin.state import STATES, state_of
from balancer.admin.status import Running
from balancer.balancing.endpoint import Endpoint
from balancer.balancing.learned import expected_work
from balancer.counters import GRPC_CODES, Histogram

Reading = tuple[tuple[str, ...], float | Histogram]
"""The labels' values and the metric's."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of metrics."""

    name: str
    """As Prometheus shows it: a counter ends in `_total`; the unit, where there is one, comes before that."""
    kind: str
    """`counter`, `gauge` or `histogram`."""
    meaning: str
    read: Callable[[Running], Iterable[Reading]]
    labels: tuple[str, ...] = ()
    values: str = ""
    """What the last label may be, for the docs."""


def whole(value: Callable[[Running], float | Histogram]) -> Callable[[Running], Iterable[Reading]]:
    """One value without labels."""
    return lambda running: [((), value(running))]


def table(value: Callable[[Running], Mapping[str, int]]) -> Callable[[Running], Iterable[Reading]]:
    """A value for each key of a table that the data plane counts in."""
    return lambda running: [((key,), count) for key, count in sorted(value(running).items())]


def each(value: Callable[[Endpoint], float]) -> Callable[[Running], Iterable[Reading]]:
    """A value for each endpoint."""
    return lambda running: ((_of(endpoint), value(endpoint)) for endpoint in _endpoints(running))


def _listener_requests(running: Running) -> Iterator[Reading]:
    return (((gateway, str(port)), requests) for gateway, port, requests, _ in running.listeners())


def _listener_responses(running: Running) -> Iterator[Reading]:
    for gateway, port, _, responses in running.listeners():
        for (digits,), count in classes(responses):
            yield (gateway, str(port), digits), count


def classes(counts: list[int]) -> Iterator[Reading]:
    """Counts by the first digit of the status, those that are not zero."""
    return (((f"{digit}xx",), count) for digit, count in enumerate(counts) if count and digit)


def grpc_codes(counts: list[int]) -> Iterator[Reading]:
    """Counts by the name of the status, those that are not zero."""
    return (((name,), count) for name, count in zip((*GRPC_CODES, "other"), counts, strict=True) if count)


def _endpoints(running: Running) -> Iterable[Endpoint]:
    # A pod may have the address that another, still in the snapshot, had before: a series must not come twice.
    return {_of(endpoint): endpoint for endpoint in running.endpoints}.values()


def _of(endpoint: Endpoint) -> tuple[str, str]:
    """The labels of what belongs to one endpoint: a pod may be one of several clusters'."""
    return endpoint.cluster, endpoint.address


def _information(running: Running) -> Iterator[Reading]:
    for endpoint in _endpoints(running):
        yield (*_of(endpoint), endpoint.spec.name, endpoint.spec.zone, endpoint.spec.node), 1


def _answered(running: Running) -> Iterator[Reading]:
    for endpoint in _endpoints(running):
        for (digit,), count in classes(endpoint.stats.answered):
            yield (*_of(endpoint), digit), count


def _failed(running: Running) -> Iterator[Reading]:
    for endpoint in _endpoints(running):
        for reason, count in sorted(endpoint.stats.failed.items()):
            yield (*_of(endpoint), reason), count


def _latency(running: Running) -> Iterator[Reading]:
    now = running.clock()
    for endpoint in _endpoints(running):
        average = endpoint.latency.average(now)
        if average is not None:
            yield _of(endpoint), average


def _pace(running: Running) -> Iterator[Reading]:
    for endpoint in _followed(running):
        yield _of(endpoint), endpoint.work.pace.factor


def _work(running: Running) -> Iterator[Reading]:
    for endpoint in _followed(running):
        yield _of(endpoint), expected_work(endpoint.work)


def _followed(running: Running) -> Iterator[Endpoint]:
    """Endpoints whose work is followed."""
    clusters = {pool.cluster for pool in running.pools if pool.follows_work}
    return (endpoint for endpoint in _endpoints(running) if endpoint.cluster in clusters)


def _utilization(running: Running) -> Iterator[Reading]:
    for endpoint in _endpoints(running):
        if endpoint.utilization >= 0.0:
            yield _of(endpoint), endpoint.utilization


def _bad_reports(running: Running) -> Iterator[Reading]:
    for pool in running.pools:
        if pool.loads is not None:
            for endpoint in pool.endpoints:
                yield _of(endpoint), pool.loads.bad_of(endpoint)


def _eligible(running: Running) -> Iterator[Reading]:
    for endpoint in _endpoints(running):
        yield _of(endpoint), float(endpoint.eligible)


def _states(running: Running) -> Iterator[Reading]:
    now = running.clock()
    counts = dict.fromkeys(STATES, 0)
    for endpoint in running.endpoints:
        counts[state_of(endpoint, now)] += 1
    return (((state,), count) for state, count in counts.items())


def _transitions(running: Running) -> dict[str, int]:
    counts = running.transitions
    return counts | {old: counts[new] for old, new in _OLD_EVENTS.items() if new in counts}


def _discovery_age(running: Running) -> Iterator[Reading]:
    if running.discovery.fresh_at is not None:
        yield (), max(0.0, running.clock() - running.discovery.fresh_at)


def _chosen_by(running: Running) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for pool in running.pools:
        counts.update(pool.chosen_by)
    return dict(counts)


def _peer_events(running: Running) -> Mapping[str, int]:
    return running.peers.events if running.peers is not None else {}


def _peer_ages(running: Running) -> Iterator[Reading]:
    now = running.clock()
    for replica in running.peers.heard if running.peers is not None else ():
        yield (replica.name,), replica.age(now)


_OLD_EVENTS = {"left_alone": "backoff", "held": "drained", "released": "undrained"}
"""Events that were renamed: counted under both names until 0.3."""


_STATES = ", ".join(f"`{state}`" for state in STATES)

METRICS = (
    # The whole
    Metric(
        "lb_build_info",
        "gauge",
        "Always 1: the version that runs, and the replica's name.",
        lambda r: [((__version__, r.proxy.replica), 1)],
        ("version", "replica"),
    ),
    Metric(
        "lb_uptime_seconds", "gauge", "Since the balancer started.", whole(lambda r: r.clock() - r.proxy.started_at)
    ),
    Metric(
        "lb_requests_total",
        "counter",
        "Requests (in TCP mode, connections) begun.",
        whole(lambda r: r.counters.requests),
    ),
    Metric(
        "lb_requests_in_flight",
        "gauge",
        "Requests begun and not yet answered whole.",
        whole(lambda r: r.counters.requests_in_flight),
    ),
    Metric(
        "lb_responses_total",
        "counter",
        "Final responses sent to clients, the balancer's own included, by class of their status.",
        lambda r: classes(r.counters.responses),
        ("class",),
        "`1xx` to `5xx`",
    ),
    Metric(
        "lb_gateway_requests_total",
        "counter",
        "Requests begun at each port of each Gateway, and connections carried; they count in `lb_requests_total` too.",
        _listener_requests,
        ("gateway", "port"),
    ),
    Metric(
        "lb_gateway_responses_total",
        "counter",
        "Final responses sent at each port of each Gateway, by class of their status.",
        _listener_responses,
        ("gateway", "port", "class"),
        "`1xx` to `5xx`",
    ),
    Metric(
        "lb_errors_total",
        "counter",
        "Responses that the balancer made itself, by reason.",
        table(lambda r: r.counters.errors),
        ("reason",),
        "the reasons in docs/errors.md",
    ),
    Metric(
        "lb_grpc_responses_total",
        "counter",
        "gRPC calls that have ended, by the status that the client got.",
        lambda r: grpc_codes(r.counters.grpc_responses),
        ("code",),
        "the names of gRPC's statuses",
    ),
    Metric(
        "lb_client_faults_total",
        "counter",
        "Requests refused or broken off through the client's fault.",
        table(lambda r: r.counters.client_faults),
        ("kind",),
        "a fixed list of kinds",
    ),
    Metric(
        "lb_retries_total",
        "counter",
        "Attempts beyond a request's first, by the reason of the failure before.",
        table(lambda r: r.counters.retries),
        ("reason",),
        "the reasons of `lb_endpoint_failures_total`",
    ),
    Metric(
        "lb_mirrored_requests_total",
        "counter",
        "Requests that a route mirrors, by what became of the second one.",
        table(lambda r: r.counters.mirrored),
        ("result",),
        "`answered`, `failed`, and of those not sent `no endpoint`, `too many under way`, `body too long`",
    ),
    Metric(
        "lb_retries_denied_total",
        "counter",
        "Retries that were safe but not made for want of budget.",
        whole(lambda r: r.counters.retries_denied),
    ),
    Metric(
        "lb_retry_budget", "gauge", "Retries that the budget would pay for now.", whole(lambda r: r.proxy.retry_budget)
    ),
    Metric("lb_received_bytes_total", "counter", "Bytes from clients.", whole(lambda r: r.counters.bytes_received)),
    Metric("lb_sent_bytes_total", "counter", "Bytes to clients.", whole(lambda r: r.counters.bytes_sent)),
    Metric(
        "lb_drain_cut_total",
        "counter",
        "Requests and connections cut at the end of LB_DRAIN_TIMEOUT.",
        whole(lambda r: r.counters.drained_cut),
    ),
    Metric(
        "lb_peers",
        "gauge",
        "Other replicas that are heard now.",
        whole(lambda r: len(r.peers.heard) if r.peers is not None else 0),
    ),
    Metric("lb_peer_news_age_seconds", "gauge", "Age of what each other replica reported last.", _peer_ages, ("peer",)),
    Metric(
        "lb_peer_events_total",
        "counter",
        "What happened between the replicas.",
        table(_peer_events),
        ("event",),
        "`connected`, `disconnected`, `unreachable`, `sent`, `received`, `refused`, `unauthorized`, "
        "`handed_over` (what was learned, to one), `taken_over` (from one)",
    ),
    Metric(
        "lb_log_lines_dropped_total",
        "counter",
        "Lines lost because nobody read the log, or it could not be written.",
        table(lambda r: r.proxy.log_lines_dropped),
        ("log",),
        "`access` (stdout), `messages` (stderr)",
    ),
    # Durations
    Metric(
        "lb_request_duration_seconds",
        "histogram",
        "From a request's head to its response's last byte.",
        whole(lambda r: r.counters.total_seconds),
    ),
    Metric(
        "lb_first_byte_duration_seconds",
        "histogram",
        "From the end of the request's sending to the response's first byte.",
        whole(lambda r: r.counters.first_byte_seconds),
    ),
    Metric(
        "lb_connect_duration_seconds",
        "histogram",
        "To open a connection to an endpoint.",
        whole(lambda r: r.counters.connect_seconds),
    ),
    Metric(
        "lb_queue_duration_seconds",
        "histogram",
        "Waited in the queue, by requests that had to.",
        whole(lambda r: r.counters.queue_seconds),
    ),
    Metric(
        "lb_event_loop_lag_seconds",
        "histogram",
        "How late the event loop ran a timer of 100 ms.",
        whole(lambda r: r.counters.loop_lag_seconds),
    ),
    # Connections
    Metric(
        "lb_downstream_connections_opened_total",
        "counter",
        "Client connections accepted.",
        whole(lambda r: r.counters.connections_accepted),
    ),
    Metric(
        "lb_downstream_connections_open",
        "gauge",
        "Client connections open.",
        whole(lambda r: r.counters.connections_open),
    ),
    Metric(
        "lb_downstream_connections_refused_total",
        "counter",
        "Client connections closed at once, by the limit they met.",
        table(lambda r: r.counters.connections_refused),
        ("reason",),
        "a fixed list of limits",
    ),
    Metric(
        "lb_downstream_connections_evicted_total",
        "counter",
        "Idle client connections closed so that others could come.",
        whole(lambda r: r.counters.connections_evicted),
    ),
    Metric(
        "lb_tunnels_open", "gauge", "Upgraded connections (WebSocket) open.", whole(lambda r: r.counters.tunnels_open)
    ),
    Metric(
        "lb_internal_faults_total",
        "counter",
        "Exceptions in the balancer's own callbacks: each closed a connection, is in the log, and is a bug.",
        whole(lambda r: r.counters.faults),
    ),
    Metric(
        "lb_tunnels_cut_total",
        "counter",
        "Tunnels reset since their endpoint turned unhealthy or was ejected (LB_HEALTH_CLOSES_TUNNELS).",
        whole(lambda r: r.counters.tunnels_cut),
    ),
    Metric(
        "lb_endpoint_connections_opened_total",
        "counter",
        "Connections opened to the endpoint.",
        each(lambda e: e.stats.connections_opened),
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_connections_reused_total",
        "counter",
        "Requests sent on a connection that was open already.",
        each(lambda e: e.stats.connections_reused),
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_connections_open",
        "gauge",
        "Connections open to the endpoint.",
        each(lambda e: e.stats.connections_open),
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_connections_idle",
        "gauge",
        "Connections open to the endpoint and unused.",
        lambda r: ((_of(e), r.proxy.idle_connections(e)) for e in _endpoints(r)),
        ("cluster", "endpoint"),
    ),
    # Balancing
    Metric(
        "lb_strategy_info",
        "gauge",
        "Always 1: the strategy in force.",
        lambda r: [((r.pool.strategy_name,), 1)],
        ("strategy",),
    ),
    Metric("lb_choices_total", "counter", "Choices made, by strategy.", table(_chosen_by), ("strategy",)),
    Metric(
        "lb_queue_length",
        "gauge",
        "Requests that wait for an endpoint below its limit.",
        whole(lambda r: sum(pool.queued for pool in r.pools)),
    ),
    Metric("lb_endpoints", "gauge", "Endpoints, by state.", _states, ("state",), _STATES),
    Metric(
        "lb_panic",
        "gauge",
        "1 while too few endpoints of a cluster are healthy and all are used.",
        whole(lambda r: float(any(pool.in_panic for pool in r.pools))),
    ),
    Metric(
        "lb_panics_total", "counter", "How often panic began.", whole(lambda r: sum(pool.panics for pool in r.pools))
    ),
    Metric(
        "lb_transitions_total",
        "counter",
        "What happened to endpoints and to the pool: ejections, returns, panics and so on.",
        table(_transitions),
        ("event",),
        "the events of balancing/decision.py; `left_alone`, `held` and `released` are the old names of `backoff`, "
        "`drained` and `undrained`, and go with 0.3",
    ),
    # One endpoint
    Metric(
        "lb_endpoint_info",
        "gauge",
        "Always 1: the pod behind an address, and where it runs.",
        _information,
        ("cluster", "endpoint", "pod", "zone", "node"),
    ),
    Metric("lb_endpoint_eligible", "gauge", "1 while the endpoint may be chosen.", _eligible, ("cluster", "endpoint")),
    Metric(
        "lb_endpoint_responses_total",
        "counter",
        "Responses from the endpoint, by class of their status.",
        _answered,
        ("cluster", "endpoint", "class"),
        "`1xx` to `5xx`",
    ),
    Metric(
        "lb_endpoint_failures_total",
        "counter",
        "Requests to the endpoint that ended without a whole response, by reason.",
        _failed,
        ("cluster", "endpoint", "reason"),
        "the kinds of balancing/outcome.py",
    ),
    Metric(
        "lb_endpoint_ejections_total",
        "counter",
        "How often the endpoint was ejected.",
        each(lambda e: e.health.ejections),
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_in_flight",
        "gauge",
        "Requests at the endpoint, connecting ones included.",
        each(lambda e: e.in_flight),
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_latency_seconds",
        "gauge",
        "The endpoint's latency as the balancer reckons it: peak EWMA.",
        _latency,
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_pace",
        "gauge",
        "Its time for a request as a multiple of a typical endpoint's: 2 is half as fast; none where the strategy does "
        "not learn what requests cost.",
        _pace,
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_work_seconds",
        "gauge",
        "What is in flight there, in seconds that it was expected to take; none where the strategy does not learn it.",
        _work,
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_weight",
        "gauge",
        "The weight in force: less than the configured one while in slow start, or as its load reports make it.",
        each(lambda e: e.weight),
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_utilization",
        "gauge",
        "The utilisation that it last reported (LB_ENDPOINT_LOAD), 1 being all of it; none before the first report.",
        _utilization,
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_bad_load_reports_total",
        "counter",
        "Load reports that could not be read.",
        _bad_reports,
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_sent_bytes_total",
        "counter",
        "Bytes sent to the endpoint.",
        each(lambda e: e.stats.bytes_sent),
        ("cluster", "endpoint"),
    ),
    Metric(
        "lb_endpoint_received_bytes_total",
        "counter",
        "Bytes received from the endpoint.",
        each(lambda e: e.stats.bytes_received),
        ("cluster", "endpoint"),
    ),
    # Discovery
    Metric(
        "lb_discovery_age_seconds",
        "gauge",
        "Since the membership was last known to be current; absent before the first snapshot.",
        _discovery_age,
    ),
    Metric(
        "lb_discovery_stale",
        "gauge",
        "1 while the discovery fails and the last set is used on.",
        whole(lambda r: float(r.discovery.stale)),
    ),
    Metric(
        "lb_discovery_events_total",
        "counter",
        "Snapshots and faults of the discovery.",
        table(lambda r: r.counters.discovery_events),
        ("kind",),
        "a fixed list of kinds",
    ),
)
