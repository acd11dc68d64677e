"""The decision inside a commit: the fence, replays, budgets and counters, one by one."""

import msgspec
import pytest

from keystead import limits
from keystead.errors import (
    AlgorithmForbidden,
    Conflict,
    HandleRevoked,
    KeyStateError,
    KeysteadError,
    LimitExceeded,
    NotFound,
    ReplayConflict,
)
from keystead.keys.caveats import Uses
from keystead.keys.epochs import Accepted, Candidate, Replayed, check_idempotent
from keystead.keys.framing.base import CounterStep
from keystead.keys.lifecycle import State
from keystead.keys.purposes import Purpose
from unit.keys.commit import MemoryCommit, Stored
from unit.keys.sample import grant_of, key_of

KEY = key_of(Purpose.LEDGER)
GRANT = grant_of(KEY, Uses(2))
LINK = GRANT.budgets[0][0]
USE = Candidate(grant=GRANT, key_id=KEY.id, operation="append", version=1, epoch=1)


def change(**changes: object) -> Candidate:
    return msgspec.structs.replace(USE, **changes)


def assert_refused(view: MemoryCommit, candidate: Candidate, why: type[KeysteadError]) -> None:
    before = (dict(view.uses), dict(view.counters), dict(view.outcomes), list(view.effects))
    assert type(view.commit(candidate)) is why
    assert (view.uses, view.counters, view.outcomes, view.effects) == before


def test_a_plain_use_is_accepted_and_leaves_nothing_behind() -> None:
    view = MemoryCommit(KEY)
    assert view.commit(USE) == Accepted((), None)
    assert (view.uses, view.counters, view.outcomes) == ({}, {}, {})


def test_under_the_epoch_it_was_checked_in_a_use_is_not_checked_again() -> None:
    view = MemoryCommit()  # it has no key to look at
    assert view.commit(USE) == Accepted((), None)
    view.epoch = 2
    assert_refused(view, USE, NotFound)


@pytest.mark.parametrize(
    ("change_of_key", "why"),
    [
        ({"generation": 2}, HandleRevoked),
        ({"algorithms": ("ecdsa-p256-sha256",)}, AlgorithmForbidden),
        ({"versions": key_of(Purpose.LEDGER, states=(State.SUSPENDED,)).versions}, KeyStateError),
        ({"versions": key_of(Purpose.LEDGER, states=(State.COMPROMISED,)).versions}, KeyStateError),
        ({"versions": ()}, NotFound),
    ],
)
def test_the_fence_refuses_what_a_change_took_away(
    change_of_key: dict[str, object], why: type[KeysteadError]
) -> None:
    view = MemoryCommit(KEY)
    view.replace(msgspec.structs.replace(KEY, **change_of_key))
    assert_refused(view, USE, why)


def test_the_fence_lets_through_what_a_change_left() -> None:
    view = MemoryCommit(KEY)
    view.revoke("another link")
    assert isinstance(view.commit(USE), Accepted)


@pytest.mark.parametrize("link", GRANT.links)
def test_the_fence_refuses_a_revoked_link(link: str) -> None:
    view = MemoryCommit(KEY)
    view.revoke(link)
    assert_refused(view, USE, HandleRevoked)


def test_a_revoked_handle_gets_no_stored_outcome_either() -> None:
    view = MemoryCommit(KEY)
    once = change(idempotency=("scope", "a", b"f"))
    assert isinstance(view.commit(once), Accepted)
    assert view.commit(once) == Replayed("scope", "a")
    view.revoke(GRANT.links[0])
    assert_refused(view, once, HandleRevoked)


def test_a_repeat_is_done_once_and_another_payload_is_refused() -> None:
    view = MemoryCommit(KEY)
    once = change(idempotency=("scope", "a", b"f"), budgets=((LINK, 1),))
    assert view.commit(once) == Accepted((LINK,), None)
    assert view.commit(once) == Replayed("scope", "a")  # its spent budget does not matter
    assert view.spent(LINK) == 1
    assert_refused(view, change(idempotency=("scope", "a", b"g")), ReplayConflict)
    assert isinstance(view.commit(change(idempotency=("other", "a", b"g"))), Accepted)


def test_a_refused_use_does_not_take_its_idempotency_key() -> None:
    view = MemoryCommit(KEY)
    view.uses[LINK] = 1
    assert_refused(
        view, change(idempotency=("scope", "a", b"f"), budgets=((LINK, 1),)), LimitExceeded
    )
    assert isinstance(view.commit(change(idempotency=("scope", "a", b"g"))), Accepted)


def test_idempotency_keys_are_bounded_by_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IDEMPOTENCY_KEYS_PER_HANDLE_MAX", 2)
    view = MemoryCommit(KEY)
    for name in "ab":
        assert isinstance(view.commit(change(idempotency=("s", name, b"f"))), Accepted)
    assert_refused(view, change(idempotency=("s", "c", b"f")), LimitExceeded)
    assert view.commit(change(idempotency=("s", "a", b"f"))) == Replayed("s", "a")
    assert isinstance(view.commit(change(idempotency=("t", "c", b"f"))), Accepted)


def test_a_use_spends_all_its_budgets_or_none() -> None:
    view = MemoryCommit(KEY)
    both = change(budgets=(("wide", 3), ("narrow", 1)))
    assert view.commit(both) == Accepted(("wide", "narrow"), None)
    assert_refused(view, both, LimitExceeded)
    assert view.uses == {"wide": 1, "narrow": 1}


def test_a_counter_steps_from_what_was_seen_or_not_at_all() -> None:
    view = MemoryCommit(KEY)
    first = change(step=CounterStep("ledger", None, b"1"))
    assert view.commit(first) == Accepted((), first.step)
    assert view.counter(KEY.id, "ledger") == b"1"
    assert_refused(view, first, Conflict)
    assert_refused(view, change(step=CounterStep("ledger", b"0", b"2")), Conflict)
    assert isinstance(view.commit(change(step=CounterStep("ledger", b"1", b"2"))), Accepted)
    assert isinstance(view.commit(change(step=CounterStep("other", None, b"1"))), Accepted)


def test_a_stored_outcome_is_for_the_same_payload() -> None:
    assert not check_idempotent(None, b"f")
    assert check_idempotent(Stored(b"f", 0), b"f")
    for fingerprint in (b"", b"g", b"ff"):
        with pytest.raises(ReplayConflict):
            check_idempotent(Stored(b"f", 0), fingerprint)
