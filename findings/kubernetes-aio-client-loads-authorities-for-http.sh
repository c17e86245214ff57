#!/usr/bin/env bash
# kubernetes 37.0.2 (PyPI; the official client), its asyncio half kubernetes.aio: every ApiClient() without an authority
# of its own reads all authorities that the system trusts, where it is made, which is on the event loop: also where the
# API server is asked by plain http (as through `kubectl proxy`), and where certificates are not verified at all. With
# Debian's 140 certificates that holds the loop for tens of milliseconds, for each client anew: requests wait meanwhile.
#
# Seen with Python 3.11 on 2026-11-30, contexts made with the system's authorities, and those that they hold:
#   http://127.0.0.1:1: 1 for one client, 3 for three
#   https, verify_ssl=False: 1 for one client, 3 for three
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kubernetes==37.0.2 aiohttp==3.14.5
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import ssl

from kubernetes.aio import client

made = []
create = ssl.create_default_context


def counted(**given: str | None) -> ssl.SSLContext:
    """The same, counted where no authority is given."""
    if not any(given.values()):
        made.append(1)
    return create(**given)


ssl.create_default_context = counted


async def contexts(clients: int, host: str, verify: bool) -> int:
    """How many contexts with the system's authorities so many clients make."""
    made.clear()
    configuration = client.Configuration(host=host)
    configuration.verify_ssl = verify
    for _ in range(clients):
        async with client.ApiClient(configuration):
            pass
    return len(made)


for host, verify in (("http://127.0.0.1:1", True), ("https://127.0.0.1:1", False)):
    one, three = (asyncio.run(contexts(clients, host, verify)) for clients in (1, 3))
    print(f"{host}, verify_ssl={verify}: {one} for one client, {three} for three")
    assert (one, three) == (1, 3), "the behaviour has changed"
PYTHON
echo "as described"
