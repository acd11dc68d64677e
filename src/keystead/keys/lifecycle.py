"""The states of a version and every legal move between them, as one table.

NIST SP 800-57 Part 1 Rev. 5, section 7. An illegal move raises and changes nothing.
"""

from __future__ import annotations

from enum import StrEnum

from keystead.errors import KeyStateError

__all__ = ["TRANSITIONS", "Move", "State", "check_may_process", "check_may_protect", "move"]


class State(StrEnum):
    """Lifecycle state of one version."""

    PRE_ACTIVATION = "pre_activation"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


class Move(StrEnum):
    """What an operator, responder or rollout does to a version."""

    ACTIVATE = "activate"
    SUSPEND = "suspend"
    RESUME = "resume"
    DEACTIVATE = "deactivate"
    COMPROMISE = "compromise"
    DESTROY = "destroy"


_S, _M = State, Move

TRANSITIONS: dict[tuple[State, Move], State] = {
    (_S.PRE_ACTIVATION, _M.ACTIVATE): _S.ACTIVE,
    (_S.PRE_ACTIVATION, _M.COMPROMISE): _S.COMPROMISED,
    (_S.PRE_ACTIVATION, _M.DESTROY): _S.DESTROYED,
    (_S.ACTIVE, _M.SUSPEND): _S.SUSPENDED,
    (_S.ACTIVE, _M.DEACTIVATE): _S.DEACTIVATED,
    (_S.ACTIVE, _M.COMPROMISE): _S.COMPROMISED,
    (_S.SUSPENDED, _M.RESUME): _S.ACTIVE,
    (_S.SUSPENDED, _M.DEACTIVATE): _S.DEACTIVATED,
    (_S.SUSPENDED, _M.COMPROMISE): _S.COMPROMISED,
    (_S.DEACTIVATED, _M.COMPROMISE): _S.COMPROMISED,
    (_S.DEACTIVATED, _M.DESTROY): _S.DESTROYED,
    (_S.COMPROMISED, _M.DESTROY): _S.DESTROYED,
}
"""(state, move) to the next state. What is not here is illegal; nothing leaves ``destroyed``, and a
version that may have protected data is deactivated before it is destroyed."""

_PROTECTS = frozenset({State.ACTIVE})
_PROCESSES = frozenset({State.ACTIVE, State.DEACTIVATED})


def move(state: State, what: Move) -> State:
    """The state after a move.

    Raises:
        KeyStateError: the table has no such move from this state.
    """
    try:
        return TRANSITIONS[state, what]
    except KeyError:
        legal = [str(m) for (s, m) in TRANSITIONS if s is state]
        raise KeyStateError(
            f"cannot {what} a version that is {state}",
            hint=f"From {state} one may: {', '.join(legal) or 'nothing'}",
        ) from None


def check_may_protect(state: State) -> None:
    """Sign, append, wrap, derive, mac: an active version only (invariant I3).

    Raises:
        KeyStateError: any other state.
    """
    if state not in _PROTECTS:
        raise KeyStateError(f"the version is {state}; only an active one does this")


def check_may_process(state: State) -> None:
    """Unwrap what was protected before: an active or deactivated version (SP 800-57, 7.4).

    Raises:
        KeyStateError: suspended, compromised, destroyed, or not yet active.
    """
    if state not in _PROCESSES:
        raise KeyStateError(f"the version is {state}; an active or deactivated one is needed")
