"""Handles bound to a key or certificate: the vault itself checks who sends each request."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from integration.node import Node
from keystead.client import Binding, Bound, Client, Narrowing
from keystead.encoding import b64u_encode
from keystead.errors import PermissionDenied

RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)


@pytest.fixture
def holder() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@pytest.fixture
def bound_handle(operator: Client, holder: ed25519.Ed25519PrivateKey) -> str:
    name = f"bound-{id(holder):x}"
    operator.create_key(name, "tls")
    value = b64u_encode(holder.public_key().public_bytes(*RAW))
    narrowing = Narrowing(bound_to=Binding(kind="ed25519", value=value))
    return operator.issue_handle(name, "runner", narrowing=narrowing).handle.reveal()


def test_the_holder_of_the_key_may(
    node: Node, bound_handle: str, holder: ed25519.Ed25519PrivateKey
) -> None:
    with Client(node.url, bound=Bound(holder.sign)) as client:
        assert client.sign_tls(bound_handle, bytes(32), context="ci/build").receipt.seq


def test_nobody_else_may(node: Node, bound_handle: str) -> None:
    with Client(node.url) as thief, pytest.raises(PermissionDenied, match="does not prove"):
        thief.sign_tls(bound_handle, bytes(32), context="ci/build")
    other = ed25519.Ed25519PrivateKey.generate()
    with (
        Client(node.url, bound=Bound(other.sign)) as forger,
        pytest.raises(PermissionDenied, match="does not verify"),
    ):
        forger.sign_tls(bound_handle, bytes(32), context="ci/build")


def test_a_client_certificate_binds_too(node: Node, operator: Client) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    der = certificate_of(key)
    operator.create_key("bound-certificate", "tls")
    value = b64u_encode(hashlib.sha256(der).digest())
    narrowing = Narrowing(bound_to=Binding(kind="certificate", value=value))
    handle = operator.issue_handle("bound-certificate", "runner", narrowing=narrowing).handle

    def sign(message: bytes) -> bytes:
        return key.sign(message, ec.ECDSA(hashes.SHA256()))

    with Client(node.url, bound=Bound(sign, certificate=der)) as client:
        assert client.sign_tls(handle, bytes(32), context="ci/build").receipt.seq
    with Client(node.url) as thief, pytest.raises(PermissionDenied):
        thief.sign_tls(handle, bytes(32), context="ci/build")


def certificate_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "runner")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=3650))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
