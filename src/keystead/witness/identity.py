"""Who a witness is: the key of its state folder, tied to what it remembers.

The state is there before the key, and names it: so a key without its state is one whose state was
lost, never a first start that was cut off.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from keystead.crypto.witnesskey import WITNESS_SEED_BYTES, witness_key
from keystead.errors import StartupError
from keystead.ports import Random
from keystead.translog.notes import ED25519_COSIGNATURE, VerifierKey, vkey_of
from keystead.witness.keyfile import create_key, read_key
from keystead.witness.state import NEW_WITNESS, State

__all__ = ["KEY_FILE", "STATE_FILE", "Identity", "identify"]

KEY_FILE = "witness.key"
STATE_FILE = "witness.db"
_NAME_RANDOM_BYTES = 4


class Identity(msgspec.Struct, frozen=True):
    """Who a witness is: its verifier key, and what signs under it."""

    key: VerifierKey
    sign: Callable[[bytes], bytes]


def identify(folder: Path, name: str, random: Random) -> tuple[Identity, State]:
    """The witness of a state folder, made if the folder is new.

    Raises:
        StartupError: the folder cannot be used, one of its two files was lost, copied or damaged,
            or it is another's by name.
        MalformedRequest: a name that no note can carry.
    """
    key_path, state_path = folder / KEY_FILE, folder / STATE_FILE
    with _alone(folder):
        known = read_key(key_path)
        if known is None:
            return _first_start(folder, name, random)
        if name not in ("", known[0]):
            raise StartupError(
                f"the witness in {folder} is {known[0]!r}, expected {name!r}",
                hint="Leave --name out, or start another witness in an empty folder",
            )
        if not state_path.exists():
            raise StartupError(
                f"the witness's state {state_path} is missing, and the key beside it is not new",
                hint=NEW_WITNESS,
            )
        identity = _identity(*known)
        state = State(state_path)
        try:
            state.check(identity.key.encode())
        except StartupError:
            state.close()
            raise
    return identity, state


def _first_start(folder: Path, name: str, random: Random) -> tuple[Identity, State]:
    seed = random.bytes(WITNESS_SEED_BYTES)
    made_up = f"keystead-witness/{random.bytes(_NAME_RANDOM_BYTES).hex()}"
    identity = _identity(name or made_up, seed)
    state = State(folder / STATE_FILE)
    try:
        state.claim(identity.key.encode())
        create_key(folder / KEY_FILE, identity.key.name, seed)
    except StartupError:
        state.close()
        raise
    return identity, state


def _identity(name: str, seed: bytes) -> Identity:
    signer = witness_key(seed)
    return Identity(vkey_of(name, ED25519_COSIGNATURE, signer.public), signer.sign)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder, made if it is missing, with nobody else making a witness of it meanwhile."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise StartupError(
            f"cannot use the state folder {folder}: {exc.strerror}", hint="Name another by --state"
        ) from exc
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
