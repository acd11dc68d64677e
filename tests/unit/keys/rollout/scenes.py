"""Plans of a few milliseconds, keys, signals and subjects of rollouts, for tests of the machine."""

from functools import cache

import msgspec

from keystead.keys.lifecycle import Move, State, move
from keystead.keys.model import Key, Version
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.gates import NOTHING_SEEN, Seen, Signals
from keystead.keys.rollout.model import Rotation
from keystead.keys.rollout.plan import (
    WHOLE_PPM,
    Canary,
    Drain,
    Gates,
    Plan,
    Promote,
    Publish,
    Ramp,
    Retire,
)
from keystead.keys.rollout.table import ROLLOUT, Asked, Wish
from unit.keys.sample import key_of

NOW = 1_000
"""Every clock here begins at it: milliseconds, as everywhere, but few of them."""

PERSON = "ada"
SHARES = ((), (500_000,), (400_000, WHOLE_PPM))
SAMPLES = 10

_USED = Seen(uses=SAMPLES, p99_us=100_000)
_SLOW = Seen(uses=SAMPLES, p99_us=400_000)
_BROKEN = Seen(uses=SAMPLES - 1, errors=1, p99_us=100_000)


def plan_of(steps: tuple[int, ...] = (500_000,), *, acknowledged_by: tuple[str, ...] = ()) -> Plan:
    """Publish and drain for 2 ms, all else for 1; the canary is a tenth."""
    return Plan(
        publish=Publish(overlap_ms=2, cache_ms=1, acknowledged_by=acknowledged_by),
        canary=Canary(share_ppm=100_000, length_ms=1),
        ramp=Ramp(steps_ppm=steps, step_ms=1),
        promote=Promote(length_ms=1),
        drain=Drain(length_ms=2),
        retire=Retire(unpublish=True),
        gates=Gates(samples=SAMPLES, error_ppm=50_000, reporters=1, denied=0),
    )


def begun_key(purpose: Purpose = Purpose.LEDGER) -> Key:
    """A key with one active version."""
    return key_of(purpose)


def rotation_before(key: Key, plan: Plan) -> Rotation:
    """As the registry has it before the first rollout: with the key's own plan."""
    return Rotation(key_id=key.id, plan=plan)


def version_of(key: Key) -> Version:
    """The version that a rotation would make next."""
    number = len(key.versions) + 1
    return msgspec.structs.replace(
        key.versions[0], number=number, kid=f"kid-{number}", state=State.PRE_ACTIVATION
    )


def asked(wish: Wish = Wish.TICK, now_ms: int = NOW, *, epoch: int = 2) -> Asked:
    """A wish; a tick is the rollout's own, all else a person's."""
    by = ROLLOUT if wish is Wish.TICK else PERSON
    return Asked(wish=wish, now_ms=now_ms, epoch=epoch, by=by, reason="a test")


def with_move(key: Key, number: int, what: Move) -> Key:
    """The key after somebody moved one version by hand."""
    versions = tuple(
        msgspec.structs.replace(v, state=move(v.state, what)) if v.number == number else v
        for v in key.versions
    )
    return msgspec.structs.replace(key, versions=versions)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Signals, and what anyone can read in them: told apart from what the gates make of them.

    ``sampled``: enough uses of the new version; ``compared``: and of the previous one;
    ``failing``: errors or reports over the plan's figures; ``slow``: only its p99 is.
    """

    name: str
    signals: Signals
    acknowledged: bool = False
    sampled: bool = False
    compared: bool = False
    failing: bool = False
    slow: bool = False


def _seen(new: Seen, old: Seen = _USED, **others: object) -> Signals:
    """The same in the window as in the stage."""
    signals = Signals(
        window_next=new,
        window_previous=old,
        stage_next=new,
        stage_previous=old,
        acknowledged=frozenset({"edge"}),
    )
    return msgspec.structs.replace(signals, **others)


_ALL = {"acknowledged": True, "sampled": True, "compared": True}

GOOD = Case(name="good", signals=_seen(_USED), **_ALL)
CASES = (
    GOOD,
    Case(name="nothing, as after a crash", signals=NOTHING_SEEN),
    Case(
        name="acknowledged only",
        signals=Signals(acknowledged=frozenset({"edge"})),
        acknowledged=True,
    ),
    Case(
        name="nobody acknowledged",
        signals=_seen(_USED, acknowledged=frozenset({"other"})),
        sampled=True,
        compared=True,
    ),
    Case(
        name="previous unused",
        signals=_seen(_USED, Seen(uses=SAMPLES - 1)),
        acknowledged=True,
        sampled=True,
    ),
    Case(name="errors", signals=_seen(_BROKEN), failing=True, acknowledged=True),
    Case(name="reports", signals=_seen(_USED, reporters=2), failing=True, **_ALL),
    Case(name="denials", signals=_seen(_USED, denied=1), failing=True, **_ALL),
    Case(name="slow", signals=_seen(_SLOW), slow=True, **_ALL),
)
"""A few for each thing that signals can say."""


def subject_at(share_ppm: int, *, beyond: bool) -> bytes:
    """The last subject below a share, or the first one beyond it."""
    first_beyond = -(-share_ppm * (1 << 64) // WHOLE_PPM)
    return (first_beyond if beyond else first_beyond - 1).to_bytes(8, "big")


@cache
def subjects_of(plan: Plan) -> tuple[bytes, ...]:
    """The first and last of all, and both sides of each share's edge."""
    shares = [share for share in (plan.canary.share_ppm, *plan.ramp.steps_ppm) if share < WHOLE_PPM]
    edges = [subject_at(share, beyond=beyond) for share in shares for beyond in (False, True)]
    return (bytes(8), *edges, b"\xff" * 8)
