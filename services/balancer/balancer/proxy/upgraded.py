"""An upgraded connection: from the endpoint's agreement on, both sides send what they like, until both have ended."""

from __future__ import annotations

from typing import Final

from balancer.balancing.endpoint import Endpoint
from balancer.balancing.outcome import Kind, Outcome
from balancer.proxy.cluster import Routed
from balancer.proxy.ending import Ending
from balancer.proxy.http_service import HttpService
from balancer.proxy.interfaces import BEGAN, Receiver, ServerStream
from balancer.proxy.messages import NO_FIELDS, Peer, RequestHead, ResponseHead
from balancer.proxy.states import TUNNEL

UNHEALTHY: Final = "endpoint turned unhealthy"
"""Why a tunnel was cut, for the log."""


class Upgraded(Ending, Receiver):
    """What an exchange does once it is a tunnel."""

    __slots__ = ("_response_over", "request_whole")

    def __init__(
        self, service: HttpService, routed: Routed, server: ServerStream, peer: Peer, head: RequestHead, now: float
    ) -> None:
        super().__init__(service, routed, server, peer, head, now)
        self.request_whole = False
        """Whether the request's body has come to its end; in a tunnel, whether the client has half-closed."""
        self._response_over = False
        """In a tunnel: whether the endpoint has half-closed."""

    def drop_replay_buffer(self) -> None:
        """From here on the request can't be sent again."""
        raise NotImplementedError

    def switched(self, head: ResponseHead) -> None:
        stream = self.stream
        now = self.http.clock()
        if not self.head.fields.upgrade or stream is None or self.lease is None:
            if stream is not None:
                stream.reset()
            self.attempt_failed(Kind.BAD_RESPONSE, BEGAN, "101 without an upgrade")
            return
        asked = self.head.fields.upgrade.lower()
        # Of several it has to name one; of one alone it need not.
        if (head.upgrade.lower() or asked) not in asked.split(b", "):
            stream.reset()
            self.attempt_failed(Kind.BAD_RESPONSE, BEGAN, "101 to a protocol that was not asked for")
            return
        self.lease.first_byte(now)
        self._become(TUNNEL)
        self.status = 101
        self.request_whole = False
        self.drop_replay_buffer()
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
