"""One request's life: from its head through one or more attempts at endpoints to the last byte of its response.

The states, each named by what is awaited:

    queued      no endpoint is below its limit: a ticket in the pool's queue
    connecting  an endpoint is leased, a connection to it is being opened
    sent        the request, or what has come of it, is on its way: the response head is awaited
    answering   the response has begun to go to the client: from here on there is no retry
    ended       everything has been given back, exactly once
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.errors import NoEndpoint
from balancer.balancing.outcome import CLIENT_LEFT, TIMED_OUT, UNUSED, Kind, Outcome
from balancer.balancing.pool import Lease
from balancer.balancing.request import RequestInfo
from balancer.balancing.retry import IDEMPOTENT, Retry, may_retry
from balancer.counters import count
from balancer.proxy.attempts import Attempts
from balancer.proxy.flow import NOT_CONNECTED, PEER_FULL
from balancer.proxy.http import explain, framing, headers, responses
from balancer.proxy.http.headers import RequestFields, RequestStart, ResponseHead
from balancer.proxy.http.service import HttpService
from balancer.proxy.http.upstream import Upstream

if TYPE_CHECKING:
    from balancer.proxy.http.downstream import Downstream
    from balancer.proxy.http.upstreams import Connecting
    from balancer.tracing import Span

FRESH: Final = 0.5
"""Seconds unused within which a connection is known fresh: a request that can't be sent twice takes no older one."""


class Exchange(Attempts):
    """One request and its response."""

    __slots__ = (
        "_chunked_out",
        "_connecting",
        "_ended",
        "_keeps",
        "_kept",
        "_kept_size",
        "_retry_after",
        "_total_deadline",
        "asked",
        "bytes_received",
        "bytes_sent",
        "closes",
        "downstream",
        "fields",
        "first_byte_took",
        "is_head",
        "received_whole",
        "request_id",
        "responding",
        "service",
        "span",
        "status",
        "upstream",
    )

    def __init__(self, downstream: Downstream, asked: RequestStart, fields: RequestFields, now: float) -> None:
        service: HttpService = downstream.service
        info = RequestInfo(downstream.peer.address, asked.method, asked.path, fields.headers)
        super().__init__(service, info, now)
        self.service = service
        self.downstream = downstream
        self.asked = asked
        self.fields = fields
        self.is_head = asked.is_head
        self.request_id = fields.request_id or service.request_id()
        self.explain = bool(fields.explain) and service.may_explain(downstream.peer, fields.explain)
        self.span: Span | None = None
        self.received_whole = False
        """Whether the request's body has come to its end."""
        self.responding = False
        """Whether the final response has begun to go to the client."""
        self.closes = False
        """Whether the client's connection ends with this response."""
        self.status = 0
        self.upstream: Upstream | None = None
        """The connection that carries this exchange now."""
        self.bytes_received = 0
        self.bytes_sent = 0
        self.first_byte_took = -1.0
        """Seconds from the end of sending to the response's first byte; below 0 when none came."""
        self._connecting: Connecting | None = None
        self._kept: list[bytes] | None = None
        self._kept_size = 0
        self._keeps = True
        self._chunked_out = False
        self._ended = False
        self._retry_after: float | None = None
        self._total_deadline = 0.0

    # The request, as it comes from the client.

    def start(self, now: float) -> None:
        """Begin: the head has been read."""
        service = self.service
        service.counters.requests += 1
        service.counters.requests_in_flight += 1
        service.budget.earn(now)
        if service.tracer is not None:
            peer = self.downstream.peer
            self.span = service.tracer.begin(self.info, peer.scheme, self.asked.minor, self.fields.trace_context)
        if service.total_timeout:
            self._total_deadline = now + service.total_timeout
            service.wheel.arm(self, self._total_deadline)
        self.find(now)

    def request_body(self, wire: bytes, now: float) -> None:
        """More of the request's body, framed for the endpoint."""
        upstream = self.upstream
        if self._keeps:
            if self._kept is None:
                self._kept = []
            self._kept.append(wire)
            self._kept_size += len(wire)
            if self._kept_size > self.service.retry_buffer:
                if upstream is None and not self.responding:
                    self.downstream.intake.stop(NOT_CONNECTED)
                else:
                    self._keep_no_more()
        if upstream is not None:
            upstream.write(wire)

    def request_ended(self, now: float) -> None:
        """The request's body is whole."""
        self.received_whole = True
        if self.upstream is not None and self.lease is not None:
            self.lease.sent(now)
            self.upstream.sent_whole(now)

    def client_left(self) -> None:
        """The client's connection is gone: nobody waits for the response any more."""
        if self._ended:
            return
        count(self.service.counters.client_faults, "client left")
        self.reason = self.reason or "client left"
        self.status = self.status or 499
        self._let_go(CLIENT_LEFT, self.service.clock())
        self._end(self.service.clock())

    def broken_off(self, error: responses.Error) -> None:
        """The client's body is bad, too large or too slow: its fault, not the endpoint's."""
        now = self.service.clock()
        count(self.service.counters.client_faults, error.reason)
        self._let_go(UNUSED, now)
        if self.responding:
            self.reason = error.reason
            self._end(now)
            self.downstream.cut()
        else:
            self._fail(error, now)

    # Attempts.

    def none_found(self, error: NoEndpoint, now: float) -> None:
        """No endpoint, and none to wait for: 503."""
        self._fail(responses.no_endpoint(error) if self.service.discovered else responses.DISCOVERY_PENDING, now)

    def leased(self, lease: Lease, now: float) -> None:
        """Send the request on a connection that is open already, or open one."""
        fresh_since = now - FRESH if self.info.method not in IDEMPOTENT else 0.0
        upstream = self.service.upstreams.take(lease.endpoint, fresh_since)
        if upstream is not None:
            self._send(upstream, now)
        else:
            self._connect(lease.endpoint, now)

    def _connect(self, endpoint: Endpoint, now: float) -> None:
        self._connecting = self.service.upstreams.connect(endpoint, self)
        self.arm(now + self.service.upstreams.connect_timeout)

    def connected(self, upstream: Upstream, took: float) -> None:
        """The connection asked for is open."""
        self._connecting = None
        self.connect_took = took
        self.arm(0.0)
        self._send(upstream, self.service.clock())

    def _send(self, upstream: Upstream, now: float) -> None:
        self.upstream = upstream
        fields = self.fields
        own = b""
        if not fields.names_host and self.lease is not None:
            own = b"Host: %b\r\n" % self.lease.endpoint.address.encode()
        if self.span is not None:
            own += self.span.forward
        wire = b"%b%b%bX-Request-Id: %b\r\n\r\n" % (self.asked.wire, own, fields.forward, self.request_id)
        if self._kept is not None:
            wire += b"".join(self._kept)
        whole = self.received_whole
        upstream.begin(self, wire, whole, now)
        if whole and self.lease is not None:
            self.lease.sent(now)
        if self._kept_size:
            if self._kept_size > self.service.retry_buffer:
                self._keep_no_more()
            self.downstream.intake.go(NOT_CONNECTED)

    def _keep_no_more(self) -> None:
        """The body is longer than what is kept for a retry: from here on there is none once it has been sent."""
        self._keeps = False
        self._kept = None

    def attempt_failed(self, kind: Kind, stale: bool = False, began: bool = False, fault: str = "") -> None:
        """The attempt has come to nothing.

        `stale`: on a reused connection, before anything came back; `began`: after the response's first byte.
        """
        now = self.service.clock()
        self._connecting = None
        self.upstream = None
        if self._ended:
            return
        self.arm(0.0)
        verdict = may_retry(kind, 0, self.info.method in IDEMPOTENT, stale, self.service.retry_statuses)
        resend = self._keeps and not self.responding and not began
        if verdict is Retry.FRESH and resend and self.lease is not None:
            # The endpoint had only closed a connection that idled: its lease stands.
            self._connect(self.lease.endpoint, now)
            return
        self.close_lease(UNUSED if stale and not resend else Outcome.failed(kind), now)
        # What exactly was wrong is for the log alone: header and metric keep to the few reasons there are.
        self.reason = f"{kind.value}: {fault}" if fault else kind.value
        if self.responding:
            # Part of the response is with the client: only a broken connection tells it that the rest is missing.
            self._end(now, cut=True)
            self.downstream.cut()
            return
        if resend and verdict is Retry.ELSEWHERE and self.may_try_again(kind.value, now):
            self.find(now)
            return
        self._fail(responses.failed_attempt(kind), now, fault)

    def _answered_elsewhere(self, head: ResponseHead, complete: bool, now: float) -> bool:
        """Whether a status that asks for it is retried at another endpoint, which then is leased already."""
        statuses = self.service.retry_statuses
        if not self._keeps or self.attempts > self.search.retries:
            return False
        verdict = may_retry(Kind.ANSWERED, head.status, self.info.method in IDEMPOTENT, False, statuses)
        if verdict is not Retry.ELSEWHERE or self.endpoint is None:
            return False
        try:
            other = self.search.pool.lease(self.info, now, (*self.tried, self.endpoint), self.explain)
        except NoEndpoint:
            return False
        if not self.may_try_again(str(head.status), now):
            other.close(UNUSED, now)
            return False
        self.close_lease(Outcome.answered(head.status, head.retry_after), now)
        upstream, self.upstream = self.upstream, None
        if upstream is not None and not complete:
            upstream.abort()
        self.take(other, now)
        return True

    # Time.

    def arm(self, deadline: float) -> None:
        """Expire at `deadline` (0: only at the request's own total)."""
        total = self._total_deadline
        if total and (deadline == 0.0 or total < deadline):
            deadline = total
        if deadline:
            self.service.wheel.arm(self, deadline)
        else:
            self.deadline = 0.0

    def expired(self, now: float) -> None:
        if self._total_deadline and now >= self._total_deadline:
            self.reason = responses.TOTAL_TIMEOUT.reason
            self._let_go(TIMED_OUT, now)
            if self.responding:
                self._end(now, cut=True)
                self.downstream.cut()
            else:
                self._fail(responses.TOTAL_TIMEOUT, now)
        elif self.ticket is not None:
            self.leave_queue(now)
            self._fail(responses.QUEUE_TIMEOUT, now)
        elif self._connecting is not None:
            self._connecting.cancel()
            self.attempt_failed(Kind.CONNECT_TIMEOUT)

    # The response, as it comes from the endpoint.

    def interim(self, head: ResponseHead) -> None:
        """A 1xx response: passed on, but not to HTTP/1.0, which knows none (RFC 9110 §15.2)."""
        if self.asked.minor:
            self.downstream.write(head.forward + b"\r\n")

    def switched(self, head: ResponseHead) -> None:
        """101: the connection becomes a tunnel, if that was asked for."""
        upstream = self.upstream
        if not self.fields.upgrade or upstream is None or self.lease is None:
            if upstream is not None:
                upstream.abort()
            self.attempt_failed(Kind.BAD_RESPONSE, fault="101 without an upgrade")
            return
        now = self.service.clock()
        self.lease.first_byte(now)
        self.responding = True
        self.status = 101
        self.closes = True
        self.upstream = None
        self.downstream.write(
            b"%bConnection: Upgrade\r\nUpgrade: %b\r\nX-Request-Id: %b\r\n\r\n"
            % (head.forward, head.upgrade or self.fields.upgrade, self.request_id)
        )
        self.downstream.become_tunnel(self, upstream)

    def answered(self, head: ResponseHead, body: bytes, complete: bool, now: float) -> None:
        """The final response's head, with what has come of its body; `complete` when that is all."""
        service = self.service
        lease = self.lease
        if lease is not None:
            lease.first_byte(now)
        status = head.status
        if status >= 400 and status in service.retry_statuses and self._answered_elsewhere(head, complete, now):
            return
        self.status = status
        self.reason = ""
        self._retry_after = head.retry_after
        self.responding = True
        minor, fields = self.asked.minor, self.fields
        framed = head.length >= 0 or self.is_head or status in (204, 304)
        closes = not fields.keep_alive or service.draining or service.crowded or (not framed and not minor)
        if not self.received_whole and (complete or fields.expects_continue):
            # The rest of the body may never come, or would be taken for the next request.
            closes = True
        self.closes = closes
        self._chunked_out = not framed and minor == 1
        end = headers.last_lines(minor, closes, self._chunked_out or (head.chunked and self.is_head))
        if lease is not None and lease.decision is not None:
            end = explain.fields(lease.decision) + end
        if body:
            self.bytes_sent += len(body)
        self.downstream.write(b"%bX-Request-Id: %b\r\n%b%b" % (head.forward, self.request_id, end, body))
        if complete:
            self.response_ended(now)
        elif self.downstream.full and self.upstream is not None and self.upstream.intake is not None:
            self.upstream.intake.stop(PEER_FULL)

    def response_body(self, data: bytes) -> None:
        """More of the body."""
        self.bytes_sent += len(data)
        self.downstream.write(framing.chunk([data]) if self._chunked_out else data)

    def response_chunks(self, pieces: list[bytes]) -> None:
        """More of a chunked body: its payload."""
        self.bytes_sent += sum(map(len, pieces))
        self.downstream.write(framing.chunk(pieces) if self._chunked_out else b"".join(pieces))

    def response_trailers(self, trailers: framing.Headers) -> None:
        """The end of a chunked body."""
        if self._chunked_out:
            self._chunked_out = False
            self.downstream.write(framing.last_chunk(headers.trailers_to_pass_on(trailers)))

    def response_ended(self, now: float) -> None:
        """The response's last byte has been passed on; the upstream connection has been given back or closed."""
        if self._chunked_out:
            self.downstream.write(framing.last_chunk([]))
        self.upstream = None
        self.close_lease(Outcome.answered(self.status, self._retry_after), now)
        self._end(now)
        self.downstream.answered(self, now)

    def tunnel_ended(self) -> None:
        """The upgraded connection is closed on both sides."""
        if not self._ended:
            now = self.service.clock()
            self.close_lease(Outcome.answered(101), now)
            self._end(now)

    # The end.

    def _fail(self, error: responses.Error, now: float, fault: str = "") -> None:
        """Answer with an error of our own; `fault` is what the log tells beyond its reason."""
        self.reason = f"{error.reason}: {fault}" if fault else error.reason
        self.status = error.status
        count(self.service.counters.errors, error.reason)
        closes = not self.fields.keep_alive or self.service.draining or not self.received_whole
        self.closes = closes
        self.responding = True
        as_json = headers.prefers_json(self.fields.headers)
        self.downstream.write(responses.render(error, self.request_id, as_json, self.is_head, closes))
        self._end(now)
        self.downstream.answered(self, now)

    def _let_go(self, outcome: Outcome, now: float) -> None:
        """Give up whatever is under way upstream."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self.leave_queue(now)
        if self.upstream is not None:
            self.upstream.abort()
            self.upstream = None
        self.close_lease(outcome, now)

    def close_lease(self, outcome: Outcome, now: float) -> None:
        """Give the endpoint back, and note how long its response was waited for."""
        lease = self.lease
        if lease is not None and lease.first_byte_at is not None and lease.sent_at is not None:
            self.first_byte_took = lease.first_byte_at - lease.sent_at
            self.service.counters.first_byte_seconds.observe(self.first_byte_took)
        super().close_lease(outcome, now)

    def _end(self, now: float, cut: bool = False) -> None:
        """Count and tell what came of it; `cut`: the response breaks off, by no fault of the client's."""
        if self._ended:
            return
        self._ended = True
        service = self.service
        service.wheel.forget(self)
        self.downstream.intake.go(NOT_CONNECTED | PEER_FULL)
        counters = service.counters
        counters.requests_in_flight -= 1
        if 200 <= self.status < 600 and self.responding:
            counters.responses[self.status // 100] += 1
        took = now - self.began_at
        counters.total_seconds.observe(took)
        if service.access_log is not None and service.access_log.wants(took):
            service.log(self, took)
        if self.span is not None:
            service.end_span(self, self.span, took, cut)
