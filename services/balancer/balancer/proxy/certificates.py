"""TLS on either side: contexts, and certificates that are read again when their files change."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

log = structlog.get_logger()


def to_endpoints(authorities: Path | None, alpn: str = "http/1.1") -> ssl.SSLContext:
    """For connections to endpoints: their certificate is verified, by `authorities` or those of the system.

    `alpn` is the protocol that is offered. Raises OSError when the file can't be read as certificates.
    """
    context = ssl.create_default_context(cafile=str(authorities) if authorities else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([alpn])
    return context


class ServerCertificate:
    """The certificate that clients are shown; `reload_if_changed` lets new connections see a new one."""

    def __init__(self, certificate: Path, key: Path, alpn: list[str]) -> None:
        """`alpn`: the protocols to agree on, the one liked most first.

        Raises OSError when the files can't be read, or do not belong together.
        """
        self._certificate = certificate
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if alpn:
            self.context.set_alpn_protocols(alpn)
        self._stamp = self._stamp_now()
        self.context.load_cert_chain(certificate, key)

    def reload_if_changed(self) -> None:
        """Read the files again if they have changed; a pair that is no good is told, and the old one stays."""
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
