"""Replicas that speak to each other by TLS, as processes of their own; and one connection, on each event loop."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import cast

import pytest
import trustme
import uvloop
from tests.balancer.peers.test_replicas import Replicas, seen

from balancer.admin_trust import AdminTrust, UnreadableError
from balancer.peers.connection import UNSENT, Connection
from balancer.peers.frames import TEXT, frame

LOST = ("disconnected", "unreachable")
pytestmark = pytest.mark.timeout(60)


class Certificates:
    """What an authority issues, as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.authority = folder / "ca.crt"
        self._ca.cert_pem.write_to_path(str(self.authority))

    def sign_itself(self) -> dict[str, str]:
        """A self-signed certificate and its key."""
        self._ca.private_key_pem.write_to_path(str(self._folder / "ca.key"))
        return {"LB_ADMIN_TLS_CERT": str(self.authority), "LB_ADMIN_TLS_KEY": str(self._folder / "ca.key")}

    def issue(self, name: str, host: str = "lb.test") -> dict[str, str]:
        """A certificate and its key: in place of those of that name, as Kubernetes replaces a Secret's files."""
        made = self._ca.issue_cert(host)
        cert, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        for path, text in (
            (key, made.private_key_pem.bytes()),
            (cert, b"".join(blob.bytes() for blob in [*made.cert_chain_pems, self._ca.cert_pem])),
        ):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(text)
            fresh.replace(path)
        return {"LB_ADMIN_TLS_CERT": str(cert), "LB_ADMIN_TLS_KEY": str(key)}


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Replicas]:
    made = Replicas(tmp_path)
    yield made
    for balancer in made.running.values():
        balancer.stop()
        log = balancer.log()
        assert "Traceback" not in log, log
        assert '"level": "error"' not in log, log


def problem(replicas: Replicas, number: int) -> str:
    """What replica `number` says of the other that it does not hear."""
    others = [each for each in replicas.ask(number, "/api/fleet")["replicas"] if not each.get("self")]
    return next((str(each["problem"]) for each in others if each["state"] == "unreachable"), "")


def live(replicas: Replicas) -> bool:
    return replicas.live(0) == replicas.live(1) == {"lb-0", "lb-1"}


def heard(replicas: Replicas, number: int) -> float:
    return replicas.running[number].metric("lb_peer_events_total", event="received")


def lost_links(replicas: Replicas) -> float:
    running = replicas.running.values()
    return sum(each.metric("lb_peer_events_total", event=event) for each in running for event in LOST)


def shown(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=5)


@pytest.mark.parametrize("self_signed", [True, False])
def test_replicas_of_one_secret_hear_each_other_and_stop_at_once(
    replicas: Replicas, certificates: Certificates, self_signed: bool
) -> None:
    tls = certificates.sign_itself() if self_signed else certificates.issue("tls")
    replicas.start(0, **tls)
    replicas.start(1, **tls)
    assert seen(lambda: live(replicas))
    replicas.ask(0, "/api/strategy?scope=fleet", "PUT", {"strategy": "least-connections"})
    assert seen(lambda: replicas.ask(1, "/api/strategy")["strategy"] == "least-connections")
    asked_at = time.monotonic()
    replicas.running.pop(1).stop()
    assert time.monotonic() - asked_at < 2.0
    assert seen(lambda: replicas.live(0) == {"lb-0"})


def test_one_of_another_authority_is_not_believed_and_says_why(replicas: Replicas, tmp_path: Path) -> None:
    for number in (0, 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        theirs = Certificates(folder)
        replicas.start(number, **theirs.issue("tls"), LB_PEERS_TLS_CA=str(theirs.authority))
    for number in (0, 1):
        assert seen(lambda number=number: "its certificate is not trusted" in problem(replicas, number))  # type: ignore[misc]
        assert heard(replicas, number) == 0
        assert "LB_PEERS_TLS_CA" in replicas.running[number].log()


def test_another_certificate_of_the_same_authority_needs_that_authority_to_be_named(
    replicas: Replicas, certificates: Certificates
) -> None:
    one, other = certificates.issue("one"), certificates.issue("other")
    replicas.start(0, **one)
    replicas.start(1, **other)
    assert seen(lambda: "its certificate is not trusted" in problem(replicas, 0))
    assert heard(replicas, 0) == heard(replicas, 1) == 0
    for number, tls in enumerate((one, other)):
        replicas.running.pop(number).stop()
        replicas.start(number, **tls, LB_PEERS_TLS_CA=str(certificates.authority))
    assert seen(lambda: live(replicas))


@pytest.mark.parametrize(("name", "trusted"), [("lb.test", True), ("else.test", False)])
def test_the_name_in_certificates_is_looked_at_where_it_is_set(
    replicas: Replicas, certificates: Certificates, name: str, trusted: bool
) -> None:
    tls = certificates.issue("tls") | {"LB_PEERS_TLS_CA": str(certificates.authority), "LB_PEERS_TLS_NAME": name}
    replicas.start(0, **tls)
    replicas.start(1, **tls)
    if trusted:
        assert seen(lambda: live(replicas))
    else:
        assert seen(lambda: "not valid for 'else.test'" in problem(replicas, 0))
        assert heard(replicas, 0) == 0


def test_one_that_speaks_no_tls_yet_is_unreachable_and_comes_in_once_it_does(
    replicas: Replicas, certificates: Certificates
) -> None:
    tls = certificates.issue("tls")
    replicas.start(0, **tls)
    replicas.start(1)
    assert seen(lambda: "it does not speak TLS" in problem(replicas, 0))
    assert seen(lambda: "it may speak TLS" in problem(replicas, 1))
    assert heard(replicas, 0) == heard(replicas, 1) == 0
    old = replicas.running.pop(1)
    old.stop()
    assert '"level": "error"' not in old.log(), old.log()
    replicas.start(1, **tls)
    assert seen(lambda: live(replicas))


def test_a_new_certificate_is_shown_and_trusted_and_open_links_stay(
    replicas: Replicas, certificates: Certificates
) -> None:
    tls = certificates.issue("tls")
    replicas.start(0, **tls)
    replicas.start(1, **tls)
    assert seen(lambda: live(replicas))
    before, lost = shown(replicas.admin_ports[0]), lost_links(replicas)
    certificates.issue("tls")
    assert seen(lambda: all(shown(port) != before for port in replicas.admin_ports))
    assert live(replicas)
    assert lost_links(replicas) == lost
    replicas.running.pop(1).stop()
    replicas.start(1, **tls)
    assert seen(lambda: live(replicas))


def test_a_replica_whose_file_is_older_is_tried_again_until_it_is_not(replicas: Replicas, tmp_path: Path) -> None:
    for folder in ("0", "1"):
        (tmp_path / folder).mkdir()
    files = [Certificates(tmp_path / "0").issue("tls")]
    replicas.start(0, **files[0])
    files.append({name: path.replace(f"{tmp_path}/0", f"{tmp_path}/1") for name, path in files[0].items()})
    Certificates(tmp_path / "1").issue("tls")
    replicas.start(1, **files[1])
    assert seen(lambda: "its certificate is not trusted" in problem(replicas, 0))
    for variable, path in files[1].items():
        shutil.copyfile(path, files[0][variable])
    assert seen(lambda: live(replicas))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    with pytest.raises(UnreadableError, match=r"missing cannot be used: No such file"):
        AdminTrust(missing, None, None).context()
    empty.write_text("")
    for trust in (AdminTrust(empty, None, None), AdminTrust(None, empty, None)):
        with pytest.raises(UnreadableError, match=r"empty cannot be used"):
            trust.context()


class Deaf(asyncio.Protocol):
    """Reads nothing until it is asked to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.got = self.waits_for = 0
        self.has_it = asyncio.Event()
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if self.got >= self.waits_for > 0:
            self.has_it.set()


Run = Callable[[Coroutine[None, None, None]], None]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_one_does_not_read_is_bounded_and_it_reads_on_later(run: Run, certificates: Certificates) -> None:
    files = certificates.issue("tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["LB_ADMIN_TLS_CERT"], files["LB_ADMIN_TLS_KEY"])
    trust = AdminTrust(Path(files["LB_ADMIN_TLS_CERT"]), None, None)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        deaf = Deaf()
        server = await loop.create_server(lambda: deaf, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        connection = Connection(1000, True)
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port, ssl=trust.context())
        transport.set_protocol(connection.protocol)
        connection.use(transport)
        written = 0
        message = frame(TEXT, os.urandom(60_000), masked=True)
        async with asyncio.timeout(20):
            while not connection.full:
                connection.write(message)
                written += len(message)
                await asyncio.sleep(0)
            held = connection._transport.get_write_buffer_size()  # type: ignore[union-attr]
            assert held < 2 * UNSENT
            connection.write(message)  # This one is left out.
            deaf.transport.resume_reading()
            deaf.waits_for = written
            await deaf.has_it.wait()
            assert (deaf.got, connection.full) == (written, False)
            connection.abort()
            await connection.closed
        server.close()

    run(scenario())


def test_a_plain_client_hears_what_to_do_and_a_silent_one_is_no_hindrance(
    replicas: Replicas, certificates: Certificates
) -> None:
    replicas.start(0, **certificates.issue("tls"))
    port = replicas.admin_ports[0]
    with socket.create_connection(("127.0.0.1", port), 5):
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda: plain.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"https://" in answer
        assert replicas.running[0].admin("/healthz")[0] == 200
