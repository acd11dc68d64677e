"""Which keys a revocation is of, what becomes of each, and what stood before it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead import limits
from keystead.errors import KeyStateError, LimitExceeded, MalformedRequest, NotFound
from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.purposes import Purpose
from keystead.keys.revoking import (
    Place,
    Stopped,
    check_choice,
    check_some,
    chosen,
    is_link,
    older,
    stop,
    words,
)
from keystead.keys.rollout.table import Asked, Wish
from keystead.keys.stops import Choice, PreviewRevoke, Revoke
from unit.keys.sample import key_of

ASKED = Asked(wish=Wish.PAUSE, now_ms=1, epoch=9, by="ann", reason="INC-1")
KEYS = [
    key_of(Purpose.JWT, id="k1", name="c", tenant="shop", labels={"env": "live"}),
    key_of(Purpose.TLS, id="k2", name="b", tenant="shop", labels={"env": "live", "x": "y"}),
    key_of(Purpose.JWT, id="k3", name="a", tenant="bank", labels={"env": "test"}),
    key_of(Purpose.AUDIT, id="k4", name="log", tenant="keystead", labels={"env": "live"}),
]


def choice(**fields: object) -> Choice:
    """A choice that would suspend versions, unless told otherwise."""
    made: Choice = msgspec.structs.replace(PreviewRevoke(state="suspended"), **fields)
    return made


# --- choosing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"tenant": "shop"}, "bc"),
        ({"purpose": Purpose.JWT}, "ac"),
        ({"purpose": Purpose.JWT, "tenant": "bank"}, "a"),
        ({"labels": {"env": "live"}}, "bc"),
        ({"labels": {"env": "live", "x": "y"}}, "b"),
        ({"labels": {"env": "live"}, "tenant": "bank"}, ""),
        ({"labels": {"env": "Live"}}, ""),
        ({"key": "c"}, "c"),
        ({"key": "log"}, ["log"]),
        ({"purpose": Purpose.AUDIT}, ["log"]),
        ({"tenant": "keystead"}, ""),
        ({"tenant": "sho"}, ""),
    ],
)
def test_keys_are_chosen_by_what_they_are_in_order_of_their_names(
    fields: dict[str, object], names: str | list[str]
) -> None:
    if not names:
        with pytest.raises(NotFound):
            chosen(choice(**fields), KEYS)
        return
    assert [key.name for key in chosen(choice(**fields), KEYS)] == list(names)


def test_a_commit_has_a_bound_and_says_how_to_narrow() -> None:
    many = [key_of(id=f"k{n}", name=f"n{n:05}") for n in range(limits.REVOKE_KEYS_MAX + 1)]
    assert len(chosen(choice(tenant="default"), many[1:])) == limits.REVOKE_KEYS_MAX
    with pytest.raises(LimitExceeded, match="1001 keys") as caught:
        chosen(choice(tenant="default"), many)
    assert "--label" in caught.value.hint
    assert "emergency stop" in caught.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"version": 1},
        {"key": "a", "purpose": Purpose.JWT},
        {"key": "a", "tenant": "shop"},
        {"key": "a", "labels": {"env": "live"}},
        {"purpose": Purpose.JWT, "labels": {"env": "live"}},
        {"purpose": Purpose.JWT, "version": 1},
        {"key": "a", "state": None},
        {"key": "a", "what": "handles"},
        {"key": "a", "what": "handles", "state": None, "version": 1},
        {"handle": "h" + "0" * 24},
        {"handle": "h" + "0" * 23, "what": "handles", "state": None},
        {"handle": "A" * 32, "what": "handles", "state": None},
        {"handle": "0" * 32 + "\n", "what": "handles", "state": None},
        {"handle": "0" * 32, "what": "handles", "state": None, "tenant": "shop"},
        {"tenant": "No Name"},
        {"labels": {"No Name": "x"}},
        {"labels": {"env": "\x00"}},
    ],
    ids=str,
)
def test_a_choice_is_made_in_exactly_one_way(fields: dict[str, object]) -> None:
    with pytest.raises(MalformedRequest):
        check_choice(choice(**fields))


@pytest.mark.parametrize("handle", ["h" + "0f" * 12, "0f" * 16])
def test_a_handle_is_named_by_its_id_or_by_a_links(handle: str) -> None:
    check_choice(choice(handle=handle, what="handles", state=None))
    assert is_link(handle) == (len(handle) == 32)


def test_on_the_wire_the_state_is_called_as() -> None:
    made = msgspec.json.decode(
        b'{"do": "revoke", "key": "a", "as": "compromised", "reason": "x"}', type=Revoke
    )
    assert made.state == "compromised"
    assert b'"as":"compromised"' in msgspec.json.encode(made)


# --- what becomes of a key -----------------------------------------------------------------------


@given(st.lists(st.sampled_from(State), min_size=1, max_size=6), st.sampled_from(("susp", "compr")))
def test_a_stop_leaves_nothing_that_signs_and_touches_nothing_else(
    states: list[State], what: str
) -> None:
    key = key_of(states=tuple(states))
    state = "suspended" if what == "susp" else "compromised"
    able = {"suspended": {State.ACTIVE}, "compromised": set(State) - {State.DESTROYED}}[state]
    able -= {State.COMPROMISED}
    stopped = stop(choice(key="shop", state=state), key, None, ASKED)
    moved = [number for number, was in enumerate(states, start=1) if was in able]
    if not moved:
        assert stopped is None
        return
    assert stopped is not None
    assert list(stopped.versions) == moved
    assert (stopped.key.revision, stopped.key.epoch) == (key.revision + 1, 9)
    for before, after in zip(key.versions, stopped.key.versions, strict=True):
        if before.number in moved:
            assert after.state == state
            assert after.compromised_epoch == (9 if state == "compromised" else 0)
        else:
            assert after == before
    assert all(version.state is not State.ACTIVE for version in stopped.key.versions)


def test_one_version_is_stopped_by_its_number_or_refused() -> None:
    key = key_of(states=(State.ACTIVE, State.ACTIVE, State.DESTROYED))
    only = stop(choice(key="shop", version=2), key, None, ASKED)
    assert only is not None
    assert [v.state for v in only.key.versions] == ["active", "suspended", "destroyed"]
    with pytest.raises(KeyStateError):
        stop(choice(key="shop", version=3, state="compromised"), key, None, ASKED)
    with pytest.raises(NotFound):
        stop(choice(key="shop", version=4), key, None, ASKED)


def test_handles_end_with_the_keys_generation() -> None:
    key = key_of(generation=4)
    stopped = stop(choice(key="shop", what="handles", state=None), key, None, ASKED)
    assert stopped is not None
    assert stopped.key.generation == 5
    assert stopped.key.versions == key.versions
    handles = choice(key="shop", what="handles", state=None)
    assert words(handles, stopped) == "all handles of generation 4 and before; chosen by key"


def test_a_revocation_that_stops_nothing_is_refused() -> None:
    with pytest.raises(KeyStateError, match="all are stopped already"):
        check_some(choice(tenant="shop"), [])
    check_some(choice(tenant="shop"), [Stopped(key=KEYS[0])])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tenant": "shop"}, "version 1 suspended; chosen by tenant shop"),
        (
            {"labels": {"env": "live", "a": "b"}, "tenant": "shop"},
            "version 1 suspended; chosen by label a=b, label env=live, tenant shop",
        ),
        ({"purpose": Purpose.JWT}, "version 1 suspended; chosen by purpose jwt"),
    ],
)
def test_a_record_says_what_was_stopped_and_how_it_was_chosen(
    fields: dict[str, object], said: str
) -> None:
    stopped = stop(choice(**fields), KEYS[0], None, ASKED)
    assert stopped is not None
    assert words(choice(**fields), stopped) == said


# --- what stood before ---------------------------------------------------------------------------


def place(seq: int, epoch: int, node: str = "a") -> Place:
    return Place(node=node, seq=seq, epoch=epoch)


@pytest.mark.parametrize(
    ("use", "is_older"),
    [
        (place(9, 4), True),
        (place(11, 5), False),
        (place(900, 4, "b"), True),  # another log: its numbers say nothing
        (place(1, 5, "b"), False),
        (place(1, 6, "b"), False),
        (place(9, 5), None),  # one log, and they contradict each other
        (place(11, 4), None),
    ],
)
def test_what_is_older_than_a_compromise(use: Place, *, is_older: bool | None) -> None:
    assert older(use, place(10, 5)) is is_older


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), min_size=2, max_size=30),
    st.data(),
)
def test_older_agrees_with_the_order_of_commits(
    commits: list[tuple[str, bool]], data: st.DataObject
) -> None:
    """A history of two logs and one epoch: changes take the next epoch, uses bear the last."""
    epoch, places, changes = 1, [], []
    seqs = {"a": 0, "b": 0}
    for node, changes_it in commits:
        epoch += changes_it
        places.append(place(seqs[node], epoch, node))
        changes.append(changes_it)
        seqs[node] += 1
    at = data.draw(st.integers(0, len(places) - 1))
    if not changes[at]:
        return
    for number, use in enumerate(places):
        if number != at:
            assert older(use, places[at]) is (number < at)


def test_keys_are_values_that_a_stop_does_not_change() -> None:
    key: Key = KEYS[0]
    before = msgspec.msgpack.encode(key)
    stop(choice(tenant="shop"), key, None, ASKED)
    assert msgspec.msgpack.encode(key) == before
