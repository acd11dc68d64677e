"""Keys, handles and scenes as the rules see them, for tests that need one and not its details."""

import msgspec

from keystead.keys.caveats import Caveat
from keystead.keys.framing.base import Scene
from keystead.keys.handles import Body, Grant, Handle, issue, verify
from keystead.keys.lifecycle import State
from keystead.keys.model import (
    CaPolicy,
    FirmwarePolicy,
    JwtPolicy,
    Key,
    Policy,
    SshCaPolicy,
    Version,
)
from keystead.keys.purposes import PURPOSES, Purpose, default_algorithm

NOW_MS = 1_800_000_000_123
NOW_S = NOW_MS // 1000
ROOT = bytes(range(32))
RANDOM = bytes(range(100, 132))
POLICIES = {
    Purpose.JWT: Policy(jwt=JwtPolicy(issuer="https://id.example")),
    Purpose.FIRMWARE: Policy(firmware=FirmwarePolicy(names=("router", "camera"), step_max=10)),
    Purpose.CA: Policy(ca=CaPolicy(common_name="Shop CA", dns_suffixes=("shop.example",))),
    Purpose.SSH_CA: Policy(ssh_ca=SshCaPolicy(principals=("deploy",))),
}


def key_of(
    purpose: Purpose = Purpose.JWT,
    algorithm: str | None = None,
    states: tuple[State, ...] = (State.ACTIVE,),
    **changes: object,
) -> Key:
    """A key with one version a state, all of one algorithm; by default one active version."""
    algorithm = algorithm or default_algorithm(purpose)
    key = Key(
        id="k-1",
        name="shop",
        tenant="default",
        labels={},
        purpose=purpose,
        algorithms=(algorithm,),
        prehashed=False,
        policy=POLICIES.get(purpose, Policy()),
        generation=1,
        primary=1,
        versions=tuple(
            Version(
                number=number,
                state=state,
                algorithm=algorithm,
                public=(),
                kid=f"kid-{number}",
                created_ms=NOW_MS,
            )
            for number, state in enumerate(states, start=1)
        ),
        revision=1,
        epoch=1,
        created_ms=NOW_MS,
    )
    return msgspec.structs.replace(key, **changes)


def handle_of(key: Key, *caveats: Caveat, operations: tuple[str, ...] | None = None) -> Handle:
    """A handle for all operations of a key's purpose, under the test's root."""
    allowed = operations or PURPOSES[key.purpose].operations
    return issue(ROOT, Body(key.id, key.purpose, allowed, "h-1", key.generation), caveats)


def grant_of(key: Key, *caveats: Caveat, operations: tuple[str, ...] | None = None) -> Grant:
    """The same, verified."""
    return verify(ROOT, handle_of(key, *caveats, operations=operations))


def scene_of(key: Key, *, version: int = 1, counter: bytes | None = None) -> Scene:
    """A use of a version, in context ``web/eu`` and at a fixed time."""
    return Scene(
        key=key,
        version=key.version(version),
        context="web/eu",
        now_ms=NOW_MS,
        random=RANDOM,
        counter=counter,
    )
