"""Whom to trust at an admin port that speaks TLS: between replicas, and from the command line."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

BEGIN: Final = "-----BEGIN CERTIFICATE-----"
END: Final = "-----END CERTIFICATE-----"


class UnreadableError(OSError):
    """A file of certificates cannot be used; says which, and why."""


class AdminTrust:
    """Trusts authorities, or the one certificate of a file. Files are read for each connection: few are opened."""

    def __init__(self, certificate: Path | None, authorities: Path | None, name: str | None) -> None:
        """`certificate`: the file that the admin port shows; `authorities`: trusted in its place; neither: those of the
        system. `name`: what the certificate must be for; None: any, since addresses of pods are in none.
        """
        self._certificate = certificate
        self._authorities = authorities
        self.name = name

    def context(self) -> ssl.SSLContext:
        """What a connection is opened with. Raises UnreadableError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = self.name is not None
        file = self._authorities or self._certificate
        if file is None:
            context.load_default_certs()
            return context
        # An intermediate authority is enough, and so is the very certificate that is shown.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            text = file.read_text(encoding="latin-1")
            context.load_verify_locations(cadata=text if self._authorities else first_certificate(text))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
            raise UnreadableError(f"{file} cannot be used: {why}") from None
        return context


def first_certificate(pem: str) -> str:
    """The certificate that a chain begins with: its authority signs others too, which are not trusted."""
    _, begin, rest = pem.partition(BEGIN)
    body, end, _ = rest.partition(END)
    if not begin or not end:
        raise ValueError("there is no certificate in it")
    return begin + body + end + "\n"
