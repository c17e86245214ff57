"""TLS on either side: versions, ALPN, verification, and certificates replaced while running."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest
from tests.balancer.proxy.wire.authority import Authority
from tests.balancer.proxy.wire.ends import Accepted, Client, Endpoint
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


async def test_the_end_of_a_handshake_is_acknowledged_at_once(start: Start, authority: Authority) -> None:
    """Else a client that waits for that (Nagle) sends its request 40 ms later."""
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    shaken = authority.client().wrap_bio(incoming, outgoing, server_hostname="lb.test")
    async with await Client.connect(balancer.port) as client:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                shaken.do_handshake()
                break
            client.writer.write(outgoing.read())
            incoming.write(await client.reader.read(65536))
        client.writer.write(outgoing.read())
        assert await asyncio.wait_for(client.reader.read(65536), 5)


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


async def test_the_name_in_certificates_may_be_another_than_the_address(start: Start, authority: Authority) -> None:
    balancer = start(upstream_tls="on", upstream_tls_ca=authority.file, upstream_tls_name="pods.test.")
    async with Endpoint(balancer.endpoints[0], tls=authority.server("pods.test")) as endpoint:
        async with await Client.connect(balancer.port) as client:
            assert (await client.ask(GET)).body == b"ok"
    assert endpoint.accepted == 1


async def test_an_endpoint_not_trusted_is_told_as_that(start: Start, authority: Authority) -> None:
    balancer = start(upstream_tls="on", upstream_tls_ca=authority.file)
    async with Endpoint(balancer.endpoints[0], tls=authority.server("other.test")):
        async with await Client.connect(balancer.port) as client:
            answer = await client.ask(GET)
    assert answer.status == 502
    assert "tls_certificate_error" in (answer.get("proxy-status") or "")
    assert balancer.metric("lb_endpoint_failures_total", reason="certificate not trusted") > 0


async def test_a_client_certificate_is_shown_to_endpoints(start: Start, authority: Authority) -> None:
    context = authority.server("127.0.0.1")
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    bare = start(upstream_tls="on", upstream_tls_ca=authority.file)
    async with Endpoint(bare.endpoints[0], tls=context):
        async with await Client.connect(bare.port) as client:
            assert (await client.ask(GET)).status == 502
    balancer = start(
        upstream_tls="on",
        upstream_tls_ca=authority.file,
        upstream_tls_cert=authority.certificate,
        upstream_tls_key=authority.key,
    )
    async with Endpoint(balancer.endpoints[0], tls=context):
        async with await Client.connect(balancer.port) as client:
            assert (await client.ask(GET)).status == 200


async def test_new_authorities_for_endpoints_are_read(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    Authority(folder)
    new = Authority(tmp_path)
    file = folder / "ca.pem"
    balancer = start(fresh=True, upstream_tls="on", upstream_tls_ca=file)
    async with Endpoint(balancer.endpoints[0], tls=new.server("127.0.0.1")):
        async with await Client.connect(balancer.port) as client:
            assert (await client.ask(GET)).status == 502
            file.write_bytes(new.file.read_bytes())
            deadline = asyncio.get_running_loop().time() + 10
            while (await client.ask(GET)).status != 200:
                assert asyncio.get_running_loop().time() < deadline, "the new authority was never read"
                await asyncio.sleep(0.2)


@pytest.mark.parametrize("agreed", ["h2", "http/1.1"])
async def test_alpn_in_tcp_mode_is_what_both_sides_speak(agreed: str, start: Start, authority: Authority) -> None:
    balancer = start(
        mode="tcp",
        tls_cert=authority.certificate,
        tls_key=authority.key,
        upstream_tls="on",
        upstream_tls_ca=authority.file,
        tls_alpn="h2,http/1.1",
    )
    server, client_context = authority.server("127.0.0.1"), authority.client()
    server.set_alpn_protocols([agreed])
    client_context.set_alpn_protocols([agreed])
    async with Endpoint(balancer.endpoints[0], None, tls=server) as endpoint:
        async with await Client.connect(balancer.port, tls=client_context) as client:
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == agreed
            connection = await endpoint.accept()
            assert connection.writer.get_extra_info("ssl_object").selected_alpn_protocol() == agreed
            await connection.close()


async def test_a_session_is_resumed(start: Start, authority: Authority) -> None:
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key)

    def twice() -> list[bool]:
        context = authority.client()
        session, reused = None, []
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", balancer.port), timeout=10) as plain:
                with context.wrap_socket(plain, server_hostname="lb.test", session=session) as secured:
                    secured.sendall(GET.encode())
                    assert secured.recv(65536).startswith(b"HTTP/1.1 200")
                    session = secured.session
                    reused.append(bool(secured.session_reused))
        return reused

    async with Endpoint(balancer.endpoints[0]):
        assert await asyncio.to_thread(twice) == [False, True]


async def test_the_end_is_told_by_close_notify(start: Start, authority: Authority) -> None:
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key)

    def end() -> bytes:
        with socket.create_connection(("127.0.0.1", balancer.port), timeout=10) as plain:
            context = authority.client()
            with context.wrap_socket(plain, server_hostname="lb.test", suppress_ragged_eofs=False) as secured:
                secured.sendall(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").encode())
                got = b""
                while piece := secured.recv(65536):  # raises when the end comes without close_notify
                    got += piece
                return got

    async with Endpoint(balancer.endpoints[0]):
        assert (await asyncio.to_thread(end)).endswith(b"ok")


async def test_a_half_close_passes_through_tls(start: Start, authority: Authority) -> None:
    balancer = start(mode="tcp", tls_cert=authority.certificate, tls_key=authority.key)

    def ask() -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = authority.client().wrap_bio(incoming, outgoing, server_hostname="lb.test")
        with socket.create_connection(("127.0.0.1", balancer.port), timeout=10) as sock:
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))
            client.write(b"all of it")
            with contextlib.suppress(ssl.SSLWantReadError):
                client.unwrap()
            sock.sendall(outgoing.read())
            sock.shutdown(socket.SHUT_WR)
            got = b""
            while True:
                data = sock.recv(65536)
                if not data:
                    return got
                incoming.write(data)
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                    while piece := client.read(65536):
                        got += piece

    async with Endpoint(balancer.endpoints[0], None) as endpoint:
        asking = asyncio.create_task(asyncio.to_thread(ask))
        connection = await endpoint.accept()
        assert await connection.to_end() == b"all of it"
        await connection.send(b"heard")
        await connection.close()
        assert await asking == b"heard"


async def test_a_truncated_connection_is_no_end(start: Start, authority: Authority) -> None:
    """A close-delimited response whose TLS connection ends without close_notify may lack its rest."""
    balancer = start(upstream_tls="on", upstream_tls_ca=authority.file, retries=0)

    async def script(connection: Accepted) -> None:
        await connection.request()
        await connection.send("HTTP/1.1 200 OK\r\n\r\nhalf of it")
        await asyncio.sleep(0.1)
        connection.reset()

    async with Endpoint(balancer.endpoints[0], script, tls=authority.server("127.0.0.1")):
        async with await Client.connect(balancer.port) as client:
            await client.send(GET)
            got = await client.to_end()
            assert b"half of it" in got
            assert not got.endswith(b"0\r\n\r\n")


async def test_tls_1_2_renegotiation_is_refused(start: Start, authority: Authority) -> None:
    from balancer.proxy.certificates import ServerCertificate

    certificate = ServerCertificate(authority.certificate, authority.key, ["http/1.1"])
    assert certificate.context.options & ssl.OP_NO_RENEGOTIATION
    assert start(tls_cert=authority.certificate, tls_key=authority.key).alive


async def test_a_handshake_may_come_byte_by_byte_or_too_slowly(start: Start, authority: Authority) -> None:
    balancer = start(tls_cert=authority.certificate, tls_key=authority.key, request_timeout=1)
    outgoing = ssl.MemoryBIO()
    tls = authority.client().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="lb.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    async with await Client.connect(balancer.port) as client:
        await client.dribble(hello, 40)
        assert (await client.exactly(1)) == b"\x16"
    async with await Client.connect(balancer.port) as client:
        await client.send(hello[:50])
        assert (await client.to_end()).removesuffix(b"(reset)") == b""
    assert balancer.metric("lb_client_faults_total", kind="handshake timed out") >= 1
