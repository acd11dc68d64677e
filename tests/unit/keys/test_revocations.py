"""Revocation lists: what each holds, and that a statement fits one list, key and epoch only."""

from pathlib import Path
from subprocess import run

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.encoding import strict_json
from keystead.errors import MalformedRequest, SignatureInvalid
from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.purposes import PURPOSES, Purpose
from keystead.keys.revocations import (
    LISTS,
    DeniedVersion,
    ListName,
    Statement,
    check_statement,
    denied,
    list_bytes,
    parse_deny_list,
    statement_of,
)
from keystead.keys.rollout.model import Rollout, Rotation, Stage, Status, Step
from keystead.keys.rollout.plan import default_plan
from unit.keys.sample import NOW_MS, key_of

ORIGIN = "d1/node-a"
STATES = (
    State.DEACTIVATED,
    State.COMPROMISED,
    State.DESTROYED,
    State.SUSPENDED,
    State.ACTIVE,
    State.PRE_ACTIVATION,
)


def key_with(purpose: Purpose = Purpose.JWT, states: tuple[State, ...] = STATES) -> Key:
    """Compromised versions are so since epoch 4; version 3 was before it was destroyed."""
    key = key_of(purpose, None, states, epoch=9, primary=len(states))
    return msgspec.structs.replace(
        key,
        versions=tuple(
            msgspec.structs.replace(
                v,
                public=(public_of(v.number),),
                compromised_epoch=4 if v.number == 3 or v.state is State.COMPROMISED else 0,
            )
            for v in key.versions
        ),
    )


def public_of(number: int) -> bytes:
    public: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
    if number % 2:
        public = ec.derive_private_key(number, ec.SECP256R1()).public_key()
    else:
        public = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def rolled_back(key: Key, number: int, epoch: int) -> Rotation:
    def step(event: str, at: int) -> Step:
        return Step(
            event=event,
            stage=Stage.CANARY,
            status=Status.RUNNING,
            ramp=0,
            at_ms=NOW_MS,
            epoch=at,
            by="rollout",
            reason="",
        )

    rollout = Rollout(
        number=1,
        previous=1,
        next=number,
        plan=default_plan(key),
        stage=Stage.CANARY,
        status=Status.ROLLED_BACK,
        incident=False,
        reason="",
        began_ms=NOW_MS,
        entered_ms=NOW_MS,
        steps=(step("canary", epoch - 1), step("rolled back", epoch)),
    )
    return Rotation(key_id=key.id, rollout=rollout)


# --- what is denied ------------------------------------------------------------------------------


def test_what_is_compromised_or_suspended_is_denied_and_nothing_else() -> None:
    key = key_with()
    assert denied(key, None) == (
        DeniedVersion(version=2, kid="kid-2", state="compromised", since_epoch=4),
        DeniedVersion(version=3, kid="kid-3", state="compromised", since_epoch=4),
        DeniedVersion(version=4, kid="kid-4", state="suspended", since_epoch=0),
    )


def test_a_rolled_back_version_is_denied_since_its_rollback() -> None:
    key = key_with()
    assert denied(key, rolled_back(key, 4, 8))[-1].since_epoch == 8
    assert denied(key, rolled_back(key, 5, 8))[-1].since_epoch == 0  # another version's rollback


def test_the_deny_list_is_canonical_json() -> None:
    key = key_with(Purpose.FIRMWARE)
    data = list_bytes("deny", key, rolled_back(key, 4, 8), 0)
    assert strict_json(data, depth_max=4) == {
        "format": "keystead/deny/v1",
        "key": "shop",
        "purpose": "firmware",
        "epoch": 9,
        "denied": [
            {"version": 2, "kid": "kid-2", "state": "compromised", "since_epoch": 4},
            {"version": 3, "kid": "kid-3", "state": "compromised", "since_epoch": 4},
            {"version": 4, "kid": "kid-4", "state": "suspended", "since_epoch": 8},
        ],
    }
    assert data.startswith(b'{"denied":[{"kid":"kid-2","since_epoch":4,')
    assert parse_deny_list(data).denied == denied(key, rolled_back(key, 4, 8))


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b'{"format":"keystead/deny/v2"}'])
def test_what_is_no_deny_list_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedRequest, match="keystead/deny/v1"):
        parse_deny_list(data)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_list_is_for_its_purposes_only(name: ListName, purpose: Purpose) -> None:
    key = key_with(purpose)
    if purpose in LISTS[name]:
        assert list_bytes(name, key, None, 0)
    else:
        with pytest.raises(MalformedRequest, match=f"it has no list {name}"):
            list_bytes(name, key, None, 0)


# --- OpenSSH's two -------------------------------------------------------------------------------


def test_a_krl_has_the_epoch_as_its_version_and_compromised_versions_only(tmp_path: Path) -> None:
    key = key_with(Purpose.SSH_CA)
    file = tmp_path / "list.krl"
    file.write_bytes(list_bytes("krl", key, rolled_back(key, 4, 8), NOW_MS // 1000))
    shown = run(
        ["ssh-keygen", "-Q", "-l", "-f", str(file)], capture_output=True, text=True, check=True
    )
    lines = shown.stdout.splitlines()
    assert lines[0] == "# KRL version 9"
    assert sorted(line.rpartition(" # ")[2] for line in lines if line.startswith("hash")) == [
        "ecdsa-sha2-nistp256",
        "ssh-ed25519",
    ]


def test_ssh_finds_the_revoked_authorities_in_known_hosts(tmp_path: Path) -> None:
    file = tmp_path / "revoked_hosts"
    data = list_bytes("revoked_hosts", key_with(Purpose.SSH_CA), None, 0)
    assert data.startswith(b"# keystead shop, epoch 9\n")
    file.write_bytes(data)
    found = run(
        ["ssh-keygen", "-F", "any.example", "-f", str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.count("REVOKED") == 2
    assert found.stdout.count("\n@revoked * ecdsa-sha2-nistp256 ") == 1
    assert found.stdout.count("\n@revoked * ssh-ed25519 ") == 1


def test_without_a_compromise_no_host_is_revoked() -> None:
    key = key_with(Purpose.SSH_CA, (State.ACTIVE, State.SUSPENDED))
    assert list_bytes("revoked_hosts", key, None, 0) == b"# keystead shop, epoch 9\n"


# --- statements ----------------------------------------------------------------------------------


def statement(key: Key, name: ListName = "deny") -> tuple[str, bytes]:
    data = list_bytes(name, key, None, NOW_MS // 1000)
    return statement_of(ORIGIN, key, name, data).encode(), data


def test_a_statement_names_log_key_epoch_bytes_and_list() -> None:
    text, data = statement(key_with())
    lines = text.split("\n")
    assert lines[:2] == ["d1/node-a/revocations/shop", "epoch 9"]
    assert lines[3:] == ["deny", ""]
    said = check_statement(text, data, origin=ORIGIN, key="shop", name="deny", epoch_at_least=9)
    assert isinstance(said, Statement)
    assert (said.key, said.epoch, said.name) == ("shop", 9, "deny")


def check_refused(match: str, text: str, data: bytes, **other: object) -> None:
    asked = {"origin": ORIGIN, "key": "shop", "name": "deny", "epoch_at_least": 0} | other
    with pytest.raises(SignatureInvalid, match=match):
        check_statement(text, data, **asked)  # type: ignore[arg-type]  # of a table


def test_a_statement_stands_for_nothing_else() -> None:
    text, data = statement(key_with())
    check_refused("is not the one that was signed", text, data + b" ")
    check_refused("is not the one that was signed", text.replace("epoch 9", "epoch 09"), data)
    check_refused("revocations of other", text, data, key="other")
    check_refused("by d1/node-b", text, data, origin="d1/node-b")
    check_refused("on the list krl", text, data, name="krl")
    check_refused("of epoch 10 or later, met epoch 9", text, data, epoch_at_least=10)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d1/node-a/revocations/shop\n",
        "d1/node-a/revocations/shop\n9\nhash\ndeny\n",  # as a checkpoint's size would stand
        "d1/node-a/revocations/shop\nepoch \nhash\ndeny\n",
        "d1/node-a/revocations/shop\nepoch -1\nhash\ndeny\n",
        "d1/node-a/revocations/shop\nepoch ²\nhash\ndeny\n",
        "d1/node-a/revocations/shop\nepoch 99999999999999999999\nhash\ndeny\n",
        "d1/node-a/revocations/shop\nepoch 9\nhash\ndeny",
    ],
)
def test_what_is_no_statement_is_refused(text: str) -> None:
    check_refused("expected a statement on a revocation list, met another note", text, b"")


def test_more_lines_than_four_are_refused() -> None:
    text, data = statement(key_with())
    check_refused("is not the one", f"{text}more\n", data)
