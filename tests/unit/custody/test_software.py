"""Software custody beyond its contract: what is wiped, what is bound to what, what is printed."""

from collections.abc import Iterator

import msgspec
import pytest

from keystead.crypto.aead import hkdf, mac
from keystead.custody import software
from keystead.custody.locked import LockedBuffer, wipe
from keystead.custody.root import RootKey
from keystead.custody.software import SoftwareCustody
from keystead.encoding import length_prefixed
from keystead.errors import ContextMismatch, CustodyUnavailable
from keystead.keys.framing.data import Derive, Mac, decode_wrapped, subkey_info
from keystead.keys.lifecycle import State
from keystead.keys.model import Key, Policy, Version
from keystead.keys.purposes import Purpose
from keystead.ports import OpenKey
from keystead.testing.clocks import SeededRandom

SECRET = bytes(range(64, 96))


class Draws:
    """Draws that a test knows."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.rest = SeededRandom()

    def bytes(self, count: int) -> bytes:
        return self.waiting.pop(0) if self.waiting else self.rest.bytes(count)


@pytest.fixture
def draws() -> Draws:
    return Draws()


@pytest.fixture
def custody(draws: Draws) -> SoftwareCustody:
    return SoftwareCustody(RootKey(LockedBuffer.take(bytearray(b"\1" * 32)), draws), draws)


@pytest.fixture
def wiped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bytes, bytearray]]]:
    """(what was in it, the buffer) of everything that custody wipes."""
    seen: list[tuple[bytes, bytearray]] = []

    def watch(buffer: bytearray) -> None:
        seen.append((bytes(buffer), buffer))
        wipe(buffer)

    monkeypatch.setattr(software, "wipe", watch)
    yield seen
    assert all(not any(buffer) for _, buffer in seen)


def key_of(algorithm: str, purpose: Purpose = Purpose.DATA) -> Key:
    return Key(
        id="k-1",
        name="one",
        tenant="shop",
        labels={},
        purpose=purpose,
        algorithms=(algorithm,),
        prehashed=False,
        policy=Policy(),
        generation=1,
        primary=1,
        versions=(),
        revision=1,
        epoch=1,
        created_ms=1,
    )


def version_of(algorithm: str, public: tuple[bytes, ...] = (), number: int = 1) -> Version:
    return Version(
        number=number,
        state=State.ACTIVE,
        algorithm=algorithm,
        public=public,
        kid="kid",
        created_ms=1,
    )


def open_secret(custody: SoftwareCustody, draws: Draws) -> OpenKey:
    """A data key whose secret the test knows."""
    key = key_of("aes-256-gcm-siv")
    tenant_key = custody.new_tenant_key("shop")
    draws.waiting = [SECRET]
    material = custody.generate(key, 1, "aes-256-gcm-siv", tenant_key)
    assert SECRET not in material.sealed
    return custody.open(key, version_of("aes-256-gcm-siv"), material.sealed, tenant_key)


# --- wiping --------------------------------------------------------------------------------------


def test_a_new_secret_is_wiped_once_it_is_sealed(
    custody: SoftwareCustody, draws: Draws, wiped: list[tuple[bytes, bytearray]]
) -> None:
    tenant_key = custody.new_tenant_key("shop")
    assert wiped[-1][0] == SeededRandom().bytes(32)  # the tenant's key itself
    draws.waiting = [SECRET]
    custody.generate(key_of("hmac-sha256"), 1, "hmac-sha256", tenant_key)
    held = [was for was, _ in wiped]
    assert SECRET in held
    assert len(SECRET).to_bytes(4, "big") + SECRET in held


def test_a_private_key_is_wiped_once_it_is_parsed(
    custody: SoftwareCustody, wiped: list[tuple[bytes, bytearray]]
) -> None:
    key = key_of("dual-ecdsa-p256-ml-dsa-65", Purpose.FIRMWARE)
    tenant_key = custody.new_tenant_key("shop")
    material = custody.generate(key, 1, key.algorithms[0], tenant_key)
    made = [was for was, _ in wiped]
    wiped.clear()
    version = version_of(key.algorithms[0], material.public)
    opened = custody.open(key, version, material.sealed, tenant_key)
    parsed = [was for was, _ in wiped]
    assert len(parsed) == 2
    assert set(parsed) <= set(made)
    assert len(opened.sign(b"m", prehashed=False)) == 2


def test_a_key_that_does_not_parse_is_wiped_too(
    custody: SoftwareCustody,
    wiped: list[tuple[bytes, bytearray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = key_of("ed25519", Purpose.TLS)
    tenant_key = custody.new_tenant_key("shop")
    material = custody.generate(key, 1, "ed25519", tenant_key)
    wiped.clear()

    def fails(_component: str, _private: bytearray) -> None:
        raise CustodyUnavailable("the key material does not parse")

    monkeypatch.setattr(software, "open_signer", fails)
    with pytest.raises(CustodyUnavailable):
        custody.open(key, version_of("ed25519", material.public), material.sealed, tenant_key)
    assert len(wiped) == 1


def test_a_closed_data_key_is_wiped(
    custody: SoftwareCustody, draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bytearray] = []

    class Watched(LockedBuffer):
        __slots__ = ()

        def __init__(self, size: int) -> None:
            super().__init__(size)
            taken.append(self.data)

    monkeypatch.setattr(software, "LockedBuffer", Watched)
    opened = open_secret(custody, draws)
    assert [bytes(data) for data in taken] == [SECRET]
    opened.close()
    assert [bytes(data) for data in taken] == [bytes(32)]


def test_nothing_is_sealed_under_a_wiped_root(custody: SoftwareCustody) -> None:
    custody.close()
    with pytest.raises(CustodyUnavailable, match="wiped"):
        custody.new_tenant_key("shop")


# --- binding -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"id": "k-2"}, {"purpose": Purpose.JWT}, {"tenant": "bank"}, {"id": "k-1\0"}, {"id": ""}],
    ids=str,
)
def test_a_moved_row_does_not_open(custody: SoftwareCustody, changes: dict[str, object]) -> None:
    key = key_of("ed25519", Purpose.TLS)
    tenant_key = custody.new_tenant_key("shop")
    material = custody.generate(key, 1, "ed25519", tenant_key)
    version = version_of("ed25519", material.public)
    custody.open(key, version, material.sealed, tenant_key).close()
    moved = msgspec.structs.replace(key, **changes)
    with pytest.raises(CustodyUnavailable) as caught:
        custody.open(moved, version, material.sealed, tenant_key)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("number", "algorithm"), [(2, "ed25519"), (11, "ed25519"), (1, "ml-dsa-44")]
)
def test_another_versions_row_does_not_open(
    custody: SoftwareCustody, number: int, algorithm: str
) -> None:
    key = key_of("ed25519", Purpose.TLS)
    tenant_key = custody.new_tenant_key("shop")
    material = custody.generate(key, 1, "ed25519", tenant_key)
    with pytest.raises(CustodyUnavailable):
        custody.open(key, version_of(algorithm, (), number), material.sealed, tenant_key)


def test_a_tenants_key_does_not_open_as_material(custody: SoftwareCustody) -> None:
    """Nothing sealed opens in another's place."""
    key = key_of("aes-256-gcm-siv")
    tenant_key = custody.new_tenant_key("shop")
    material = custody.generate(key, 1, "aes-256-gcm-siv", tenant_key)
    version = version_of("aes-256-gcm-siv")
    for sealed, under in ((tenant_key, tenant_key), (material.sealed, material.sealed)):
        with pytest.raises(CustodyUnavailable):
            custody.open(key, version, sealed, under)


# --- what data keys do ---------------------------------------------------------------------------


def test_each_operation_has_a_subkey_of_its_own(custody: SoftwareCustody, draws: Draws) -> None:
    opened = open_secret(custody, draws)
    infos = {name: subkey_info("k-1", 1, name, "a/b") for name in ("derive", "mac")}
    tag = opened.mac(Mac(message=b"m"), infos["mac"]).tag
    assert tag == mac(hkdf(SECRET, infos["mac"]), b"m")
    secret = opened.derive(Derive(length=32), infos["derive"]).secret
    assert secret == hkdf(SECRET, length_prefixed((infos["derive"], b"")))
    assert opened.mac(Mac(message=b"m"), infos["derive"]).tag != tag


def test_a_derived_secret_is_never_a_subkey(custody: SoftwareCustody, draws: Draws) -> None:
    """Whoever may derive under a context must not get the subkey of another operation there."""
    opened = open_secret(custody, draws)
    subkeys = {hkdf(SECRET, subkey_info("k-1", 1, name, "a")) for name in ("wrap", "mac", "derive")}
    infos = (b"", subkey_info("k-1", 1, "wrap", "a"), b"\0\0\0\0")
    derived = {
        opened.derive(Derive(info=info), subkey_info("k-1", 1, "derive", "a")).secret
        for info in infos
    }
    assert len(derived) == len(infos)
    assert derived.isdisjoint(subkeys)


@pytest.mark.parametrize("algorithm", ["aes-256-gcm-siv", "hpke-mlkem768-x25519"])
def test_another_context_does_not_unwrap(custody: SoftwareCustody, algorithm: str) -> None:
    key = key_of(algorithm)
    tenant_key = custody.new_tenant_key("shop")
    material = custody.generate(key, 1, algorithm, tenant_key)
    opened = custody.open(key, version_of(algorithm, material.public), material.sealed, tenant_key)
    info, aad = subkey_info("k-1", 1, "wrap", "shop/eu"), b"shop/eu"
    wrapped = opened.wrap(b"plain text", info, aad).wrapped
    assert opened.unwrap(wrapped, info, aad).plaintext == b"plain text"
    assert b"plain text" not in decode_wrapped(wrapped).ciphertext
    for other_info, other_aad in (
        (subkey_info("k-1", 1, "wrap", "shop/us"), aad),
        (info, b"shop/us"),
        (info + aad, b""),
        (b"", info + aad),
    ):
        with pytest.raises(ContextMismatch) as caught:
            opened.unwrap(wrapped, other_info, other_aad)
        assert caught.value.hint
        assert "plain text" not in str(caught.value)


def test_hpke_is_what_its_name_says(custody: SoftwareCustody) -> None:
    key = key_of("hpke-mlkem768-x25519")
    tenant_key = custody.new_tenant_key("shop")
    material = custody.generate(key, 1, key.algorithms[0], tenant_key)
    [public] = material.public
    assert len(public) == 1184 + 32  # ML-KEM-768 (FIPS 203, table 3) and X25519
    version = version_of(key.algorithms[0], material.public)
    opened = custody.open(key, version, material.sealed, tenant_key)
    wrapped = decode_wrapped(opened.wrap(b"x", b"info", b"aad").wrapped)
    assert wrapped.nonce == b""
    assert len(wrapped.ciphertext) == 1088 + 32 + 1 + 16


# --- what is printed -----------------------------------------------------------------------------


def test_nothing_secret_is_printed(custody: SoftwareCustody, draws: Draws) -> None:
    opened = open_secret(custody, draws)
    root = "01" * 32
    for thing in (custody, opened):
        for text in (repr(thing), str(thing), f"{vars(thing)}"):
            assert SECRET.hex() not in text
            assert repr(SECRET)[2:-1] not in text
            assert root not in text


def test_a_failure_tells_no_secret(custody: SoftwareCustody, draws: Draws) -> None:
    opened = open_secret(custody, draws)
    tag = opened.mac(Mac(message=b"m"), b"info").tag
    with pytest.raises(ContextMismatch) as caught:
        opened.mac(Mac(message=b"m", tag=bytes(32)), b"info")
    assert tag.hex() not in str(caught.value)
    assert repr(tag) not in str(caught.value)
