"""The certificate for clients, read again when its files change."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

import structlog

log = structlog.get_logger()


class ServerCertificate:
    """The certificate that clients are shown; `reload_if_changed` lets new connections see a new one."""

    def __init__(self, certificate: Path, key: Path, alpn: Sequence[str]) -> None:
        """`alpn`: the protocols to agree on, best first. Raises OSError when the files can't be read as a pair."""
        self._certificate = certificate
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.options |= ssl.OP_NO_RENEGOTIATION
        self.context.num_tickets = 1  # a client that opens several connections may use it for each
        if alpn:
            self.context.set_alpn_protocols(list(alpn))
        self._stamp = self._stamp_now()
        self.context.load_cert_chain(certificate, key)

    def reload_if_changed(self) -> None:
        """Read the files again if they have changed; a bad pair is logged, and the old one stays."""
        try:
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            # Tried apart first: a certificate without its key would leave the live context with neither.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
            self.context.load_cert_chain(self._certificate, self._key)
        except OSError as error:
            log.warning("certificate not reloaded", file=str(self._certificate), error=str(error))
        else:
            log.info("certificate reloaded", file=str(self._certificate))

    def _stamp_now(self) -> tuple[tuple[int, int, int], ...]:
        stats = [path.stat() for path in (self._certificate, self._key)]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)
