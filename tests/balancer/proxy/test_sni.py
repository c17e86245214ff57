"""Certificates by the name that a client asks for, from memory, replaced while clients connect."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import trustme

from balancer.proxy.sni import Certificates, Pair, fault_of


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def issue(authority: trustme.CA, name: str) -> Pair:
    made = authority.issue_cert(name)
    return b"".join(each.bytes() for each in made.cert_chain_pems), made.private_key_pem.bytes()


def shake(certificates: Certificates, authority: trustme.CA, name: str | None, check: bool = True) -> list[str]:
    """The names that a client is shown that asks for `name`. Raises SSLError when they are not of one mind."""
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    client_context.check_hostname = check
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = certificates.context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found: Any = client.getpeercert()
    return [str(value) for _, value in found["subjectAltName"]]


def test_each_name_is_shown_its_certificate(authority: trustme.CA) -> None:
    certificates = Certificates(["http/1.1"])
    certificates.use(
        [("a.com", [issue(authority, "a.com")]), ("*.b.com", [issue(authority, "*.b.com")])],
    )
    assert shake(certificates, authority, "a.com") == ["a.com"]
    assert shake(certificates, authority, "x.b.com") == ["*.b.com"]
    assert shake(certificates, authority, None, check=False) == ["a.com"]
    with pytest.raises(ssl.SSLError):
        shake(certificates, authority, "b.com")


def test_the_dot_that_ends_a_whole_name_is_not_looked_for(authority: trustme.CA) -> None:
    certificates = Certificates([])
    certificates.use([(name, [issue(authority, name)]) for name in ("a.com", "*.b.com")])
    assert certificates.find("a.com.") is certificates.find("A.com") is not None
    assert certificates.find("x.b.com.") is certificates.find("x.b.com") is not None
    assert certificates.find("com.") is None


def test_a_renewed_certificate_is_shown_to_the_next_client(authority: trustme.CA) -> None:
    certificates = Certificates(["http/1.1"])
    certificates.use([("", [issue(authority, "old.com")])])
    assert shake(certificates, authority, "old.com") == ["old.com"]
    certificates.use([("", [issue(authority, "new.com")])])
    assert shake(certificates, authority, "new.com") == ["new.com"]


def test_a_bad_pair_is_told_and_what_was_shown_stays(authority: trustme.CA) -> None:
    certificates = Certificates(["http/1.1"])
    good, other = issue(authority, "a.com"), issue(authority, "a.com")
    certificates.use([("", [good])])
    assert not fault_of(*good)
    assert fault_of(good[0], other[1])
    assert fault_of(b"-----BEGIN nothing", b"")
    with pytest.raises(OSError, match=r"(?i)key"):
        certificates.use([("", [(good[0], other[1])])])
    assert shake(certificates, authority, "a.com") == ["a.com"]
