"""Gateways over TLS: with a certificate that is trusted, with none that is, and cut in the middle of it."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from contracts.bounded_http import Patience
from contracts.cid import cid_of
from contracts.errors import LedgerError, LedgerUnreachable
from contracts.gateway import Gateway
from tests.contracts.faults import Faulty, StandIn, faulty_server

DATA = b"a model" * 30
QUICK = Patience(tries=1, pause=0.01, connect=5.0, answer=0.5, block=0.5, file=2.0)


def make_certificate(folder: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that signs itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a gateway of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    builder = builder.add_extension(address, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "certificate.pem"
    path.write_bytes(key.private_bytes(pem, form, plain) + made.public_bytes(pem))
    return path


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    stand_in = StandIn()
    stand_in.keep(DATA)
    with faulty_server(stand_in, context) as server:
        yield server


def test_a_certificate_that_is_trusted(tls: Faulty) -> None:
    assert tls.url.startswith("https:")
    assert Gateway(tls.url, QUICK).fetch(cid_of(DATA)) == [(cid_of(DATA), DATA)]


def test_a_certificate_that_nobody_vouches_for(tls: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(LedgerUnreachable, match="no certificate that this machine trusts"):
        Gateway(tls.url, QUICK).fetch(cid_of(DATA))
    assert not tls.asked


@pytest.mark.parametrize("fault", ["slow", "slow headers", "silent"])
def test_the_time_of_an_answer_over_tls(tls: Faulty, fault: str) -> None:
    tls.spoil(fault)
    began = time.monotonic()
    with pytest.raises(LedgerError, match=r"no whole answer in 0.5 s"):
        Gateway(tls.url, QUICK).fetch(cid_of(DATA))
    assert time.monotonic() - began < 4


def test_the_time_of_a_handshake() -> None:
    """Somebody takes the connection and never speaks."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(LedgerError, match=r"no whole answer in 0.5 s"):
            Gateway(f"https://127.0.0.1:{silent.getsockname()[1]}", QUICK).fetch(cid_of(DATA))
        assert time.monotonic() - began < 4
