"""The programs that are compared, one a file: its configuration, how it is started, and where to get it.

All do the same work: one worker, keep-alive to clients and endpoints, X-Forwarded-For and a request id added, and the
strategy asked for. What an operator would leave at its default is left there.
"""

from __future__ import annotations

from benchmarks.peers.caddy import Caddy
from benchmarks.peers.envoy import Envoy
from benchmarks.peers.haproxy import Haproxy, HaproxyNew, HaproxyUnstable
from benchmarks.peers.lb import Lb
from benchmarks.peers.nginx import Nginx, NginxNew
from benchmarks.peers.peer import Peer
from benchmarks.peers.traefik import Traefik

PEERS: tuple[type[Peer], ...] = (Lb, Nginx, NginxNew, Haproxy, HaproxyNew, HaproxyUnstable, Envoy, Traefik, Caddy)
