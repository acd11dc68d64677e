"""MACs over what a database keeps: every field counts, and none stands in another's place."""

from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.errors import StateRolledBack
from keystead.keys.leases import Lease
from keystead.ports import EpochRow, HandleRow, IdempotencyRow, ObjectRow
from keystead.testing.clocks import SeededRandom
from keystead.vault.macs import VaultSecrets
from unit.vault.scene import secrets_of

SECRETS = secrets_of()
OBJECT = SECRETS.signed_object(ObjectRow("key", "k1", "shop", 3, 7, b"doc", b""))
EPOCH = SECRETS.epoch_row(7, b"root")


def handle_row(**changes: object) -> HandleRow:
    row = HandleRow("h1", "k1", "shop", "ann", 5, b"")
    row = msgspec.structs.replace(row, mac=SECRETS.handle_mac(row))
    return msgspec.structs.replace(row, **changes)


def check_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(StateRolledBack, match=said) as caught:
        call()
    assert "restore" in caught.value.hint


def test_what_the_vault_wrote_holds() -> None:
    SECRETS.check_object(OBJECT)
    SECRETS.check_epoch(EPOCH)
    SECRETS.check_handle(handle_row())
    sealed = SECRETS.seal_counter("k1", "ledger", b"head")
    assert SECRETS.open_counter("k1", "ledger", sealed) == b"head"
    assert SECRETS.open_counter("k1", "ledger", None) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "credential"},
        {"id": "k2"},
        {"name": "other"},
        {"revision": 2},
        {"epoch": 6},
        {"doc": b"doc "},
        {"doc": b""},
        {"mac": b""},
        {"mac": bytes(32)},
        {"mac": OBJECT.mac[:-1]},
        {"mac": OBJECT.mac + b"\0"},
    ],
    ids=str,
)
def test_an_altered_object_is_refused(changes: dict[str, object]) -> None:
    row = msgspec.structs.replace(OBJECT, **changes)
    check_refused(lambda: SECRETS.check_object(row), "forged, altered or swapped")


@pytest.mark.parametrize(
    "row",
    [
        EpochRow(6, b"root", EPOCH.mac),
        EpochRow(8, b"root", EPOCH.mac),
        EpochRow(7, b"toor", EPOCH.mac),
        EpochRow(7, b"root", bytes(32)),
        EpochRow(7, b"root", b""),
        EpochRow(0, b"", b""),
    ],
    ids=str,
)
def test_an_altered_epoch_is_refused(row: EpochRow) -> None:
    check_refused(lambda: SECRETS.check_epoch(row), "epoch row")


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "h2"},
        {"key_id": "k2"},
        {"tenant": "bank"},
        {"principal": "bob"},
        {"issued_ms": 6},
        {"mac": bytes(32)},
    ],
    ids=str,
)
def test_an_altered_handle_is_refused(changes: dict[str, object]) -> None:
    check_refused(lambda: SECRETS.check_handle(handle_row(**changes)), "handle")


def test_a_counter_is_its_keys_own() -> None:
    sealed = SECRETS.seal_counter("k1", "ledger", b"head")
    for key_id, name, stored in (
        ("k2", "ledger", sealed),
        ("k1", "firmware/a", sealed),
        ("k1", "ledger", sealed + b"\0"),
        ("k1", "ledger", sealed[:-1]),
        ("k1", "ledger", bytes(32) + sealed[32:]),
        ("k1", "ledger", b""),
        ("k1", "ledger", b"head"),
    ):
        check_refused(lambda: SECRETS.open_counter(key_id, name, stored), "counter")  # noqa: B023  called at once


def test_another_deployment_makes_no_row_of_this_one() -> None:
    other = secrets_of(9)
    check_refused(lambda: SECRETS.check_object(other.signed_object(OBJECT)), "forged")
    check_refused(lambda: SECRETS.check_epoch(other.epoch_row(7, b"root")), "epoch")
    sealed = other.seal_counter("k1", "ledger", b"head")
    check_refused(lambda: SECRETS.open_counter("k1", "ledger", sealed), "counter")
    foreign = handle_row(mac=other.handle_mac(handle_row()))
    check_refused(lambda: SECRETS.check_handle(foreign), "handle")


def test_a_mac_of_one_kind_is_none_of_another() -> None:
    """Each kind of row says its name inside the MAC."""
    macs = [
        OBJECT.mac,
        EPOCH.mac,
        handle_row().mac,
        SECRETS.seal_counter("k1", "ledger", b"head")[:32],
        SECRETS.root_digest((b"root",)),
        SECRETS.fingerprint(b"object"),
    ]
    assert len(set(macs)) == len(macs)
    stored = SECRETS.epoch_row(7, b"root").mac + b"7root"
    check_refused(lambda: SECRETS.open_counter("7", "root", stored), "counter")


@given(
    left=st.tuples(st.text(max_size=6), st.text(max_size=6), st.binary(max_size=6)),
    right=st.tuples(st.text(max_size=6), st.text(max_size=6), st.binary(max_size=6)),
)
def test_no_two_rows_have_one_mac(
    left: tuple[str, str, bytes], right: tuple[str, str, bytes]
) -> None:
    macs = [
        SECRETS.object_mac(ObjectRow("key", object_id, name, 1, 1, doc, b""))
        for object_id, name, doc in (left, right)
    ]
    assert (macs[0] == macs[1]) == (left == right)


def test_numbers_are_not_run_together() -> None:
    rows = [
        ObjectRow("key", "k", "n", 1, 11, b"", b""),
        ObjectRow("key", "k", "n", 11, 1, b"", b""),
    ]
    assert SECRETS.object_mac(rows[0]) != SECRETS.object_mac(rows[1])


# --- fingerprints, handle roots ------------------------------------------------------------------


def test_fingerprints_tell_payloads_apart() -> None:
    parts = [(b"a", b"bc"), (b"ab", b"c"), (b"abc",), (b"abc", b""), (b"", b"abc"), ()]
    found = {SECRETS.fingerprint(*each) for each in parts}
    assert len(found) == len(parts)
    assert SECRETS.fingerprint(b"a", b"bc") in found
    assert secrets_of(9).fingerprint(b"a", b"bc") not in found


def test_every_generation_has_a_handle_root_of_its_own() -> None:
    roots = [
        SECRETS.handle_root(key, generation) for key in ("k1", "k11") for generation in (1, 11)
    ]
    assert len(set(roots)) == len(roots)
    assert all(one != other for one, other in pairwise(roots))
    assert SECRETS.handle_root("k1", 1) == roots[0]
    assert secrets_of(9).handle_root("k1", 1) not in roots


def test_nothing_secret_is_printed() -> None:
    secrets = VaultSecrets(b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32)
    for text in (repr(secrets), str(secrets), f"{secrets}"):
        assert text == "<VaultSecrets>"


# --- outcomes ------------------------------------------------------------------------------------

OUTCOME = IdempotencyRow("h1", "k", b"print", 5, b"a live token", b"receipt", 9)


def test_an_outcome_comes_back_and_lies_sealed() -> None:
    for row in (OUTCOME, msgspec.structs.replace(OUTCOME, result=None)):
        sealed = SECRETS.seal_outcome(row, SeededRandom(1))
        assert SECRETS.open_outcome(sealed) == row
        assert b"token" not in msgspec.msgpack.encode(sealed)
        assert sealed.receipt != row.receipt


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": "h2"},
        {"key": "other"},
        {"fingerprint": b"other"},
        {"seq": 6},
        {"result": b""},
        {"result": bytes(40)},
        {"receipt": b""},
        {"receipt": bytes(40)},
    ],
    ids=str,
)
def test_an_altered_outcome_is_given_to_nobody(changes: dict[str, object]) -> None:
    sealed = SECRETS.seal_outcome(OUTCOME, SeededRandom(1))
    check_refused(
        lambda: SECRETS.open_outcome(msgspec.structs.replace(sealed, **changes)), "outcome"
    )


def test_result_and_receipt_do_not_stand_in_for_each_other() -> None:
    sealed = SECRETS.seal_outcome(OUTCOME, SeededRandom(1))
    swapped = msgspec.structs.replace(sealed, result=sealed.receipt, receipt=sealed.result)
    check_refused(lambda: SECRETS.open_outcome(swapped), "outcome")


# --- several nodes -------------------------------------------------------------------------------

NODE_ROW = SECRETS.node_row("a", 7, 2, "http://127.0.0.1:7410")
LEASE_ROW = SECRETS.lease_row("steward", Lease("a", 3, 40))


def test_what_a_node_says_of_itself_holds() -> None:
    SECRETS.check_node(NODE_ROW)
    SECRETS.check_lease(LEASE_ROW)


@pytest.mark.parametrize(
    "changes",
    [{"node": "b"}, {"seen_epoch": 8}, {"beat": 3}, {"url": "http://evil"}, {"mac": b""}],
    ids=str,
)
def test_nobody_else_confirms_for_a_node(changes: dict[str, object]) -> None:
    row = msgspec.structs.replace(NODE_ROW, **changes)
    check_refused(lambda: SECRETS.check_node(row), "row of node")


@pytest.mark.parametrize(
    "changes",
    [{"name": "other"}, {"holder": "b"}, {"fence": 4}, {"beat": 41}, {"mac": bytes(32)}],
    ids=str,
)
def test_nobody_makes_a_leader_by_the_database(changes: dict[str, object]) -> None:
    row = msgspec.structs.replace(LEASE_ROW, **changes)
    check_refused(lambda: SECRETS.check_lease(row), "lease")
