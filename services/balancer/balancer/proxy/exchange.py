"""One request's life: from its head through one or more attempts at endpoints to the last byte of its response.

It knows no protocol: what it calls is a server stream towards the client and a client stream towards an endpoint
(interfaces.py), and bodies are payload. What it is in, at any time, is one state; what may follow which is the table
of states.py, which `_become` holds every change to.

Above 300 lines because it is one state machine; how it ends, and what it does as a tunnel, are in files of their own,
of classes that it extends (ending.py, upgraded.py).
"""

from __future__ import annotations

import time
from typing import Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.errors import AllTried, NoEndpoint
from balancer.balancing.outcome import (
    CLIENT_LEFT,
    CLIENT_SLOW,
    CONNECT_TIMEOUT,
    STALLED,
    TIMED_OUT,
    UNUSED,
    Kind,
    Outcome,
)
from balancer.balancing.pool import Lease
from balancer.balancing.retry import IDEMPOTENT, Retry, may_retry
from balancer.counters import count
from balancer.proxy import explain, grpc, own_answers, responses
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
    ServerStream,
)
from balancer.proxy.interfaces import SENT as WAS_SENT
from balancer.proxy.messages import HTTP_2, NO_FIELDS, Headers, Peer, RequestHead, ResponseHead
from balancer.proxy.mirror import mirror
from balancer.proxy.replay import Replay
from balancer.proxy.states import CONNECTING, ENDED, INFORMED, RESPONDING, SEARCHING, SENT, TUNNEL
from balancer.proxy.upgraded import Upgraded

MOST_DOUBLED: Final = 3
"""Times that the wait between attempts doubles."""

MAX_FREE_REPEATS: Final = 3
"""Times that a request goes to the same endpoint again, free of the retry budget, because its connection closed before
the endpoint processed it (GOAWAY, or one that had idled)."""


def _retry_after(head: ResponseHead) -> float | None:
    """For how long (s) an endpoint asks us to back off, by its Retry-After; None: it does not."""
    return max(0.0, head.retry_at - time.time()) if head.retry_at else head.retry_after


class Exchange(Upgraded):
    """One request and its response."""

    __slots__ = ("_backing_off", "_forwarded", "_free_repeats", "_replay", "_replayable", "_trailers")

    def __init__(self, service: HttpService, server: ServerStream, peer: Peer, head: RequestHead, now: float) -> None:
        super().__init__(service, service.router.route(head), server, peer, head, now)
        self._forwarded: RequestHead | None = None
        """What the endpoint is sent where Max-Forwards counts: the route's head or the client's, with one less."""
        self._backing_off = False
        """Whether the next attempt waits for its time."""
        self._replay: Replay | None = None
        """What has come of the body; None: nothing, or nothing is kept any more."""
        self._replayable = True
        """Whether all of the body received so far is kept to be sent again."""
        self._free_repeats = 0
        self._trailers = NO_FIELDS

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
        if self.info.method == "OPTIONS" and self.head.fields.max_forwards >= 0 and self._is_last_hop(now):
            return
        pinned = self.server.pinned
        if pinned is None or not self._go_on(pinned, now):
            self.acquire(now)

    def _acquire_client_slot(self, clients: Clients) -> bool:
        """Count as a connection of the client that a trusted proxy names; whether it may have one more."""
        if clients.enter(self.info.client):
            self._counted_as = self.info.client
            return True
        count(self.http.counters.connections_refused, "too many connections from this client")
        return False

    def _is_last_hop(self, now: float) -> bool:
        """Max-Forwards (RFC 9110 §7.6.2): answer where it has come to 0, else say one less. Whether it was answered."""
        fields = self.head.fields
        if fields.max_forwards == 0:
            self._answer_ourselves(own_answers.options(self.http.date(now)), now)
            return True
        self._forwarded = forwarded_once(self.routed.head or self.head, fields.max_forwards - 1)
        return False

    def _go_on(self, pinned: ClientStream, now: float) -> bool:
        """Use the connection that is bound to this client, if that can be had."""
        pool = self.cluster.pool
        if pinned.endpoint.cluster != pool.cluster:
            return False  # it is kept for the client's next request to its own cluster
        self.server.pin(None)
        lease = pool.lease_at(pinned.endpoint, self.info, now)
        stream = pinned.reuse(self) if lease is not None else None
        if lease is None or stream is None:
            pinned.reset()
            if lease is not None:
                lease.close(UNUSED, now)
            return False
        self.lease = lease
        self.endpoint = lease.endpoint
        self.attempts += 1
        self._send(stream, now)
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
            replay = self._replay
            if replay is None:
                replay = self._replay = Replay()
            replay.add(data)
            if replay.size > self.cluster.policy.retry_buffer:
                if stream is None and self.state < RESPONDING:
                    self.server.pause_reading(NOT_CONNECTED)
                else:
                    self.drop_replay_buffer()
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
            kept: bytes | None = None
            if self._replayable:
                kept = self._replay.joined() if self._replay is not None else b""
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

    def may_repeat(self) -> bool:
        return self.state == SENT and self._repeatable()

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
        replay = self._replay
        body = replay.joined() if replay is not None else b""
        extra = self.span.fields if self.span is not None else NO_FIELDS
        head = self._forwarded or self.routed.head or self.head
        if whole and self._trailers:
            stream.send(head, self.request_id, extra, body, False, now)
            stream.end(self._trailers, now)
        else:
            stream.send(head, self.request_id, extra, body, whole, now)
        if whole and self.lease is not None:
            self.lease.sent(now)
        if replay is not None:
            if replay.size > self.cluster.policy.retry_buffer:
                self.drop_replay_buffer()
            self.server.resume_reading(NOT_CONNECTED)
        if self.routed.attempt_timeout > 0 and self.state == SENT:
            self.arm(now + self.routed.attempt_timeout)

    def drop_replay_buffer(self) -> None:
        # Where the body is longer than what is kept for a retry, or is none any more: a tunnel's.
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
        if stream is not None and (not ended or stream.bound):
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
            self._abort_upstream(self._at_total_timeout(now), now)
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
            stands_at = self._connecting.stands_at()
            self._connecting.cancel()
            self.attempt_failed(Kind.CONNECT_TIMEOUT, NOT_PROCESSED, stands_at)
        elif self.state == SENT and self.stream is not None:
            # The route's own patience with an endpoint has come to its end.
            self.stream.reset()
            self.attempt_failed(Kind.TIMED_OUT, WAS_SENT)

    def _at_total_timeout(self, now: float) -> Outcome:
        """Who was waited for when the time was up, in the words of the table that says who is charged."""
        if self.state == RESPONDING:
            return CLIENT_SLOW if self.server.full else STALLED
        lease = self.lease
        if lease is None or self.state not in (CONNECTING, SENT, INFORMED):
            return UNUSED
        if self.head.fields.timeout and self.head.fields.grpc:
            return CLIENT_LEFT  # it was the client who chose how long to wait
        # An upload, the queue or other endpoints may have taken the most of it: that is no fault of this endpoint.
        since = lease.opened_at if lease.sent_at is None else lease.sent_at
        had_its_time = (now - since) * 2.0 >= now - self.began_at
        if self.state == CONNECTING:
            return CONNECT_TIMEOUT if had_its_time else UNUSED
        if not self.request_whole and not self.awaits_continue():
            return CLIENT_SLOW
        return TIMED_OUT if had_its_time else UNUSED

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
        if head.bound and self.stream is not None:
            self.stream.bind()
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
        if stream is not None and (not ended or stream.bound):
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
