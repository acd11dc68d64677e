import os
import shutil
import stat
import subprocess
from pathlib import Path

import jwt
import pytest

from keystead.cli.tour.foreign import Tools, check_token, flipped
from keystead.cli.tour.report import CheckFailed, NotInstalled

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl"
)
needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="needs ssh-keygen: apt-get install openssh-client"
)
MESSAGE = b"a manifest"
CLAIMS = {"iss": "i", "aud": "shop", "iat": 1_700_000_000, "exp": 4_000_000_000}


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path)


def openssl(folder: Path, *arguments: str) -> bytes:
    return subprocess.run(
        ["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=20
    ).stdout


def key_pair(folder: Path, *options: str) -> str:
    """A private key in ``k.pem``; gives its public part."""
    openssl(folder, "genpkey", *options, "-out", "k.pem")
    return openssl(folder, "pkey", "-in", "k.pem", "-pubout").decode()


def stand_in(folder: Path, script: str) -> Path:
    """An ``openssl`` that only does what the script says."""
    folder.mkdir(exist_ok=True)
    path = folder / "openssl"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_flipped_changes_one_bit() -> None:
    assert flipped(b"\x00\x00\x00") == b"\x00\x01\x00"


# --- the runner ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "package", "status"),
    [
        ("openssl", "openssl", "failed"),
        ("ssh-keygen", "openssh-client", "not checked"),
        ("sha256sum", "coreutils", "failed"),
    ],
)
def test_a_missing_tool_is_named_by_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, status: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match=package) as caught:
        Tools(tmp_path).run(name)
    assert caught.value.status == status


def test_a_tool_that_says_no_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "bin", "echo Verification failure >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(CheckFailed, match="openssl dgst refuses: Verification failure"):
        Tools(tmp_path).run("openssl", "dgst")


def test_a_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "bin", "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("keystead.cli.tour.foreign.TOOL_TIMEOUT_S", 0.1)
    with pytest.raises(CheckFailed, match="did not end within"):
        Tools(tmp_path).run("openssl", "version")


def test_a_tool_that_says_yes_to_everything_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "bin", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(CheckFailed, match="another message too"):
        Tools(tmp_path).check_raw_signature("pem", MESSAGE, b"signature")


def test_files_are_for_their_owner_only(tools: Tools) -> None:
    path = tools.folder / tools.write("secret", "x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_sha256sum_of_bytes_and_of_a_file_whose_name_it_escapes(tools: Tools) -> None:
    digest = "9a271f2a916b0b6ee6cecb2426f0b3206ef074578be55d9bc94f6f3fe3ab86aa"
    odd = tools.folder / "back\\slash"
    odd.write_bytes(b"4\n")
    assert tools.sha256(b"4\n") == tools.sha256(odd)
    assert tools.sha256(b"0") != digest
    assert tools.sha256(b"0\n") == digest


# --- signatures ----------------------------------------------------------------------------------


@needs_openssl
def test_an_ecdsa_signature_verifies_and_another_does_not(tools: Tools, tmp_path: Path) -> None:
    public = key_pair(tmp_path, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    (tmp_path / "m").write_bytes(MESSAGE)
    signature = openssl(tmp_path, "dgst", "-sha256", "-sign", "k.pem", "m")
    tools.check_digest_signature(public, MESSAGE, signature)
    assert tools.public_kind(public) == "P-256"
    with pytest.raises(CheckFailed):
        tools.check_digest_signature(public, b"another", signature)


@needs_openssl
def test_a_pss_signature_needs_its_padding(tools: Tools, tmp_path: Path) -> None:
    public = key_pair(tmp_path, "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    (tmp_path / "m").write_bytes(MESSAGE)
    pss = ("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest")
    signature = openssl(tmp_path, "dgst", "-sha256", *pss, "-sign", "k.pem", "m")
    tools.check_digest_signature(public, MESSAGE, signature, pss=True)
    assert tools.public_kind(public) == "RSA 2048 bit"
    with pytest.raises(CheckFailed):
        tools.check_digest_signature(public, MESSAGE, signature)


@needs_openssl
def test_an_ed25519_signature_verifies_and_another_does_not(tools: Tools, tmp_path: Path) -> None:
    public = key_pair(tmp_path, "-algorithm", "ED25519")
    (tmp_path / "m").write_bytes(MESSAGE)
    signature = openssl(tmp_path, "pkeyutl", "-sign", "-rawin", "-inkey", "k.pem", "-in", "m")
    tools.check_raw_signature(public, MESSAGE, signature)
    assert tools.public_kind(public) == "ED25519"
    with pytest.raises(CheckFailed):
        tools.check_raw_signature(public, MESSAGE, flipped(signature))


@needs_openssl
def test_a_request_is_for_the_host(tools: Tools, tmp_path: Path) -> None:
    csr = tools.certificate_request("www.tour.example")
    assert csr.startswith("-----BEGIN CERTIFICATE REQUEST-----")
    text = openssl(tmp_path, "req", "-in", "leaf.csr", "-noout", "-text", "-verify").decode()
    assert "DNS:www.tour.example" in text


@needs_openssl
def test_a_leaf_of_another_authority_is_refused(tools: Tools, tmp_path: Path) -> None:
    tools.certificate_request("www.tour.example")
    names = ("-subj", "/CN=www.tour.example", "-addext", "subjectAltName=DNS:www.tour.example")
    for name in ("one", "two"):
        openssl(
            tmp_path, "req", "-x509", "-key", "leaf.key", "-out", name, "-config", "req.cnf", *names
        )
    own, other = (tmp_path / "one").read_text(), (tmp_path / "two").read_text()
    with pytest.raises(CheckFailed, match="openssl verify refuses"):
        tools.check_leaf(other.replace("A", "B", 1), own, "www.tour.example")


# --- certificates of ssh -------------------------------------------------------------------------


def ssh_certificate(tools: Tools, principal: str) -> tuple[str, str]:
    """A certificate by ssh-keygen itself for the tour's key, and the authority's line."""
    tools.ssh_public_key()
    tools.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "authority")
    tools.run("ssh-keygen", "-q", "-s", "authority", "-I", "tour-1", "-n", principal, "id.pub")
    line = (tools.folder / "id-cert.pub").read_text().strip()
    kind, key = (tools.folder / "authority.pub").read_text().split()[:2]
    return line, f"{kind} {key}"


@needs_ssh_keygen
def test_an_ssh_certificate_is_read_and_used(tools: Tools) -> None:
    line, authority = ssh_certificate(tools, "deploy")
    said = tools.check_ssh_certificate(line, authority, "deploy", "tour-1")
    assert "trusted by the authority's key alone" in said


@needs_ssh_keygen
@pytest.mark.parametrize(
    ("principal", "key_id"), [("root", "tour-1"), ("deploy", "tour-2"), ("root", "tour-2")]
)
def test_an_ssh_certificate_for_somebody_else_is_refused(
    tools: Tools, principal: str, key_id: str
) -> None:
    line, authority = ssh_certificate(tools, "deploy")
    with pytest.raises(CheckFailed, match="expected"):
        tools.check_ssh_certificate(line, authority, principal, key_id)


# --- tokens --------------------------------------------------------------------------------------


@needs_openssl
def test_a_token_verifies_under_its_key_set_only(tmp_path: Path) -> None:
    key_pair(tmp_path, "-algorithm", "ED25519")
    private = jwt.get_algorithm_by_name("EdDSA").prepare_key((tmp_path / "k.pem").read_bytes())
    token = jwt.encode(CLAIMS, private, "EdDSA", {"kid": "one"})
    jwk = jwt.algorithms.OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    served = {"keys": [{**jwk, "kid": "one", "alg": "EdDSA", "use": "sig"}]}
    claims = check_token(token, served, algorithm="EdDSA", audience="shop", issuer="i")
    assert claims == CLAIMS
    for wrong in (
        {"algorithm": "ES256", "audience": "shop", "issuer": "i"},
        {"algorithm": "EdDSA", "audience": "bank", "issuer": "i"},
        {"algorithm": "EdDSA", "audience": "shop", "issuer": "j"},
    ):
        with pytest.raises(CheckFailed, match="PyJWT refuses"):
            check_token(token, served, **wrong)
    served["keys"][0]["kid"] = "two"
    with pytest.raises(CheckFailed, match="PyJWT refuses"):
        check_token(token, served, algorithm="EdDSA", audience="shop", issuer="i")
