"""What `--check` finds beyond the settings themselves: in the files and the class that they name."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from balancer.balancing import strategies
from balancer.balancing.cost import RequestKinds
from balancer.settings import parse_backends_file
from balancer.settings.kinds import ItemsError

if TYPE_CHECKING:
    from balancer.settings import Settings


def faults_of(settings: Settings) -> list[str]:
    """One line for each fault."""
    return [*faults_at_start(settings), *_backends(settings.backends_file)]


def faults_at_start(settings: Settings) -> list[str]:
    """The faults that stop the start. A backends file may come, or be mended, while the balancer runs."""
    return [*_strategy(settings), *_cost_key(settings), *_tls(settings)]


def _strategy(settings: Settings) -> Iterator[str]:
    try:
        strategies.load(settings.strategy, Random(), settings.hash_key)
    except ValueError as error:
        yield f"LB_STRATEGY={settings.strategy}: {error}"


def _cost_key(settings: Settings) -> Iterator[str]:
    try:
        RequestKinds(settings.cost_key or "")
    except ValueError as error:
        yield f"LB_COST_KEY={settings.cost_key}: {error}"


def _backends(path: Path | None) -> Iterator[str]:
    if path is None:
        return
    try:
        if not parse_backends_file(path.read_text(encoding="utf-8")):
            yield f"LB_BACKENDS_FILE={path}: lists no endpoint"
    except ItemsError as error:
        for item, why in error.faults:
            yield f"LB_BACKENDS_FILE={path}: {item}: {why}"
    except OSError as error:
        yield f"LB_BACKENDS_FILE={path}: {error.strerror}"
    except UnicodeDecodeError:
        yield f"LB_BACKENDS_FILE={path}: not UTF-8"


def _tls(settings: Settings) -> list[str]:
    return [
        *_certificate("LB_TLS", settings.tls_cert, settings.tls_key),
        *_authorities("LB_UPSTREAM_TLS_CA", settings.upstream_tls_ca),
        *_certificate("LB_ADMIN_TLS", settings.admin_tls_cert, settings.admin_tls_key),
        *_authorities("LB_PEERS_TLS_CA", settings.peers_tls_ca),
    ]


def _certificate(prefix: str, cert: Path | None, key: Path | None) -> list[str]:
    if cert is None or key is None:
        return []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # An empty password, so that an encrypted key is a fault and not a question on the terminal.
    return [*_unreadable(f"{prefix}_CERT", cert), *_unreadable(f"{prefix}_KEY", key)] or _not_loaded(
        f"{prefix}_CERT={cert}, {prefix}_KEY={key}", lambda: context.load_cert_chain(cert, key, "")
    )


def _authorities(variable: str, authorities: Path | None) -> list[str]:
    if authorities is None:
        return []
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _unreadable(variable, authorities) or _not_loaded(
        f"{variable}={authorities}", lambda: client.load_verify_locations(authorities)
    )


def _unreadable(variable: str, path: Path) -> list[str]:
    try:
        with path.open("rb"):
            return []
    except OSError as error:
        return [f"{variable}={path}: {error.strerror}"]


def _not_loaded(what: str, load: Callable[[], object]) -> list[str]:
    try:
        load()
    except (ssl.SSLError, ValueError, OSError) as error:
        reason = getattr(error, "reason", None) or str(error)
        words = {"KEY_VALUES_MISMATCH": "the key does not belong to the certificate"}
        return [f"{what}: {words.get(reason, f'not readable as PEM ({reason})')}"]
    return []
