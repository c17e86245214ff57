"""One request's life: from its head through one or more attempts at endpoints to the last byte of its response.

It knows no protocol: what it calls is a server stream towards the client and a client stream towards an endpoint
(interfaces.py), and bodies are payload. What it is in, at any time, is one state; what may follow which is the table
below, which `_become` holds every change to.

Above 300 lines because it is one state machine: the table of its states is at the top.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.errors import AllTried, NoEndpoint
from balancer.balancing.outcome import CLIENT_LEFT, CLIENT_SLOW, STALLED, TIMED_OUT, UNUSED, Kind, Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.retry import IDEMPOTENT, Retry, may_retry
from balancer.counters import count
from balancer.log import AccessEntry
from balancer.proxy import explain, grpc, grpc_errors, own_answers, responses
from balancer.proxy.attempts import Attempts
from balancer.proxy.clients import Clients
from balancer.proxy.fields import LOAD_FIELDS, forwarded_once
from balancer.proxy.flow import NOT_CONNECTED, PEER_FULL
from balancer.proxy.http_service import HttpService
from balancer.proxy.interfaces import (
    BEGAN,
    FRESH,
    NOT_PROCESSED,
    STALE,
    ClientStream,
    Connecting,
    Receiver,
    ServerStream,
)
from balancer.proxy.interfaces import SENT as WAS_SENT
from balancer.proxy.messages import HTTP_2, NO_FIELDS, Headers, Peer, RequestHead, ResponseHead
from balancer.proxy.mirror import mirror
from balancer.proxy.own_answers import OwnAnswer

if TYPE_CHECKING:
    from balancer.tracing import Span

# In the order in which a request passes through them: `<` compares them.
SEARCHING: Final = 0
"""No endpoint yet, or none any more: before the first lease, and while the pool's queue is waited in."""
CONNECTING: Final = 1
"""An endpoint is leased, a stream to it is being opened."""
SENT: Final = 2
"""The request, or what has come of it, is on its way: the response's head is awaited."""
INFORMED: Final = 3
"""An interim response has been passed on: the head is awaited still, and nothing may be repeated."""
RESPONDING: Final = 4
"""The response has begun to go to the client: from here on only a broken stream can say that something failed."""
TUNNEL: Final = 5
"""Upgraded: both sides send what they like."""
ENDED: Final = 6
"""Everything has been given back, exactly once."""

STATES: Final = 7
FOLLOWS: Final = (
    # to: SEARCHING, CONNECTING, SENT, INFORMED, RESPONDING, TUNNEL, ENDED
    b"\0\1\1\0\1\0\1"  # from SEARCHING (to RESPONDING: an error of our own)
    b"\1\1\1\0\1\0\1"  # from CONNECTING
    b"\1\1\1\1\1\1\1"  # from SENT (to SENT: another attempt, on an idle connection)
    b"\0\0\0\1\1\1\1"  # from INFORMED
    b"\0\0\0\0\0\0\1"  # from RESPONDING
    b"\0\0\0\0\0\0\1"  # from TUNNEL
    b"\0\0\0\0\0\0\0"  # from ENDED
)
"""Which state may follow which, a byte each: lists of booleans took 6 % of our own code's time."""


UNHEALTHY: Final = "endpoint turned unhealthy"
"""Why a tunnel was cut, for the log."""

MOST_DOUBLED: Final = 3
"""Times that the wait between attempts doubles."""

MAX_FREE_REPEATS: Final = 3
"""Times that a request goes to the same endpoint again, free of the retry budget, because its connection closed before
the endpoint processed it (GOAWAY, or one that had idled)."""


def _retry_after(head: ResponseHead) -> float | None:
    """For how long (s) an endpoint asks us to back off, by its Retry-After; None: it does not."""
    return max(0.0, head.retry_at - time.time()) if head.retry_at else head.retry_after


class Exchange(Attempts, Receiver):
    """One request and its response."""

    __slots__ = (
        "_backing_off",
        "_connecting",
        "_counted_as",
        "_forwarded",
        "_free_repeats",
        "_replay",
        "_replay_size",
        "_replayable",
        "_response_over",
        "_retry_after",
        "_total_deadline",
        "_trailers",
        "bytes_received",
        "bytes_sent",
        "first_byte_took",
        "grpc_status",
        "head",
        "http",
        "peer",
        "request_id",
        "request_whole",
        "routed",
        "server",
        "span",
        "state",
        "status",
        "stream",
    )

    def __init__(self, service: HttpService, server: ServerStream, peer: Peer, head: RequestHead, now: float) -> None:
        routed = service.router.route(head)
        super().__init__(service, routed.cluster, head.info if routed.info is None else routed.info, now)
        self.routed = routed
        self.http = service
        self.server = server
        self.peer = peer
        self.head = head
        fields = head.fields
        self.request_id = fields.request_id or service.request_id()
        self.explain = bool(fields.explain) and service.may_explain(peer, fields.explain)
        self.span: Span | None = None
        self.state = SEARCHING
        """One of the states above."""
        self.request_whole = False
        """Whether the request's body has come to its end; in a tunnel, whether the client has half-closed."""
        self.status = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.grpc_status = -1
        """How a gRPC call ended, once it is known."""
        self.first_byte_took = -1.0
        """Seconds from the end of sending to the response's first byte; below 0 when none came."""
        self.stream: ClientStream | None = None
        """What carries the request now."""
        self._counted_as = ""
        """The client that a trusted proxy names, while it counts as one of its connections."""
        self._forwarded: RequestHead | None = None
        """What the endpoint is sent where Max-Forwards counts: the route's head or the client's, with one less."""
        self._backing_off = False
        """Whether the next attempt waits for its time."""
        self._connecting: Connecting | None = None
        self._replay: list[bytes] | None = None
        self._replay_size = 0
        self._free_repeats = 0
        self._replayable = True
        """Whether all of the body received so far is kept to be sent again."""
        self._trailers = NO_FIELDS
        self._response_over = False
        """In a tunnel: whether the endpoint has half-closed."""
        self._retry_after: float | None = None
        self._total_deadline = 0.0
        service.requests += 1
        service.counters.requests += 1
        service.counters.requests_in_flight += 1

    def _become(self, state: int) -> None:
        if not FOLLOWS[self.state * STATES + state]:
            raise AssertionError(f"an exchange in state {self.state} cannot become {state}")
        self.state = state

    # The request, as it comes from the client: what a server connection calls.

    def start(self, ended: bool, now: float) -> None:
        """Begin: the head has been read; `ended` when there is no body."""
        service = self.http
        self.request_whole = ended
        if service.tracer is not None:
            head = self.head
            self.span = service.tracer.begin(head.info, head.scheme, head.version, head.fields.trace_context)
        if service.clients is not None and self.peer.trusted and not self._acquire_client_slot(service.clients):
            self._answer_with_error(responses.TOO_MANY_CONNECTIONS, now)
            return
        routed = self.routed
        if routed.error is not None:
            self._answer_with_error(routed.error, now)
            return
        if routed.redirect is not None:
            self._answer_ourselves(own_answers.redirect(routed.edited(routed.redirect), self.http.date(now)), now)
            return
        self.cluster.budget.earn(now)
        if ended and routed.mirrors:
            mirror(service, routed.mirrors, self.info, self.request_id, b"", NO_FIELDS, now)
        total = self.cluster.policy.total_timeout if routed.timeout < 0 else routed.timeout
        timeout = self.head.fields.timeout
        if timeout and self.head.fields.grpc and (not total or timeout < total):
            total = timeout
        if total:
            self._total_deadline = now + total
            service.wheel.arm(self, self._total_deadline)
        pinned = self.server.pinned
        if self.info.method == "OPTIONS" and self.head.fields.max_forwards >= 0:
            self._forward_once_less(now)
        elif pinned is None or not self._go_on(pinned, now):
            self.acquire(now)

    def _acquire_client_slot(self, clients: Clients) -> bool:
        """Count as a connection of the client that a trusted proxy names; whether it may have one more."""
        if clients.enter(self.info.client):
            self._counted_as = self.info.client
            return True
        count(self.http.counters.connections_refused, "too many connections from this client")
        return False

    def _forward_once_less(self, now: float) -> None:
        """Max-Forwards (RFC 9110 §7.6.2): answer where it has come to 0, else say one less."""
        fields = self.head.fields
        if fields.max_forwards == 0:
            self._answer_ourselves(own_answers.options(self.http.date(now)), now)
            return
        self._forwarded = forwarded_once(self.routed.head or self.head, fields.max_forwards - 1)
        self.acquire(now)

    def _go_on(self, pinned: ClientStream, now: float) -> bool:
        """Use the connection that is bound to this client, if that can be had."""
        self.server.pin(None)
        pool = self.cluster.pool
        lease = pool.lease_at(pinned.endpoint, self.info, now) if pinned.endpoint.cluster == pool.cluster else None
        if lease is None or not pinned.reuse(self):
            pinned.reset()
            if lease is not None:
                lease.close(UNUSED, now)
            return False
        self.lease = lease
        self.endpoint = lease.endpoint
        self.attempts += 1
        self._send(pinned, now)
        return True

    @property
    def body_limit(self) -> int | None:
        """Bytes that the request's body may have; None: any number."""
        limit = self.http.max_body_bytes
        own = self.routed.max_body
        return limit if own < 0 or (limit is not None and limit < own) else own

    def request_data(self, data: bytes, now: float) -> None:
        """More of the request's body: payload, never empty."""
        self.bytes_received += len(data)
        stream = self.stream
        if self._replayable:
            if self._replay is None:
                self._replay = []
            self._replay.append(data)
            self._replay_size += len(data)
            if self._replay_size > self.cluster.policy.retry_buffer:
                if stream is None and self.state < RESPONDING:
                    self.server.pause_reading(NOT_CONNECTED)
                else:
                    self._drop_replay_buffer()
        if stream is not None:
            if self.state == TUNNEL:
                self._touch(now)
            stream.data(data, now)

    def request_ended(self, trailers: Headers, now: float) -> None:
        """The request's body is whole; in a tunnel: the client has half-closed."""
        self.request_whole = True
        self._trailers = trailers
        mirrors = self.routed.mirrors
        if mirrors and self.state != ENDED:
            kept = b"".join(self._replay or ()) if self._replayable else None
            mirror(self.http, mirrors, self.info, self.request_id, kept, trailers, now)
        stream = self.stream
        if stream is None:
            return
        if self.lease is not None:
            self.lease.sent(now)
        stream.end(trailers, now)
        if self.state == TUNNEL and self._response_over:
            self._tunnel_ended(now)

    def client_left(self) -> None:
        """The client's connection is gone: nobody waits for the response any more."""
        if self.state == ENDED:
            return
        now = self.http.clock()
        if self.state == TUNNEL:
            self._abort_upstream(Outcome.answered(101), now)
        else:
            count(self.http.counters.client_faults, "client left")
            self.reason = self.reason or "client left"
            self.status = self.status or 499
            self._abort_upstream(CLIENT_LEFT, now)
        self._end(now)

    def broken_off(self, error: responses.Error) -> None:
        """The client's body is bad, too large or too slow: its fault, not the endpoint's."""
        now = self.http.clock()
        count(self.http.counters.client_faults, error.reason)
        self._abort_upstream(UNUSED, now)
        if self.state < RESPONDING:
            self._answer_with_error(error, now)
        else:
            self.reason = error.reason
            self._end(now)
            self.server.reset()

    def awaits_continue(self) -> bool:
        """Whether the client rightly sends nothing of its body: it waits for an endpoint's 100 (Continue)."""
        return self.head.fields.expects_continue and self.bytes_received == 0 and self.state < INFORMED

    def client_full(self) -> None:
        """The client takes its response slower than it comes."""
        if self.stream is not None:
            self.stream.pause_reading()

    def client_ready(self) -> None:
        """The client reads again."""
        if self.stream is not None:
            self.stream.resume_reading()

    # Attempts.

    def none_found(self, error: NoEndpoint, now: float) -> None:
        """No endpoint, and none to wait for: 503."""
        self._answer_with_error(
            responses.no_endpoint(error) if self.cluster.discovered else responses.DISCOVERY_PENDING, now
        )

    def leased(self, lease: Lease, now: float) -> None:
        """Send the request on a stream that is open already, or open one."""
        stream = self.cluster.upstreams.take(lease.endpoint, self, 0.0 if self._repeatable() else now - FRESH)
        if stream is not None:
            self._send(stream, now)
        else:
            self._connect(lease.endpoint, now)

    def _repeatable(self) -> bool:
        """Whether it could be sent again, if a connection should turn out to be closed."""
        if self.info.method not in IDEMPOTENT or not self._replayable:
            return False
        return self.request_whole or 0 < self.head.fields.length <= self.cluster.policy.retry_buffer

    def _connect(self, endpoint: Endpoint, now: float) -> None:
        self._become(CONNECTING)
        self._connecting = self.cluster.upstreams.connect(endpoint, self)
        self.arm(now + self.cluster.policy.connect_timeout)

    def connected(self, stream: ClientStream, took: float) -> None:
        self._connecting = None
        self.connect_took = took
        self.arm(0.0)
        self._send(stream, self.http.clock())

    def _send(self, stream: ClientStream, now: float) -> None:
        self._become(SENT)
        self.stream = stream
        whole = self.request_whole
        kept = self._replay
        body = b"".join(kept) if kept is not None else b""
        extra = self.span.fields if self.span is not None else NO_FIELDS
        head = self._forwarded or self.routed.head or self.head
        if whole and self._trailers:
            stream.send(head, self.request_id, extra, body, False, now)
            stream.end(self._trailers, now)
        else:
            stream.send(head, self.request_id, extra, body, whole, now)
        if whole and self.lease is not None:
            self.lease.sent(now)
        if self._replay_size:
            if self._replay_size > self.cluster.policy.retry_buffer:
                self._drop_replay_buffer()
            self.server.resume_reading(NOT_CONNECTED)
        if self.routed.attempt_timeout > 0 and self.state == SENT:
            self.arm(now + self.routed.attempt_timeout)

    def _drop_replay_buffer(self) -> None:
        """The body is longer than what is kept for a retry: from here on there is none once it has been sent."""
        self._replayable = False
        self._replay = None

    def attempt_failed(self, kind: Kind, progress: int, fault: str = "") -> None:
        self._connecting = None
        self.stream = None
        if self.state == ENDED:
            return
        now = self.http.clock()
        self.arm(0.0)
        # The next endpoint may take at once what this one let wait.
        self.server.resume_reading(PEER_FULL)
        if self.state == TUNNEL:
            self._tunnel_broken(now)
            return
        stale = progress == STALE
        verdict = may_retry(kind, 0, self.info.method in IDEMPOTENT, stale, self._retry_statuses())
        if progress == NOT_PROCESSED:
            verdict = self._unprocessed(kind)
        resend = self._replayable and self.state < INFORMED and progress != BEGAN
        if verdict is Retry.FRESH and resend and self.lease is not None:
            # The endpoint had only closed a connection that idled: its lease stands.
            self._connect(self.lease.endpoint, now)
            return
        # A connection that idled and closed says nothing of its endpoint, whatever can be made of that now.
        self.close_lease(UNUSED if stale else Outcome.failed(kind), now)
        # What exactly was wrong is for the log alone: header and metric keep to the few reasons there are.
        self.reason = f"{kind.value}: {fault}" if fault else kind.value
        if self.state == RESPONDING:
            # Part of the response is with the client: only a broken stream says that the rest is missing, or a
            # call's status.
            if self.head.fields.grpc:
                self._end_call_with_error(responses.failed_attempt(kind), now)
                return
            self._end(now, cut=True)
            self.server.reset()
        elif resend and verdict is Retry.ELSEWHERE and self.may_try_again(kind.value, now):
            if self.state != SEARCHING:
                self._become(SEARCHING)
            if not self._backs_off(now):
                self.acquire(now)
        else:
            self._answer_with_error(responses.failed_attempt(kind), now, fault)

    def _unprocessed(self, kind: Kind) -> Retry:
        """What follows where the endpoint has surely not acted on the request: a retry is safe whatever the method.

        Where only its connection had closed (UNUSED), the same endpoint is tried again on another one, a few times.
        """
        if kind is Kind.UNUSED and self._free_repeats < MAX_FREE_REPEATS:
            self._free_repeats += 1
            return Retry.FRESH
        return Retry.ELSEWHERE

    def _retry_on_status(self, head: ResponseHead, ended: bool, now: float) -> bool:
        """Retry a response whose status says so, at another endpoint where there is one; whether it was retried."""
        statuses = self._retry_statuses()
        if (
            head.status not in statuses
            or not self._replayable
            or self.state != SENT
            or self.attempts > self.most_retries()
        ):
            return False
        verdict = may_retry(Kind.ANSWERED, head.status, self.info.method in IDEMPOTENT, False, statuses)
        if verdict is not Retry.ELSEWHERE or self.endpoint is None:
            return False
        other = self._another_lease(self.endpoint, now)
        if other is None:
            return False
        if not self.may_try_again(str(head.status), now):
            other.close(UNUSED, now)
            return False
        self.close_lease(Outcome.answered(head.status, _retry_after(head)), now)
        stream, self.stream = self.stream, None
        if stream is not None and not ended:
            stream.reset()
        self.server.resume_reading(PEER_FULL)
        if self.routed.retrying is not None and self.routed.retrying.backoff > 0.0:
            other.close(UNUSED, now)  # There is one; which it is going to be, is chosen when its time has come.
            self._become(SEARCHING)
            self._backs_off(now)
        else:
            self.start_attempt(other, now)
        return True

    def _another_lease(self, failed: Endpoint, now: float) -> Lease | None:
        """A lease at an endpoint that has not failed this request; where its route asks for retries, at any."""
        pool = self.cluster.pool
        try:
            return pool.lease(self.info, now, (*self.tried, failed), self.explain)
        except AllTried:
            if self.routed.retrying is None:
                return None
        except NoEndpoint:
            return None
        try:
            return pool.lease(self.info, now, (), self.explain)
        except NoEndpoint:
            return None

    def _backs_off(self, now: float) -> bool:
        """Wait for the time that the route wants between attempts, if it wants any; `expired` goes on then."""
        retrying = self.routed.retrying
        if retrying is None or retrying.backoff <= 0.0:
            return False
        self._backing_off = True
        self.arm(now + retrying.backoff * (1 << min(self.attempts - 1, MOST_DOUBLED)))
        return True

    def most_retries(self) -> int:
        retrying = self.routed.retrying
        return self.cluster.policy.retries if retrying is None or retrying.attempts < 0 else retrying.attempts

    def _retry_statuses(self) -> frozenset[int]:
        retrying = self.routed.retrying
        if retrying is None or retrying.statuses is None:
            return self.cluster.policy.retry_statuses
        return retrying.statuses

    def endpoint_full(self) -> None:
        self.server.pause_reading(PEER_FULL)

    def endpoint_ready(self) -> None:
        self.server.resume_reading(PEER_FULL)

    # Time.

    def arm(self, deadline: float) -> None:
        """Expire at `deadline` (0: only at the request's own total)."""
        total = self._total_deadline
        if total and (deadline == 0.0 or total < deadline):
            deadline = total
        if deadline:
            self.http.wheel.arm(self, deadline)
        else:
            self.deadline = 0.0

    def expired(self, now: float) -> None:
        # One timer. In this order: a tunnel that idles, the total timeout, the queue's, the end of a back-off, the time
        # to connect, the route's own timeout for an attempt.
        if self.state == TUNNEL:
            self._tunnel_idle(now)
        elif self._total_deadline and now >= self._total_deadline:
            self.reason = responses.TOTAL_TIMEOUT.reason
            self._abort_upstream(self._at_total_timeout(), now)
            if self.state < RESPONDING:
                self._answer_with_error(responses.TOTAL_TIMEOUT, now)
            elif self.head.fields.grpc:
                self._end_call_with_error(responses.TOTAL_TIMEOUT, now)
            else:
                self._end(now, cut=True)
                self.server.reset()
        elif self.ticket is not None:
            self.leave_queue(now)
            self._answer_with_error(responses.QUEUE_TIMEOUT, now)
        elif self._backing_off:
            self._backing_off = False
            self.acquire(now)
        elif self._connecting is not None:
            self._connecting.cancel()
            self.attempt_failed(Kind.CONNECT_TIMEOUT, NOT_PROCESSED)
        elif self.state == SENT and self.stream is not None:
            # The route's own patience with an endpoint has come to its end.
            self.stream.reset()
            self.attempt_failed(Kind.TIMED_OUT, WAS_SENT)

    def _at_total_timeout(self) -> Outcome:
        """Who was waited for when the time was up, in the words of the table that says who is charged."""
        if self.state == RESPONDING:
            return CLIENT_SLOW if self.server.full else STALLED
        if self.state in (SENT, INFORMED):
            if self.head.fields.timeout and self.head.fields.grpc:
                return CLIENT_LEFT  # it was the client who chose how long to wait
            return TIMED_OUT if self.request_whole else CLIENT_SLOW
        return UNUSED

    # The response, as it comes from the endpoint: what a client stream calls.

    def interim(self, head: ResponseHead) -> None:
        self._become(INFORMED)
        self.server.informational(head)

    def response(self, head: ResponseHead, body: bytes, ended: bool, now: float) -> None:
        lease = self.lease
        if lease is not None:
            lease.first_byte(now)
        if head.load and self.endpoint is not None:
            self.cluster.pool.reported(self.endpoint, head.load_field, head.load, now)
        status = head.status
        if status >= 400 and status in self._retry_statuses() and self._retry_on_status(head, ended, now):
            return
        if status < 300 and self.head.fields.upgrade and self.head.version == HTTP_2:
            self._not_switched(status, ended, now)
            return
        if self.routed.attempt_timeout > 0:
            self.arm(0.0)
        self._become(RESPONDING)
        self.status = status
        self.reason = ""
        self._retry_after = _retry_after(head)
        extra = NO_FIELDS
        if not head.dated:
            extra = [(b"Date", self.http.date(now))]  # RFC 9110 §6.6.1
        if lease is not None and lease.decision is not None:
            extra = extra + explain.fields(lease.decision)
        if body:
            self.bytes_sent += len(body)
        if ended:
            self._release_stream()
        if self.routed.response is not None:
            head = self.routed.edited(head)
        self.server.respond(head, extra, body, ended, now)
        if ended and self.head.fields.grpc and status == 200:
            self.grpc_status = grpc.status_of(head.fields)
        if ended:
            self._completed(now)
        elif self.server.full and self.stream is not None:
            self.stream.pause_reading()

    def _not_switched(self, status: int, ended: bool, now: float) -> None:
        """An ordinary success, which to an extended CONNECT would say that the tunnel is open (RFC 8441 §4).

        The endpoint is not charged: it is the client who asked for a WebSocket where there is none.
        """
        stream, self.stream = self.stream, None
        if stream is not None and not ended:
            stream.reset()
        self.close_lease(Outcome.answered(status), now)
        self._answer_with_error(responses.NOT_SWITCHED, now)

    def response_data(self, data: bytes, now: float) -> None:
        self.bytes_sent += len(data)
        if self.state == TUNNEL:
            self._touch(now)
        self.server.data(data)

    def response_ended(self, trailers: Headers, now: float) -> None:
        if self.state == TUNNEL:
            self._response_over = True
            self.server.end(NO_FIELDS)
            if self.request_whole:
                self._tunnel_ended(now)
            return
        self._release_stream()
        if trailers and self.cluster.policy.reads_load:
            trailers = self._without_load(trailers, now)
        self.server.end(trailers)
        if self.head.fields.grpc:
            self.grpc_status = grpc.status_of(trailers)
        self._completed(now)

    def _without_load(self, trailers: Headers, now: float) -> Headers:
        """The trailers that go on: what the endpoint says of its load is for us."""
        kept: Headers = []
        for name, value in trailers:
            lowered = name.lower()
            if lowered not in LOAD_FIELDS:
                kept.append((name, value))
            elif self.endpoint is not None:
                self.cluster.pool.reported(self.endpoint, lowered, value, now)
        return kept

    def _release_stream(self) -> None:
        """The stream is free for anybody's next request; but one that authentication has bound stays this client's."""
        stream, self.stream = self.stream, None
        if stream is not None and stream.bound:
            self.server.pin(stream)

    def _completed(self, now: float) -> None:
        """The response's last byte has been passed on; its stream has been released."""
        status = self.status
        if self.grpc_status >= 0 and status == 200:
            status = grpc.as_http(self.grpc_status)
        self.close_lease(Outcome.answered(status, self._retry_after), now)
        self._end(now)
        self.server.finished(now)

    # An upgraded connection.

    def switched(self, head: ResponseHead) -> None:
        stream = self.stream
        now = self.http.clock()
        if not self.head.fields.upgrade or stream is None or self.lease is None:
            if stream is not None:
                stream.reset()
            self.attempt_failed(Kind.BAD_RESPONSE, BEGAN, "101 without an upgrade")
            return
        if head.upgrade and head.upgrade.lower() not in self.head.fields.upgrade.lower().split(b", "):
            stream.reset()
            self.attempt_failed(Kind.BAD_RESPONSE, BEGAN, "101 to a protocol that was not asked for")
            return
        self.lease.first_byte(now)
        self._become(TUNNEL)
        self.status = 101
        self.request_whole = False
        self._drop_replay_buffer()
        self._total_deadline = 0.0
        self.http.counters.tunnels_open += 1
        self._touch(now)
        self.server.switch(head, NO_FIELDS)

    def _touch(self, now: float) -> None:
        """Something moved in the tunnel: silence is counted from now."""
        self.http.wheel.arm(self, now + self.http.tunnel_idle_timeout)

    def _tunnel_idle(self, now: float) -> None:
        """Nothing has moved for too long: close both sides, in order."""
        stream, self.stream = self.stream, None
        self._response_over = True
        if stream is not None:
            stream.reset()
        self._tunnel_ended(now)

    def _tunnel_broken(self, now: float) -> None:
        """The endpoint's side is gone: in order if it had half-closed before, else by a reset, which is passed on."""
        if self._response_over:
            self._tunnel_ended(now)
        else:
            self.close_lease(Outcome.answered(101), now)
            self._end(now)
            self.server.reset()

    def cut_tunnel(self, endpoint: Endpoint) -> bool:
        """Reset both sides, if this is a tunnel to `endpoint`; whether it was."""
        if self.state != TUNNEL or self.endpoint is not endpoint:
            return False
        now = self.http.clock()
        self.reason = UNHEALTHY
        self._abort_upstream(Outcome.answered(101), now)
        self._end(now)
        self.server.reset()
        return True

    def _tunnel_ended(self, now: float) -> None:
        """Both directions have come to their end."""
        self.stream = None
        self._completed(now)

    # The end.

    def _answer_with_error(self, error: responses.Error, now: float, fault: str = "") -> None:
        """Answer with an error of our own; `fault` is what the log adds to its reason."""
        self.reason = f"{error.reason}: {fault}" if fault else error.reason
        count(self.http.counters.errors, error.reason)
        self._answer_ourselves(own_answers.error(error, self.head, self.request_id, self.http.date(now)), now)

    def _end_call_with_error(self, error: responses.Error, now: float) -> None:
        """End a gRPC call whose response has begun with an error of our own."""
        self.reason = self.reason or error.reason
        self.grpc_status = grpc_errors.status_for(error)
        self.server.end(grpc_errors.trailers(error))
        self._end(now, cut=True)
        self.server.finished(now)

    def _answer_ourselves(self, answer: OwnAnswer, now: float) -> None:
        """Answer without an endpoint."""
        self._become(RESPONDING)
        self.status = answer.head.status
        self.grpc_status = answer.grpc_status
        self.server.respond(answer.head, answer.fields, answer.body, True, now)
        self._end(now)
        self.server.finished(now)

    def crashed(self) -> None:
        """A callback of ours has raised: give back everything, and reset both sides, whatever state this is in."""
        try:
            if self.state != ENDED:
                now = self.http.clock()
                count(self.http.counters.errors, "internal fault")
                self.reason = "internal fault"
                self._abort_upstream(UNUSED, now)
                self._end(now, cut=True)
        finally:
            self.server.reset()

    def _abort_upstream(self, outcome: Outcome, now: float) -> None:
        """Give up whatever is under way upstream."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self.leave_queue(now)
        if self.stream is not None:
            self.stream.reset()
            self.stream = None
        self.close_lease(outcome, now)

    def close_lease(self, outcome: Outcome, now: float) -> None:
        """Give the endpoint back, and note how long its response was waited for."""
        lease = self.lease
        if lease is not None and lease.first_byte_at is not None and lease.sent_at is not None:
            self.first_byte_took = lease.first_byte_at - lease.sent_at
            self.http.counters.first_byte_seconds.observe(self.first_byte_took)
        super().close_lease(outcome, now)

    def _end(self, now: float, cut: bool = False) -> None:
        """Count and log the outcome; `cut`: the response breaks off, by no fault of the client's."""
        state = self.state
        self._become(ENDED)
        service = self.http
        service.wheel.forget(self)
        if self._counted_as and service.clients is not None:
            service.clients.leave(self._counted_as)
        counters = service.counters
        counters.requests_in_flight -= 1
        if state == TUNNEL:
            counters.tunnels_open -= 1
        elif state == RESPONDING and self.status >= 200:
            digit = min(self.status // 100, 5)
            counters.responses[digit] += 1
            service.responses[digit] += 1
        if self.grpc_status >= 0:
            counters.grpc_responses[min(self.grpc_status, grpc.UNKNOWN_CODE)] += 1
        self.server.resume_reading(NOT_CONNECTED | PEER_FULL)
        took = now - self.began_at
        counters.total_seconds.observe(took)
        logs = service.access_log is not None and service.access_log.wants(took)
        if logs or self.span is not None:
            entry = service.entry
            self._describe(entry, took)
            if logs:
                service.log(entry)
            if self.span is not None:
                service.end_span(self.span, entry, cut)

    def _describe(self, entry: AccessEntry, took: float) -> None:
        """What there is to say of it at its end, after `took` seconds."""
        self.describe(entry)
        entry.request_id = self.request_id.decode("latin-1")
        entry.route = self.routed.route
        entry.method = self.info.method
        entry.path = self.info.path
        entry.status = self.status
        entry.grpc_status = grpc.name_of(self.grpc_status) if self.grpc_status >= 0 else ""
        entry.bytes_received = self.bytes_received
        entry.bytes_sent = self.bytes_sent
        entry.first_byte = self.first_byte_took if self.first_byte_took >= 0.0 else None
        entry.total = took
