"""TLS on either side: versions, ALPN, verification, and certificates replaced while running."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import Client, Endpoint
from tests.balancer.proxy.wire.process import Start

GET = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n"


async def test_requests_over_tls_say_so_to_the_endpoint(start: Start, authority: Authority) -> None:
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key)
    async with Endpoint(balancer.endpoints[0]) as endpoint:
        async with await Client.connect(balancer.port, tls=authority.client()) as client:
            for _ in range(3):
                assert (await client.ask(GET)).body == b"ok"
    assert endpoint.requests[0].get("x-forwarded-proto") == "https"


async def test_alpn_agrees_on_http_1_1(start: Start, authority: Authority) -> None:
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key)
    context = authority.client()
    context.set_alpn_protocols(["http/1.1"])
    async with Endpoint(balancer.endpoints[0]), await Client.connect(balancer.port, tls=context) as client:
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert (await client.ask(GET)).status == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_1_1_is_refused(start: Start, authority: Authority) -> None:
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key)
    context = authority.client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await Client.connect(balancer.port, tls=context)


async def test_plain_http_on_the_tls_port_is_closed(start: Start, authority: Authority) -> None:
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key)
    async with await Client.connect(balancer.port) as client:
        await client.send(GET)
        got = await client.to_end()
        assert b"200 OK" not in got


async def test_a_client_that_never_shakes_hands_is_let_go(start: Start, authority: Authority) -> None:
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key, request_timeout=0.5)
    async with await Client.connect(balancer.port) as client:
        assert (await client.to_end()).removesuffix(b"(reset)") == b""


async def test_a_new_certificate_is_shown_and_old_connections_live_on(
    start: Start, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    authority.issue("lb.test", certificate, key)
    balancer = start(fresh=True, tls_cert=certificate, tls_key=key)
    async with Endpoint(balancer.endpoints[0]):
        old = await Client.connect(balancer.port, tls=authority.client())
        first = old.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
        authority.issue("lb.test", certificate, key)
        deadline = asyncio.get_running_loop().time() + 10
        while True:
            async with await Client.connect(balancer.port, tls=authority.client()) as client:
                shown = client.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
                assert (await client.ask(GET)).status == 200
            if shown != first:
                break
            assert asyncio.get_running_loop().time() < deadline, "the new certificate was never shown"
            await asyncio.sleep(0.1)
        assert (await old.ask(GET)).status == 200
        await old.close()


async def test_a_broken_certificate_file_changes_nothing(start: Start, authority: Authority, tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    authority.issue("lb.test", certificate, key)
    balancer = start(fresh=True, tls_cert=certificate, tls_key=key)
    certificate.write_text("junk")
    deadline = asyncio.get_running_loop().time() + 10
    while "not reloaded" not in balancer.log():
        assert asyncio.get_running_loop().time() < deadline, "nothing was said"
        await asyncio.sleep(0.1)
    async with Endpoint(balancer.endpoints[0]):
        async with await Client.connect(balancer.port, tls=authority.client()) as client:
            assert (await client.ask(GET)).status == 200


async def test_an_endpoint_with_a_good_certificate_is_spoken_to(start: Start, authority: Authority) -> None:
    balancer = start(upstream_tls="on", upstream_tls_ca=authority.file)
    async with Endpoint(balancer.endpoints[0], tls=authority.server("127.0.0.1")) as endpoint:
        async with await Client.connect(balancer.port) as client:
            for _ in range(3):
                assert (await client.ask(GET)).body == b"ok"
    assert endpoint.accepted == 1


async def test_an_endpoint_of_another_name_is_not_trusted(start: Start, authority: Authority) -> None:
    balancer = start(upstream_tls="on", upstream_tls_ca=authority.file)
    async with Endpoint(balancer.endpoints[0], tls=authority.server("other.test")) as endpoint:
        async with await Client.connect(balancer.port) as client:
            assert (await client.ask(GET)).status == 502
    assert endpoint.requests == []


async def test_an_endpoint_of_an_unknown_authority_is_not_trusted(start: Start, authority: Authority) -> None:
    balancer = start(upstream_tls="on", upstream_tls_ca=authority.file)
    async with Endpoint(balancer.endpoints[0], tls=Authority(None).server("127.0.0.1")) as endpoint:
        async with await Client.connect(balancer.port) as client:
            assert (await client.ask(GET)).status == 502
    assert endpoint.requests == []


async def test_a_large_body_passes_over_tls_on_both_sides(start: Start, authority: Authority) -> None:
    balancer = start(
        tls_cert=authority.certificate, tls_key=authority.key, upstream_tls="on", upstream_tls_ca=authority.file
    )
    body = "x" * 2_000_000
    async with Endpoint(balancer.endpoints[0], tls=authority.server("127.0.0.1")) as endpoint:
        async with await Client.connect(balancer.port, tls=authority.client()) as client:
            response = await client.ask(
                f"POST / HTTP/1.1\r\nHost: lb.test\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            )
            assert response.status == 200
    assert len(endpoint.requests[0].body) == len(body)
