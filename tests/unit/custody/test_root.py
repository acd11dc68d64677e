"""The root key: sealed under its deployment, wiped at the end, and each derivation its own."""

from pathlib import Path

import pytest

from keystead.custody.locked import LockedBuffer
from keystead.custody.root import RootKey
from keystead.custody.seal_file import FileSeal
from keystead.errors import CustodyUnavailable, StartupError
from keystead.testing.clocks import SeededRandom


class KeptSeal:
    """A seal that remembers which buffers it gave out."""

    kind = "kept"

    def __init__(self, key: bytes = b"\7" * 32) -> None:
        self.key = key
        self.given: list[bytearray] = []

    def open(self) -> bytearray:
        self.given.append(bytearray(self.key))
        return self.given[-1]


def made(seal: KeptSeal | FileSeal, seed: int = 0) -> tuple[RootKey, bytes]:
    return RootKey.create(seal, "d-1", SeededRandom(seed))


def test_a_root_key_is_unsealed_as_it_was() -> None:
    seal = KeptSeal()
    root, sealed = made(seal)
    again = RootKey.unseal(seal, sealed, "d-1", SeededRandom(5))
    assert again.derive(b"handles") == root.derive(b"handles")
    assert again.unwrap(root.wrap(bytearray(b"x"), b"aad"), b"aad").data == b"x"


def test_sealing_keys_are_wiped_after_use() -> None:
    seal = KeptSeal()
    _, sealed = made(seal)
    RootKey.unseal(seal, sealed, "d-1", SeededRandom())
    with pytest.raises(StartupError):
        RootKey.unseal(seal, sealed, "other", SeededRandom())
    assert [bytes(given) for given in seal.given] == [bytes(32)] * 3


def test_what_is_sealed_is_not_the_key() -> None:
    """The draws of the root key: the key itself, then the nonce."""
    _, sealed = made(KeptSeal())
    random = SeededRandom()
    key, nonce = random.bytes(32), random.bytes(12)
    assert key not in sealed
    assert sealed.startswith(nonce)
    assert len(sealed) == 12 + 32 + 16


@pytest.mark.parametrize(
    ("deployment", "key"), [("d-2", b"\7" * 32), ("", b"\7" * 32), ("d-1", b"\x08" * 32)]
)
def test_another_deployment_or_seal_does_not_open(deployment: str, key: bytes) -> None:
    _, sealed = made(KeptSeal())
    with pytest.raises(StartupError, match="kept seal does not open") as caught:
        RootKey.unseal(KeptSeal(key), sealed, deployment, SeededRandom())
    assert "Nothing was changed" in caught.value.hint


def test_a_damaged_root_does_not_open() -> None:
    seal = KeptSeal()
    _, sealed = made(seal)
    altered = [bytes([*sealed[:at], sealed[at] ^ 1, *sealed[at + 1 :]]) for at in (0, 12, 59)]
    for damaged in (*altered, sealed[:-1], sealed + b"\0", sealed[:11], b""):
        with pytest.raises(StartupError, match="does not open"):
            RootKey.unseal(seal, damaged, "d-1", SeededRandom())


def test_derivations_are_apart() -> None:
    root, _ = made(KeptSeal())
    other, _ = made(KeptSeal(), seed=1)
    labels = (b"handles", b"registry", b"fingerprints", b"", b"handles\0")
    found = {key.derive(label) for key in (root, other) for label in labels}
    assert len(found) == 2 * len(labels)
    assert {len(secret) for secret in found} == {32}


def test_what_is_wrapped_is_bound_to_what_it_is_for() -> None:
    root, _ = made(KeptSeal())
    sealed = root.wrap(bytearray(b"secret"), b"tenant shop")
    assert root.unwrap(sealed, b"tenant shop").data == b"secret"
    assert b"secret" not in sealed
    for damaged, aad in (
        (sealed, b"tenant bank"),
        (sealed, b""),
        (sealed[:-1], b"tenant shop"),
        (sealed[1:], b"tenant shop"),
        (sealed[:28], b"tenant shop"),
        (b"", b"tenant shop"),
    ):
        with pytest.raises(CustodyUnavailable):
            root.unwrap(damaged, aad)


def test_closing_wipes_the_key() -> None:
    buffer = LockedBuffer.take(bytearray(b"\5" * 32))
    root = RootKey(buffer, SeededRandom())
    sealed = root.wrap(bytearray(b"x"), b"")
    root.close()
    assert buffer.data == bytes(32)
    calls = (
        lambda: root.derive(b"handles"),
        lambda: root.wrap(bytearray(b"x"), b""),
        lambda: root.unwrap(sealed, b""),
    )
    for call in calls:
        with pytest.raises(CustodyUnavailable, match="wiped"):
            call()


def test_nothing_secret_is_printed(tmp_path: Path) -> None:
    seal = FileSeal(tmp_path / "seal.key")
    seal.create(SeededRandom())
    root, _ = made(seal)
    key = SeededRandom().bytes(32)
    for text in (repr(root), str(root), f"{vars(root)}"):
        assert key.hex() not in text
        assert repr(key)[2:-1] not in text
    assert repr(root) == "<RootKey>"
    assert root.locked in (True, False)
