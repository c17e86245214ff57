"""The certificate that all balancers show: made for this run, ECDSA on P-256."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """Its files (PEM)."""

    chain: Path
    key: Path
    both: Path
    """Chain and key, as HAProxy takes them."""


def certificate(folder: Path) -> Certificate:
    """That of this run, which lies in `folder`; made if it is not there yet."""
    found = Certificate(folder / "chain.pem", folder / "key.pem", folder / "both.pem")
    if not found.both.exists():
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        files = ["-keyout", str(found.key), "-out", str(found.chain)]
        subprocess.run(["openssl", "req", "-x509", *kind, *names, *files], capture_output=True, check=True)
        found.both.write_text(found.chain.read_text() + found.key.read_text())
    return found
