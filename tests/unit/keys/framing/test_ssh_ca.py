"""SSH certificates: ssh-keygen reads and accepts them, the policy's rules refuse."""

import json
from base64 import b64encode
from pathlib import Path
from subprocess import run
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from keystead import limits
from keystead.crypto.ssh import public_key_line, wire_strings
from keystead.errors import KeysteadError, LimitExceeded, MalformedRequest, PermissionDenied
from keystead.keys.framing import ssh_ca
from keystead.keys.framing.base import Scene
from keystead.keys.lifecycle import State
from keystead.keys.model import Key, Policy, SshCaPolicy, Version
from keystead.keys.purposes import Purpose

VECTOR = Path(__file__).parents[3] / "vectors" / "ssh_ca.json"
NOW_MS = 1_790_000_000_123
NOW_S = NOW_MS // 1000
DAY_S = 24 * 3600
RANDOM = bytes(range(32))
POLICY = SshCaPolicy(
    types=("user", "host"), principals=("ann", "role:db", "gate.shop.example", "*.eu.shop.example")
)
Authority = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
AUTHORITIES: dict[str, Authority] = {
    "ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32),
    "ecdsa-p256-sha256": ec.derive_private_key(7, ec.SECP256R1()),
}
USER = ed25519.Ed25519PrivateKey.from_private_bytes(b"\2" * 32)


def spki_of(key: Authority) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


USER_LINE = public_key_line(spki_of(USER), "ann@desk")


def scene_of(
    algorithm: str = "ed25519", policy: SshCaPolicy = POLICY, now_ms: int = NOW_MS
) -> Scene:
    version = Version(
        number=1,
        state=State.ACTIVE,
        algorithm=algorithm,
        public=(spki_of(AUTHORITIES[algorithm]),),
        kid="kid",
        created_ms=NOW_MS,
    )
    key = Key(
        id="k1",
        name="ssh-ca",
        tenant="t",
        labels={},
        purpose=Purpose.SSH_CA,
        algorithms=(algorithm,),
        prehashed=False,
        policy=Policy(ssh_ca=policy),
        generation=1,
        primary=1,
        versions=(version,),
        revision=1,
        epoch=1,
        created_ms=NOW_MS,
    )
    return Scene(key=key, version=version, context="ssh/eu", now_ms=now_ms, random=RANDOM)


def facts_of(**changes: object) -> ssh_ca.SignSshCa:
    """Facts by the way they come: decoded, so that their shape is checked too."""
    asked: dict[str, object] = {
        "public_key": USER_LINE,
        "key_id": "ann",
        "principals": ["ann"],
        "lifetime_s": 3600,
    }
    return msgspec.json.decode(json.dumps(asked | changes), type=ssh_ca.SignSshCa)


def issue(scene: Scene, **changes: object) -> ssh_ca.SshCaResult:
    framed = ssh_ca.SSH_CA.frame(facts_of(**changes), scene)
    key = AUTHORITIES[scene.version.algorithm]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        raw = key.sign(framed.message, ec.ECDSA(hashes.SHA256()))
    else:
        raw = key.sign(framed.message)
    result = framed.finish((raw,))
    assert isinstance(result, ssh_ca.SshCaResult)
    return result


def read(result: ssh_ca.SshCaResult) -> SSHCertificate:
    found = load_ssh_public_identity(result.certificate.encode())
    assert isinstance(found, SSHCertificate)
    found.verify_cert_signature()
    return found


def shown_by_ssh_keygen(folder: Path, result: ssh_ca.SshCaResult) -> str:
    """``ssh-keygen -L``, on one line; reading a certificate checks its signature too."""
    (folder / "id-cert.pub").write_text(result.certificate + "\n")
    done = run(
        ["ssh-keygen", "-L", "-f", str(folder / "id-cert.pub")],
        capture_output=True,
        text=True,
        check=True,
        env={"TZ": "UTC", "PATH": "/usr/bin"},
    )
    return " ".join(done.stdout.split())


# --- what foreign tools say ----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", AUTHORITIES)
def test_ssh_keygen_reads_a_users_certificate(tmp_path: Path, algorithm: str) -> None:
    result = issue(
        scene_of(algorithm),
        principals=["ann", "role:db"],
        force_command="/usr/bin/deploy --now",
        source_address=["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"],
        extensions=["permit-pty", "permit-X11-forwarding"],
    )
    shown = shown_by_ssh_keygen(tmp_path, result)
    for part in (
        "Type: ssh-ed25519-cert-v01@openssh.com user certificate",
        f"Serial: {result.serial} Valid:",
        'Key ID: "ann"',
        "Valid: from 2026-09-21T14:08:20 to 2026-09-21T15:13:20",
        "Principals: ann role:db Critical Options:",
        "Critical Options: force-command /usr/bin/deploy --now source-address",
        "source-address 10.0.0.0/8,2001:db8::/32,192.0.2.1/32 Extensions:",
        "Extensions: permit-X11-forwarding permit-pty",
    ):
        assert part in shown


@pytest.mark.parametrize("algorithm", AUTHORITIES)
def test_ssh_keygen_reads_a_hosts_certificate(tmp_path: Path, algorithm: str) -> None:
    hosts = ["Gate.shop.example", "a.b.eu.shop.example"]
    shown = shown_by_ssh_keygen(tmp_path, issue(scene_of(algorithm), type="host", principals=hosts))
    assert "host certificate" in shown
    assert "Principals: gate.shop.example a.b.eu.shop.example Critical Options: (none)" in shown
    assert shown.endswith("Extensions: (none)")


@pytest.mark.parametrize("options", ["-t ed25519", "-t ecdsa -b 256", "-t rsa -b 2048"])
def test_ssh_keygen_takes_certificates_of_all_its_keys(tmp_path: Path, options: str) -> None:
    file = tmp_path / "id"
    run(["ssh-keygen", "-q", *options.split(), "-N", "", "-f", str(file)], check=True)
    result = issue(scene_of(), public_key=(tmp_path / "id.pub").read_text())
    fingerprint = run(
        ["ssh-keygen", "-l", "-f", str(file)], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    assert fingerprint in shown_by_ssh_keygen(tmp_path, result)


@pytest.mark.parametrize(
    "fields",
    [
        ("sk-ssh-ed25519@openssh.com", USER.public_key().public_bytes_raw(), "ssh:"),
        (
            "sk-ecdsa-sha2-nistp256@openssh.com",
            "nistp256",
            ec.derive_private_key(9, ec.SECP256R1())
            .public_key()
            .public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            ),
            "ssh:",
        ),
    ],
    ids=["sk-ed25519", "sk-ecdsa"],
)
def test_ssh_keygen_takes_certificates_of_security_keys(
    tmp_path: Path, fields: tuple[str | bytes, ...]
) -> None:
    line = f"{fields[0]!s} {b64encode(wire_strings(*fields)).decode()}"
    assert "-cert-v01@openssh.com user certificate" in shown_by_ssh_keygen(
        tmp_path, issue(scene_of(), public_key=line)
    )


def signed_and_verified(folder: Path, algorithm: str, principal: str, at: str) -> str:
    """Ann signs a file with her key and certificate; who trusts the authority verifies it."""
    private = USER.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    (folder / "id").write_bytes(private)
    (folder / "id").chmod(0o600)
    (folder / "id-cert.pub").write_text(issue(scene_of(algorithm)).certificate + "\n")
    authority = public_key_line(spki_of(AUTHORITIES[algorithm]))
    (folder / "allowed").write_text(f"* cert-authority {authority}\n")
    (folder / "message").write_text("hello")
    files = [str(folder / "id-cert.pub"), str(folder / "message")]
    run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", *files],
        check=True,
        capture_output=True,
    )
    words = ["-f", str(folder / "allowed"), "-s", str(folder / "message.sig")]
    done = run(
        [
            "ssh-keygen",
            "-Y",
            "verify",
            "-n",
            "file",
            "-I",
            principal,
            f"-Overify-time={at}",
            *words,
        ],
        input="hello",
        capture_output=True,
        text=True,
        check=False,
        env={"TZ": "UTC", "PATH": "/usr/bin"},
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("algorithm", AUTHORITIES)
def test_ssh_keygen_accepts_what_the_certificate_certifies(tmp_path: Path, algorithm: str) -> None:
    said = signed_and_verified(tmp_path, algorithm, "ann", "20260921141320")
    assert 'Good "file" signature for ann with ED25519-CERT key' in said


def test_ssh_keygen_refuses_another_principal(tmp_path: Path) -> None:
    said = signed_and_verified(tmp_path, "ed25519", "bob", "20260921141320")
    assert "Good" not in said


@pytest.mark.parametrize("at", ["20260921140819", "20260921151320"])
def test_ssh_keygen_refuses_another_time(tmp_path: Path, at: str) -> None:
    assert "Good" not in signed_and_verified(tmp_path, "ed25519", "ann", at)


# --- what the vault builds -----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", AUTHORITIES)
def test_pyca_reads_the_same(algorithm: str) -> None:
    result = issue(scene_of(algorithm))
    made = read(result)
    assert made.nonce == RANDOM[:24]
    assert made.serial == int.from_bytes(RANDOM[24:], "big") | 1 << 63 == int(result.serial)
    assert made.valid_after == NOW_S - limits.CERT_BACKDATE_S
    assert made.valid_before == NOW_S + 3600 == result.valid_before_ms // 1000
    assert made.valid_principals == [b"ann"]
    assert made.critical_options == {}
    assert made.extensions == {b"permit-pty": b""}
    assert result.certificate.endswith(" ann@desk")


def test_the_key_id_comments_a_line_without_comment() -> None:
    result = issue(scene_of(), public_key=public_key_line(spki_of(USER)), key_id="ann at desk")
    assert result.certificate.endswith("= ann at desk")
    assert read(result).key_id == b"ann at desk"


def test_extensions_can_be_none_at_all() -> None:
    assert read(issue(scene_of(), extensions=[])).extensions == {}


def test_repeated_principals_and_extensions_count_once() -> None:
    made = read(
        issue(scene_of(), principals=["ann", "ann"], extensions=["permit-pty", "permit-pty"])
    )
    assert made.valid_principals == [b"ann"]
    assert made.extensions == {b"permit-pty": b""}


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        ({"principals": []}, MalformedRequest, "any principal"),
        ({"principals": ["ann"] * 257}, MalformedRequest, "met 257"),
        ({"principals": ["bob"]}, PermissionDenied, "'bob'"),
        ({"principals": ["ann", "root"]}, PermissionDenied, "'root'"),
        ({"principals": ["Ann"]}, PermissionDenied, "'Ann'"),
        ({"principals": ["a.eu.shop.example"]}, PermissionDenied, "does not allow"),
        ({"principals": ["*.eu.shop.example"]}, MalformedRequest, "user names"),
        ({"principals": [""]}, MalformedRequest, "user names"),
        ({"principals": ["ann,root"]}, MalformedRequest, "user names"),
        ({"principals": ["ann\n"]}, MalformedRequest, "user names"),
        ({"principals": ["ann\0"]}, MalformedRequest, "user names"),
        ({"principals": ["a" * 254]}, MalformedRequest, "user names"),
        ({"type": "host", "principals": ["*"]}, MalformedRequest, "host names"),
        ({"type": "host", "principals": ["*.eu.shop.example"]}, MalformedRequest, "host names"),
        ({"type": "host", "principals": ["?.eu.shop.example"]}, MalformedRequest, "host names"),
        ({"type": "host", "principals": ["eu.shop.example"]}, PermissionDenied, "does not allow"),
        ({"type": "host", "principals": ["xeu.shop.example"]}, PermissionDenied, "does not allow"),
        ({"type": "host", "principals": ["x.gate.shop.example"]}, PermissionDenied, "not allow"),
        (
            {"type": "host", "principals": ["gate.shop.example"], "force_command": "id"},
            MalformedRequest,
            "host certificate without",
        ),
        (
            {"type": "host", "principals": ["gate.shop.example"], "extensions": ["permit-pty"]},
            MalformedRequest,
            "host certificate without",
        ),
        (
            {"type": "host", "principals": ["gate.shop.example"], "source_address": ["::/0"]},
            MalformedRequest,
            "host certificate without",
        ),
        ({"lifetime_s": DAY_S + 1}, LimitExceeded, "86400 s of life"),
        ({"key_id": ""}, MalformedRequest, "key_id of 1 to 256"),
        ({"key_id": "a\nb"}, MalformedRequest, "key_id"),
        ({"key_id": "ä" * 129}, MalformedRequest, "key_id"),
        ({"force_command": ""}, MalformedRequest, "force_command"),
        ({"force_command": "id\nid"}, MalformedRequest, "force_command"),
        ({"force_command": "x" * 1025}, MalformedRequest, "force_command"),
        ({"source_address": ["10.0.0.1/8"]}, MalformedRequest, "host bits"),
        ({"source_address": ["!10.0.0.0/8"]}, MalformedRequest, "networks"),
        ({"source_address": ["10.0.0.0/8,0.0.0.0/0"]}, MalformedRequest, "networks"),
        ({"source_address": ["fe80::1%eth0"]}, MalformedRequest, "source_address"),
        ({"source_address": ["10.0.0.0/8"] * 65}, MalformedRequest, "met 65"),
        ({"public_key": "ssh-dss AAAA"}, MalformedRequest, "ssh-dss"),
        (
            {"public_key": public_key_line(spki_of(AUTHORITIES["ed25519"]))},
            PermissionDenied,
            "authority's own key",
        ),
    ],
    ids=str,
)
def test_certificates_outside_the_policy_are_refused(
    changes: dict[str, object], error: type[KeysteadError], what: str
) -> None:
    with pytest.raises(error, match=what):
        issue(scene_of(), **changes)


def test_a_type_outside_the_policy_is_refused() -> None:
    with pytest.raises(PermissionDenied, match="no host certificates"):
        issue(scene_of(policy=SshCaPolicy(principals=("a",))), type="host", principals=["a"])


def test_a_bare_star_in_a_policy_allows_nothing() -> None:
    policy = SshCaPolicy(types=("user", "host"), principals=("*", "*."))
    for kind in ("user", "host"):
        with pytest.raises(PermissionDenied):
            issue(scene_of(policy=policy), type=kind, principals=["root"])


def test_a_weak_key_is_refused() -> None:
    weak = rsa.RSAPublicNumbers(65537, 2**1023 + 1).public_key()
    line = weak.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    with pytest.raises(MalformedRequest, match="met 1024 bits"):
        issue(scene_of(), public_key=line.decode())


def test_a_key_without_policy_issues_nothing() -> None:
    scene = scene_of()
    with pytest.raises(MalformedRequest, match="no policy"):
        issue(replace(scene, key=replace(scene.key, policy=Policy())))


@pytest.mark.parametrize(
    "changes",
    [
        {"extensions": ["no-touch-required"]},
        {"type": "both"},
        {"lifetime_s": 0},
        {"verify_required": True},
    ],
    ids=str,
)
def test_facts_of_another_shape_do_not_decode(changes: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        facts_of(**changes)


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


def is_issued(name: str, allowed: str) -> bool:
    policy = SshCaPolicy(types=("host",), principals=(allowed,))
    try:
        issue(scene_of(policy=policy), type="host", principals=[name])
    except PermissionDenied:
        return False
    return True


@given(NAMES, NAMES)
@example("xeu.shop.example", "eu.shop.example")
@example("eu.shop.example", "eu.shop.example")
def test_a_suffix_allows_hosts_below_it_by_whole_labels(name: str, suffix: str) -> None:
    parts, wanted = name.split("."), suffix.split(".")
    below = len(parts) > len(wanted) and parts[-len(wanted) :] == wanted
    assert is_issued(name, f"*.{suffix}") == below
    assert is_issued(f"{name}.{suffix}", f"*.{suffix}")
    assert not is_issued(f"{name}-{suffix}", f"*.{suffix}")


# --- the fixed vector ----------------------------------------------------------------------------


def vector_of(given: dict[str, Any]) -> dict[str, Any]:
    """What our code makes of the vector's inputs; Ed25519 signs the same way each time."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(given["authority_seed"]))
    base = scene_of(policy=msgspec.convert(given["policy"], SshCaPolicy))
    scene = replace(
        base,
        version=replace(base.version, public=(spki_of(key),)),
        now_ms=given["now_ms"],
        random=bytes.fromhex(given["random"]),
    )
    made: dict[str, Any] = {"authority": public_key_line(spki_of(key))}
    for name in ("user", "host"):
        framed = ssh_ca.SSH_CA.frame(facts_of(**given[name]), scene)
        result = framed.finish((key.sign(framed.message),))
        assert isinstance(result, ssh_ca.SshCaResult)
        made[name] = {"tbs": framed.message.hex(), "certificate": result.certificate}
    return made


def test_the_vector_is_made_byte_for_byte() -> None:
    vector = json.loads(VECTOR.read_text())
    assert vector_of(vector["given"]) == vector["expected"]


@pytest.mark.parametrize("kind", ["user", "host"])
def test_ssh_keygen_accepts_the_vector(tmp_path: Path, kind: str) -> None:
    line = json.loads(VECTOR.read_text())["expected"][kind]["certificate"]
    result = ssh_ca.SshCaResult(certificate=line, serial="", valid_before_ms=0)
    assert f"{kind} certificate" in shown_by_ssh_keygen(tmp_path, result)
    assert read(result).signature_key() == load_authority()


def load_authority() -> object:
    line = json.loads(VECTOR.read_text())["expected"]["authority"]
    return load_ssh_public_identity(line.encode())
