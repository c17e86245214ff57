"""Requests that are sent a second time to a cluster whose answer nobody sees (the Gateway API's RequestMirror).

What happens here is nobody's business but the mirror's own: the client's request does not wait for it, does not fail
with it, and is not counted with it. It is sent once the client's request is whole, with the body that the exchange has
kept for a retry: a longer one is not mirrored. It waits in no queue, is not retried, and has the cluster's response
timeout from beginning to end.
"""

from __future__ import annotations

from typing import Final

from balancer.balancing.errors import NoEndpoint
from balancer.balancing.outcome import STALLED, TIMED_OUT, UNUSED, Kind, Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.request import RequestInfo
from balancer.counters import count
from balancer.proxy.cluster import Cluster, Mirrored
from balancer.proxy.http_service import HttpService
from balancer.proxy.interfaces import FRESH, STALE, ClientStream, Connecting, Receiver
from balancer.proxy.messages import Headers, RequestHead, ResponseHead
from balancer.proxy.timers import Timed

MOST: Final = 100
"""Mirrored requests under way to one cluster: with the default LB_RETRY_BUFFER they hold 6.4 MB at most."""

# What becomes of a mirrored request, in the words of the metric.
ANSWERED: Final = "answered"
FAILED: Final = "failed"
NO_ENDPOINT: Final = "no endpoint"
TOO_MANY: Final = "too many under way"
TOO_LONG: Final = "body too long"


class MirrorCall(Timed, Receiver):
    """One request to one mirror, from its lease to the end of an answer that is thrown away."""

    __slots__ = (
        "_began",
        "_body",
        "_cluster",
        "_connecting",
        "_head",
        "_lease",
        "_request_id",
        "_service",
        "_status",
        "_stream",
        "_trailers",
    )

    def __init__(
        self, service: HttpService, cluster: Cluster, head: RequestHead, request_id: bytes, lease: Lease
    ) -> None:
        super().__init__()
        self._service = service
        self._cluster = cluster
        self._head = head
        self._request_id = request_id
        self._lease: Lease | None = lease
        self._body = b""
        self._trailers: Headers = []
        self._connecting: Connecting | None = None
        self._stream: ClientStream | None = None
        self._began = False
        """Whether its response has begun."""
        self._status = 0
        cluster.mirroring += 1
        service.mirroring.add(self)

    def start(self, body: bytes, trailers: Headers, now: float) -> None:
        """Send it, or connect first."""
        lease = self._lease
        if lease is None:
            return
        self._body = body
        self._trailers = trailers
        stream = self._cluster.upstreams.take(lease.endpoint, self, now - FRESH)
        if stream is not None:
            self._send(stream, now)
        else:
            self._connecting = self._cluster.upstreams.connect(lease.endpoint, self)
            self._service.wheel.arm(self, now + self._cluster.policy.connect_timeout)

    def _send(self, stream: ClientStream, now: float) -> None:
        self._stream = stream
        body, self._body = self._body, b""
        self._service.wheel.arm(self, now + self._cluster.policy.response_timeout)
        if self._trailers:
            stream.send(self._head, self._request_id, [], body, False, now)
            stream.end(self._trailers, now)
        else:
            stream.send(self._head, self._request_id, [], body, True, now)
        if self._lease is not None:
            self._lease.sent(now)

    def _end(self, outcome: Outcome, result: str, now: float) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return  # It has ended.
        self._connecting = None
        stream, self._stream = self._stream, None
        if stream is not None and stream.bound:
            stream.reset()  # nobody may use what a client's copied credentials have opened
        self._cluster.mirroring -= 1
        self._service.mirroring.discard(self)
        self._service.wheel.forget(self)
        count(self._service.counters.mirrored, result)
        lease.close(outcome, now)

    def expired(self, now: float) -> None:
        """It has had its time: to connect, or to be answered."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._end(Outcome.failed(Kind.CONNECT_TIMEOUT), FAILED, now)
        else:
            if self._stream is not None:
                self._stream.reset()
            self._end(STALLED if self._began else TIMED_OUT, FAILED, now)

    def crashed(self) -> None:
        """A callback of ours has raised, or the balancer stops: end it, by no fault of the endpoint's."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._stream is not None:
            self._stream.reset()
        self._end(UNUSED, FAILED, self._service.clock())

    # What a client stream, or the connecting to one, reports.

    def connected(self, stream: ClientStream, took: float) -> None:
        self._connecting = None
        self._send(stream, self._service.clock())

    def attempt_failed(self, kind: Kind, progress: int, fault: str = "") -> None:
        self._stream = None
        self._end(UNUSED if progress == STALE else Outcome.failed(kind), FAILED, self._service.clock())

    def interim(self, head: ResponseHead) -> None:
        pass

    def switched(self, head: ResponseHead) -> None:
        # Nobody has asked for that.
        if self._stream is not None:
            self._stream.reset()
        self._end(Outcome.failed(Kind.BAD_RESPONSE), FAILED, self._service.clock())

    def response(self, head: ResponseHead, body: bytes, ended: bool, now: float) -> None:
        if self._lease is not None:
            self._lease.first_byte(now)
        self._began = True
        self._status = head.status
        if head.bound and self._stream is not None:
            self._stream.bind()
        if ended:
            self._end(Outcome.answered(head.status), ANSWERED, now)

    def response_data(self, data: bytes, now: float) -> None:
        pass

    def response_ended(self, trailers: Headers, now: float) -> None:
        self._end(Outcome.answered(self._status), ANSWERED, now)

    def endpoint_full(self) -> None:
        pass

    def endpoint_ready(self) -> None:
        pass


def mirror(
    service: HttpService,
    mirrors: tuple[Mirrored, ...],
    info: RequestInfo,
    request_id: bytes,
    body: bytes | None,
    trailers: Headers,
    now: float,
) -> None:
    """Send a request, which is whole, to its mirrors as well; `body` None: it is longer than what is kept."""
    for each in mirrors:
        if not each.share.due():
            continue
        if body is None:
            count(service.counters.mirrored, TOO_LONG)
            continue
        if each.cluster.mirroring >= MOST:
            count(service.counters.mirrored, TOO_MANY)
            continue
        try:
            lease = each.cluster.pool.lease(info, now)
        except NoEndpoint:
            count(service.counters.mirrored, NO_ENDPOINT)
            continue
        call = MirrorCall(service, each.cluster, each.head, request_id, lease)
        try:
            call.start(body, trailers, now)
        except Exception:  # noqa: BLE001 (`fault` logs and counts it; the client's own request goes on)
            service.wheel.fault("a mirrored request failed", call)
