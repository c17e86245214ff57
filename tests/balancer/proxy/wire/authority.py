"""A certificate authority of the tests' own."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """Issues certificates; `folder` is where those that the balancer needs as files are put."""

    def __init__(self, folder: Path | None) -> None:
        self._ca = trustme.CA()
        if folder is not None:
            self.file = folder / "ca.pem"
            self._ca.cert_pem.write_to_path(str(self.file))
            self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
            self.issue("lb.test", self.certificate, self.key)

    def issue(self, name: str, certificate: Path, key: Path) -> None:
        """Write a new certificate for `name`."""
        issued = self._ca.issue_cert(name)
        issued.private_key_pem.write_to_path(str(key))
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def server(self, name: str) -> ssl.SSLContext:
        """For an endpoint that shows a certificate for `name`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """For a client that trusts this authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(context)
        return context
