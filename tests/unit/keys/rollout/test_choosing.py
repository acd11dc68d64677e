"""Which version does a use: exact at the edges of a share, steady as it grows."""

from itertools import pairwise

import msgspec
import pytest

from keystead.keys.purposes import Purpose
from keystead.keys.rollout.choosing import SUBJECT_BYTES, chosen, reproduces, served, share_ppm
from keystead.keys.rollout.model import Stage, Status
from keystead.keys.rollout.plan import WHOLE_PPM, pinned
from unit.keys.rollout.places import PLAN, WAY, at
from unit.keys.rollout.scenes import begun_key, rotation_before, subject_at, subjects_of
from unit.keys.rollout.states import rollout_of

PINNED = [purpose for purpose in Purpose if pinned(purpose)]


def test_shares_only_grow() -> None:
    shares = [share_ppm(rollout_of(at(*place)[1])) for place in WAY]
    assert shares == [0, 100_000, 400_000, 999_999, WHOLE_PPM, WHOLE_PPM, WHOLE_PPM]


@pytest.mark.parametrize(
    ("place", "share"),
    [((Stage.CANARY, 0), 100_000), ((Stage.RAMP, 0), 400_000), ((Stage.RAMP, 1), 999_999)],
)
def test_the_edge_of_a_share_is_exact(place: tuple[Stage, int], share: int) -> None:
    key, rotation = at(*place)
    last, beyond = subject_at(share, beyond=False), subject_at(share, beyond=True)
    assert int.from_bytes(beyond, "big") - int.from_bytes(last, "big") == 1
    assert int.from_bytes(last, "big") / 2**64 == pytest.approx(share / WHOLE_PPM, rel=1e-12)
    assert (chosen(key, rotation, last), chosen(key, rotation, beyond)) == (2, 1)


def test_the_smallest_share_is_not_nothing_and_the_whole_is_all() -> None:
    key, rotation = at(Stage.CANARY)
    canary = msgspec.structs.replace(PLAN.canary, share_ppm=1)
    plan = msgspec.structs.replace(PLAN, canary=canary)
    rollout = msgspec.structs.replace(rollout_of(rotation), plan=plan)
    smallest = msgspec.structs.replace(rotation, rollout=rollout)
    assert chosen(key, smallest, bytes(SUBJECT_BYTES)) == 2
    assert chosen(key, smallest, subject_at(1, beyond=True)) == 1
    key, rotation = at(Stage.RAMP, 2)
    assert chosen(key, rotation, b"\xff" * SUBJECT_BYTES) == 2


def test_no_subject_returns_as_the_share_grows() -> None:
    for subject in subjects_of(PLAN):
        met = [chosen(*at(*place), subject) for place in WAY]
        assert all(before <= after for before, after in pairwise(met)), (subject.hex(), met)
        assert (met[0], met[-1]) == (1, 2)


@pytest.mark.parametrize(
    ("place", "both"),
    [(place, place[0] in {Stage.CANARY, Stage.RAMP}) for place in WAY],
)
def test_only_what_the_stage_allows_is_served(place: tuple[Stage, int], *, both: bool) -> None:
    key, rotation = at(*place)
    assert served(key, rotation) == ({1, 2} if both else {key.primary})


@pytest.mark.parametrize("purpose", PINNED)
@pytest.mark.parametrize("place", WAY)
def test_where_the_certificate_decides_nothing_is_chosen(
    place: tuple[Stage, int], purpose: Purpose
) -> None:
    key, rotation = at(*place, purpose=purpose)
    for subject in subjects_of(PLAN):
        assert chosen(key, rotation, subject) == key.primary
    assert served(key, rotation) == ({1} if place[0] is Stage.PUBLISH else {1, 2})


def test_certificates_decide_for_tls_and_vpn() -> None:
    assert PINNED == [Purpose.TLS, Purpose.VPN]


@pytest.mark.parametrize("status", [Status.PAUSED, Status.HALTED])
def test_a_rollout_that_waits_keeps_its_sides(status: Status) -> None:
    key, rotation = at(Stage.CANARY, status=status)
    assert chosen(key, rotation, bytes(SUBJECT_BYTES)) == 2
    assert chosen(key, rotation, b"\xff" * SUBJECT_BYTES) == 1
    assert served(key, rotation) == {1, 2}


@pytest.mark.parametrize("status", [Status.ROLLED_BACK, Status.FINISHED])
@pytest.mark.parametrize("purpose", [Purpose.LEDGER, Purpose.TLS])
def test_what_has_ended_has_one_version(status: Status, purpose: Purpose) -> None:
    for place in WAY:
        key, rotation = at(*place, status=status, purpose=purpose)
        assert served(key, rotation) == {key.primary}
        assert {chosen(key, rotation, subject) for subject in subjects_of(PLAN)} == {key.primary}


def test_a_key_that_never_rotated_has_its_primary() -> None:
    key = begun_key()
    for rotation in (None, rotation_before(key, PLAN)):
        assert served(key, rotation) == {1}
        assert chosen(key, rotation, bytes(SUBJECT_BYTES)) == 1
    nothing = msgspec.structs.replace(key, primary=0, versions=())
    assert chosen(nothing, None, bytes(SUBJECT_BYTES)) == 0


def test_what_reproduces_is_no_new_work() -> None:
    found = {
        (purpose, operation)
        for purpose in Purpose
        for operation in ("sign", "append", "wrap", "unwrap", "derive", "mac", "sign_digest")
        if reproduces(purpose, operation)
    }
    assert found == {(Purpose.DATA, operation) for operation in ("unwrap", "derive", "mac")}
