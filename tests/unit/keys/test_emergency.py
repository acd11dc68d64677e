"""Orders that stop a tenant or all, and what starts something."""

import pytest

from keystead.errors import Conflict, KeyStateError, MalformedRequest
from keystead.keys.commands import Command, CreateKey, IssueHandle, ListKeys, MoveVersion
from keystead.keys.emergency import ended, starts_in, stopped
from keystead.keys.lifecycle import Move
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import RotateKey, SteerRollout
from keystead.keys.standing import EVERYTHING, check_not_stopped, is_stopped
from keystead.keys.stops import EmergencyEnd, EmergencyStop, Revoke
from unit.keys.sample import key_of

KEY = key_of(tenant="shop")
STARTS = {Move.ACTIVATE, Move.RESUME}


def test_an_order_is_given_and_taken_back_and_given_again() -> None:
    first = stopped(None, EmergencyStop(tenant="shop", reason="INC-1"), by="ann", now_ms=5)
    assert (first.tenant, first.stopped, first.since_ms, first.by) == ("shop", True, 5, "ann")
    with pytest.raises(Conflict, match="stopped already"):
        stopped(first, EmergencyStop(tenant="shop", reason="INC-1"), by="ann", now_ms=6)
    over = ended(first, EmergencyEnd(tenant="shop", reason="over"), by="bob", now_ms=7)
    assert (over.stopped, over.since_ms, over.by, over.revision) == (False, 7, "bob", 2)
    with pytest.raises(Conflict, match="not stopped by an order of its own"):
        ended(over, EmergencyEnd(tenant="shop", reason="over"), by="bob", now_ms=8)
    again = stopped(over, EmergencyStop(tenant="shop", reason="INC-2"), by="ann", now_ms=9)
    assert (again.stopped, again.revision, again.reason) == (True, 3, "INC-2")


def test_all_is_an_order_of_its_own() -> None:
    everything = stopped(None, EmergencyStop(tenant=None, reason="x"), by="ann", now_ms=1)
    assert everything.tenant == EVERYTHING
    with pytest.raises(MalformedRequest):  # no tenant has that name
        stopped(None, EmergencyStop(tenant=EVERYTHING, reason="x"), by="ann", now_ms=1)


@pytest.mark.parametrize(
    ("in_force", "held"),
    [
        (frozenset(), False),
        (frozenset({"bank"}), False),
        (frozenset({"shop"}), True),
        (frozenset({"*"}), True),
        (frozenset({"*", "bank"}), True),
    ],
)
def test_whose_keys_an_order_holds(in_force: frozenset[str], *, held: bool) -> None:
    assert is_stopped("shop", in_force) is held
    if held:
        with pytest.raises(KeyStateError, match="emergency stop is in force"):
            check_not_stopped("shop", in_force)
    else:
        check_not_stopped("shop", in_force)


@pytest.mark.parametrize(
    ("command", "tenant"),
    [
        (CreateKey(name="n", purpose=Purpose.DATA, tenant="bank"), "bank"),
        (IssueHandle(key="shop", principal="ci"), "shop"),
        (RotateKey(name="shop", reason="x"), "shop"),
        *(
            (MoveVersion(name="shop", move=move, reason="x"), "shop" if move in STARTS else None)
            for move in Move
        ),
        (SteerRollout(name="shop", move="promote", reason="x"), "shop"),
        (SteerRollout(name="shop", move="resume", reason="x"), "shop"),
        (SteerRollout(name="shop", move="pause", reason="x"), None),
        (SteerRollout(name="shop", move="roll_back", reason="x"), None),
        (Revoke(key="shop", state="suspended", reason="x"), None),
        (EmergencyStop(tenant="shop", reason="x"), None),
        (EmergencyEnd(tenant="shop", reason="x"), None),
        (ListKeys(), None),
    ],
    ids=str,
)
def test_what_starts_something(command: Command, tenant: str | None) -> None:
    assert starts_in(command, KEY) == tenant
