"""What we ourselves lack when connecting (ports, buffers, memory) charges no endpoint, whatever carries the request."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

import pytest
from tests.balancer.proxy.test_blame import Charges
from tests.balancer.proxy.wire.ends import Client, Endpoint
from tests.balancer.proxy.wire.process import Balancer, Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"
OURS = [errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE]


@pytest.fixture
def failing(start: Start) -> Callable[..., Balancer]:
    """Starts a balancer whose every connect fails, in the kernel, with an error."""

    def begin(number: int, **settings: object) -> Balancer:
        if os.uname().machine not in ("x86_64", "aarch64"):
            pytest.skip("the number of connect(2) is known for two kinds of machines")
        try:
            return start(2, fresh=True, test_connect_errno=number, eject_after=1, **settings)
        except RuntimeError as error:
            if "no seccomp filter here" in str(error):
                pytest.skip("this kernel takes no seccomp filter")
            raise

    return begin


@pytest.mark.parametrize("number", OURS, ids=lambda number: errno.errorcode[number])
async def test_what_we_lack_to_connect_with_is_told_as_that(number: int, failing: Callable[..., Balancer]) -> None:
    balancer = failing(number)
    charges = Charges(balancer)
    async with Endpoint(balancer.endpoints[0]), Endpoint(balancer.endpoints[1]):
        async with await Client.connect(balancer.port) as client:
            for method in ("GET", "POST"):
                answer = await client.ask(f"{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
                assert answer.status == 503
                assert "out of local resources" in (answer.get("proxy-status") or "")
    assert charges.since() == {}
    assert balancer.metric("lb_endpoint_ejections_total") == 0


@pytest.mark.parametrize("settings", [{"mode": "tcp"}, {"upstream_protocol": "h2c"}], ids=["tcp", "h2c"])
async def test_it_is_no_endpoints_fault_in_any_protocol(
    settings: dict[str, object], failing: Callable[..., Balancer]
) -> None:
    balancer = failing(errno.ENOBUFS, **settings)
    charges = Charges(balancer)
    async with await Client.connect(balancer.port) as client:
        await client.send(GET)
        end = await client.to_end() if "mode" in settings else (await client.response()).raw
    assert end == b"(reset)" if "mode" in settings else b"503" in end
    assert charges.since() == {}
    assert balancer.metric("lb_endpoint_ejections_total") == 0


async def test_it_makes_no_endpoint_unhealthy(failing: Callable[..., Balancer]) -> None:
    balancer = failing(errno.EADDRNOTAVAIL, health_path="/", health_interval=0.1, health_fall=1)
    await asyncio.sleep(0.6)
    assert balancer.metric("lb_transitions_total", event="unhealthy") == 0


async def test_an_error_of_the_way_to_an_endpoint_is_its_own(failing: Callable[..., Balancer]) -> None:
    balancer = failing(errno.ENETUNREACH, retries=0)
    charges = Charges(balancer)
    async with await Client.connect(balancer.port) as client:
        assert (await client.ask(GET)).status == 502
    assert charges.since() == {"connection refused": 1}
