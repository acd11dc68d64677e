"""Where a node listens: TLS 1.3 beyond loopback, and processes that come back by themselves."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from integration.node import Node
from keystead.client import Client, Retry

PATIENT = Retry(deadline_s=60, tries_max=100)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=node"
        f" -addext subjectAltName=IP:127.0.0.1 -days 2 -keyout {key} -out {cert}".split(),
        check=True,
        capture_output=True,
    )
    return cert, key


def test_every_address_under_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    trust = ssl.create_default_context(cafile=str(cert))
    node = Node(tmp_path / "data", listen="0.0.0.0:0", tls_cert=str(cert), tls_key=str(key))
    with node:
        port = int(node.url.rpartition(":")[2])
        url = f"https://127.0.0.1:{port}"
        with Client(url, operator=node.token, tls=trust) as client:
            assert client.create_key("over-tls", "tls").name == "over-tls"
        assert negotiated(port, trust, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with pytest.raises(ssl.SSLError):
            negotiated(port, trust, ssl.TLSVersion.TLSv1_2)


def negotiated(port: int, trust: ssl.SSLContext, most: ssl.TLSVersion) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trust.get_ca_certs(binary_form=True)[0])
    context.maximum_version = most
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped,
    ):
        return wrapped.version()


@pytest.mark.parametrize("role", ["front", "steward", "vault"])
def test_a_killed_process_comes_back(tmp_path: Path, role: str) -> None:
    with Node(tmp_path / "data", listen=f"127.0.0.1:{free_port()}") as node:
        before = node.children()
        with Client(node.url, operator=node.token, retry=PATIENT) as client:
            client.create_key("kept", "tls")
            os.kill(before[role], signal.SIGKILL)
            until = time.monotonic() + 60
            while node.children().get(role, before[role]) == before[role]:
                assert time.monotonic() < until, f"the {role} process did not come back"
                time.sleep(0.02)
            assert client.show_key("kept").name == "kept"
        after = node.children()
    assert {name for name in before if before[name] != after[name]} == {role}


def test_killing_the_supervisor_leaves_no_process(tmp_path: Path) -> None:
    node = Node(tmp_path / "data").start()
    children = node.children()
    node.stop(signal.SIGKILL)
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in children.values()):
        assert time.monotonic() < until, "a process outlived its supervisor"
        time.sleep(0.02)
    with node, node.client() as client:
        assert client.list_keys(tenant="default") == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
