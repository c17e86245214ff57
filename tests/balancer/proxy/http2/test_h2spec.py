"""h2spec's 146 cases, strict ones included, by TLS and in plain text (https://github.com/summerwind/h2spec)."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import Endpoint, always
from tests.balancer.proxy.wire.process import Start

BODY = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
MODULE = "github.com/summerwind/h2spec/cmd/h2spec@latest"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lb-tests"


@pytest.fixture(scope="session")
def h2spec() -> str:
    """The program: built once, and kept for the next time."""
    found = shutil.which("h2spec") or shutil.which("h2spec", path=CACHE)
    if found is not None:
        return found
    go = shutil.which("go")
    if go is None:
        pytest.skip("h2spec is not there, nor Go to build it: install one of them")
    built = subprocess.run(
        [go, "install", MODULE], env={**os.environ, "GOBIN": str(CACHE)}, capture_output=True, text=True, check=False
    )
    if built.returncode:
        pytest.skip(f"h2spec cannot be built: {built.stderr[-300:]}")
    return str(CACHE / "h2spec")


@pytest.mark.parametrize("secure", [False, True], ids=["h2c", "tls"])
async def test_every_case_passes(start: Start, authority: Authority, h2spec: str, secure: bool) -> None:
    tls = {"tls_cert": authority.certificate, "tls_key": authority.key} if secure else {}
    balancer = start(1, **tls)
    options = ["-t", "-k"] if secure else []
    # Some cases need a few bytes of body to send in pieces.
    async with Endpoint(balancer.endpoints[0], always(BODY)):
        process = await asyncio.create_subprocess_exec(
            h2spec,
            "-h",
            "127.0.0.1",
            "-p",
            str(balancer.port),
            "-S",
            "-o",
            "5",
            *options,
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(100):
            output = (await process.communicate())[0].decode()
    assert re.search(r"146 tests, 146 passed, 0 skipped, 0 failed", output), output[-6000:]
