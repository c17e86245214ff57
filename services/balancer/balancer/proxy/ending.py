"""How an exchange ends: what it gives back, what is counted and logged of it, and the answers that are our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.balancing.outcome import UNUSED, Outcome
from balancer.counters import count
from balancer.log import AccessEntry
from balancer.proxy import grpc, grpc_errors, own_answers, responses
from balancer.proxy.attempts import Attempts
from balancer.proxy.cluster import Routed
from balancer.proxy.flow import NOT_CONNECTED, PEER_FULL
from balancer.proxy.http_service import HttpService
from balancer.proxy.interfaces import ClientStream, Connecting, ServerStream
from balancer.proxy.messages import Peer, RequestHead
from balancer.proxy.own_answers import OwnAnswer
from balancer.proxy.states import ENDED, FOLLOWS, RESPONDING, SEARCHING, STATES, TUNNEL

if TYPE_CHECKING:
    from balancer.tracing import Span


class Ending(Attempts):
    """One request as its end needs it: who asked for what, where it was sent, and how far it has come."""

    __slots__ = (
        "_connecting",
        "_counted_as",
        "_retry_after",
        "_total_deadline",
        "bytes_received",
        "bytes_sent",
        "first_byte_took",
        "grpc_status",
        "head",
        "http",
        "peer",
        "request_id",
        "routed",
        "server",
        "span",
        "state",
        "status",
        "stream",
    )

    def __init__(
        self, service: HttpService, routed: Routed, server: ServerStream, peer: Peer, head: RequestHead, now: float
    ) -> None:
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
        """One of the states of states.py."""
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
        self._connecting: Connecting | None = None
        self._retry_after: float | None = None
        self._total_deadline = 0.0
        service.requests += 1
        service.counters.requests += 1
        service.counters.requests_in_flight += 1

    def _become(self, state: int) -> None:
        if not FOLLOWS[self.state * STATES + state]:
            raise AssertionError(f"an exchange in state {self.state} cannot become {state}")
        self.state = state

    def _completed(self, now: float) -> None:
        """The response's last byte has been passed on; its stream has been released."""
        status = self.status
        if self.grpc_status >= 0 and status == 200:
            status = grpc.as_http(self.grpc_status)
        self.close_lease(Outcome.answered(status, self._retry_after), now)
        self._end(now)
        self.server.finished(now)

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
