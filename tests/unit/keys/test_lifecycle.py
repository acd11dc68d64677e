"""Every (state, move) pair: the table's go where it says, all others raise and change nothing."""

from itertools import product

import pytest

from keystead.errors import KeyStateError
from keystead.keys.administration import moved
from keystead.keys.commands import MoveVersion
from keystead.keys.lifecycle import (
    TRANSITIONS,
    Move,
    State,
    check_may_process,
    check_may_protect,
    move,
)
from unit.keys.sample import key_of

PAIRS = list(product(State, Move))
LEGAL = [pair for pair in PAIRS if pair in TRANSITIONS]
ILLEGAL = [pair for pair in PAIRS if pair not in TRANSITIONS]

EXPECTED = """
pre_activation activate active
pre_activation compromise compromised
pre_activation destroy destroyed
active suspend suspended
active deactivate deactivated
active compromise compromised
suspended resume active
suspended deactivate deactivated
suspended compromise compromised
deactivated compromise compromised
deactivated destroy destroyed
compromised destroy destroyed
"""
"""SP 800-57 Part 1 Rev. 5 section 7, written a second time, so that a slip in the table shows."""


def test_the_table_is_the_one_of_the_standard() -> None:
    lines = {f"{state} {what} {to}" for (state, what), to in TRANSITIONS.items()}
    assert lines == set(EXPECTED.strip().splitlines())
    assert (len(LEGAL), len(ILLEGAL)) == (12, 24)


@pytest.mark.parametrize(("state", "what"), LEGAL)
def test_a_legal_move_goes_where_the_table_says(state: State, what: Move) -> None:
    assert move(state, what) is TRANSITIONS[state, what]
    command = MoveVersion(name="shop", move=what, version=1, reason="test")
    after, which = moved(key_of(states=(state,)), command, epoch=7)
    assert (after.version(1).state, which) == (TRANSITIONS[state, what], (1,))


@pytest.mark.parametrize(("state", "what"), ILLEGAL)
@pytest.mark.parametrize("version", [1, None])
def test_an_illegal_move_raises_and_changes_nothing(
    state: State, what: Move, version: int | None
) -> None:
    with pytest.raises(KeyStateError, match=f"cannot {what} a version that is {state}"):
        move(state, what)
    key = key_of(states=(state,))
    with pytest.raises(KeyStateError):
        moved(key, MoveVersion(name="shop", move=what, version=version, reason="test"), epoch=7)
    assert key == key_of(states=(state,))


def test_a_refusal_says_what_may_be_done() -> None:
    with pytest.raises(KeyStateError) as refused:
        move(State.COMPROMISED, Move.RESUME)
    assert refused.value.hint == "From compromised one may: destroy"
    with pytest.raises(KeyStateError) as refused:
        move(State.DESTROYED, Move.ACTIVATE)
    assert refused.value.hint == "From destroyed one may: nothing"


def test_nothing_comes_back_from_compromise_or_destruction() -> None:
    reached = {State.COMPROMISED}
    for _ in State:
        reached |= {to for (state, _), to in TRANSITIONS.items() if state in reached}
    assert reached == {State.COMPROMISED, State.DESTROYED}
    assert not [state for state, _ in TRANSITIONS if state is State.DESTROYED]


def test_a_version_that_was_active_is_deactivated_before_it_is_destroyed() -> None:
    assert (State.ACTIVE, Move.DESTROY) in ILLEGAL
    assert (State.SUSPENDED, Move.DESTROY) in ILLEGAL


@pytest.mark.parametrize("state", State)
def test_only_active_protects_and_deactivated_still_processes(state: State) -> None:
    for check, able in (
        (check_may_protect, {State.ACTIVE}),
        (check_may_process, {State.ACTIVE, State.DEACTIVATED}),
    ):
        if state in able:
            check(state)
        else:
            with pytest.raises(KeyStateError, match=str(state)):
                check(state)
