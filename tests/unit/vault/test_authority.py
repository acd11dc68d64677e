"""The snapshot of all authority: forged, altered, swapped, removed and old rows are found."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.errors import NotFound, StateRolledBack
from keystead.keys.lifecycle import State
from keystead.keys.model import Principal
from keystead.ports import EpochRow, ObjectRow
from keystead.testing.memory_store import Tables
from keystead.vault.authority import Credential, Snapshot, empty, key_row, load, object_row
from unit.vault.scene import Scene, key_of, secrets_of, with_state

Rows = dict[tuple[str, str], ObjectRow]
K1, K2 = ("key", "k1"), ("key", "k2")


def changed_key(scene: Scene, revision: int, epoch: int, state: State = State.COMPROMISED) -> None:
    """The vault itself writes a later revision of k1."""
    key = msgspec.structs.replace(with_state(key_of(), 2, state), revision=revision, epoch=epoch)
    scene.write(epoch, [key_row(key, scene.secrets)])


def tamper(scene: Scene, alter: Callable[[Rows], Rows]) -> None:
    """Do to the rows what whoever can write the database can."""
    tables = scene.store.disk.tables
    objects = alter(dict(tables.objects))
    scene.store.disk.tables = msgspec.structs.replace(tables, objects=objects)


def put_epoch(scene: Scene, row: EpochRow | None) -> None:
    tables: Tables = scene.store.disk.tables
    scene.store.disk.tables = msgspec.structs.replace(tables, epoch=row)


def check_found(scene: Scene) -> StateRolledBack:
    with pytest.raises(StateRolledBack) as caught:
        scene.load()
    assert caught.value.hint
    return caught.value


def check_whole(scene: Scene) -> Snapshot:
    snapshot = scene.load()
    assert set(snapshot.keys) == {"k1", "k2"}
    return snapshot


# --- what is found -------------------------------------------------------------------------------


def test_what_the_vault_wrote_loads(scene: Scene) -> None:
    changed_key(scene, 2, 2)
    snapshot = check_whole(scene)
    assert (snapshot.epoch, snapshot.key("k1").revision) == (2, 2)
    assert snapshot.key("k1").version(2).state is State.COMPROMISED


def test_a_forged_row_is_found(scene: Scene) -> None:
    """A new key, under a MAC of someone who does not have the secrets."""
    check_whole(scene)
    forged = key_row(key_of("k3"), secrets_of(9))
    tamper(scene, lambda rows: {**rows, ("key", "k3"): forged})
    assert "forged" in check_found(scene).message


@pytest.mark.parametrize("mac", [b"", bytes(32)])
def test_a_row_without_a_mac_is_found(scene: Scene, mac: bytes) -> None:
    check_whole(scene)
    tamper(scene, lambda rows: {**rows, K1: msgspec.structs.replace(rows[K1], mac=mac)})
    check_found(scene)


@pytest.mark.parametrize(
    "changes",
    [
        {"doc": msgspec.msgpack.encode(with_state(key_of(), 2, State.SUSPENDED))},
        {"doc": b""},
        {"name": "other"},
        {"revision": 2},
        {"epoch": 0},
        {"epoch": 2},
        {"kind": "revocation"},
        {"id": "k9"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_altered_row_is_found(scene: Scene, changes: dict[str, object]) -> None:
    check_whole(scene)
    tamper(scene, lambda rows: {**rows, K1: msgspec.structs.replace(rows[K1], **changes)})
    assert "altered" in check_found(scene).message


def test_swapped_rows_are_found(scene: Scene) -> None:
    """The content of one key under another's id."""
    check_whole(scene)

    def swap(rows: Rows) -> Rows:
        one, two = rows[K1], rows[K2]
        return {
            K1: msgspec.structs.replace(one, doc=two.doc, mac=two.mac),
            K2: msgspec.structs.replace(two, doc=one.doc, mac=one.mac),
        }

    tamper(scene, swap)
    assert "swapped" in check_found(scene).message


def test_swapped_macs_are_found(scene: Scene) -> None:
    check_whole(scene)

    def swap(rows: Rows) -> Rows:
        return {**rows, K1: msgspec.structs.replace(rows[K1], mac=rows[K2].mac)}

    tamper(scene, swap)
    check_found(scene)


@pytest.mark.parametrize("gone", [K1, K2, ("revocation", "link")])
def test_a_removed_row_is_found(scene: Scene, gone: tuple[str, str]) -> None:
    scene.write(2, [scene.revocation("link", 2)])
    assert scene.load().revoked == {"link"}
    tamper(scene, lambda rows: {at: row for at, row in rows.items() if at != gone})
    assert "removed" in check_found(scene).message


def test_all_rows_removed_are_found(scene: Scene) -> None:
    check_whole(scene)
    tamper(scene, lambda _rows: {})
    check_found(scene)


def test_an_old_row_put_back_is_found(scene: Scene) -> None:
    """Genuine in every bit, and of before the version was compromised."""
    old = scene.store.disk.tables.objects[K1]
    changed_key(scene, 2, 2)
    check_whole(scene)
    tamper(scene, lambda rows: {**rows, K1: old})
    scene.secrets.check_object(old)
    assert "an older one put back" in check_found(scene).message


def test_every_old_row_put_back_is_found(scene: Scene) -> None:
    """All rows of an older epoch, under the newer epoch's row."""
    old = dict(scene.store.disk.tables.objects)
    changed_key(scene, 2, 2)
    tamper(scene, lambda _rows: old)
    check_found(scene)


def test_an_old_epoch_row_put_back_is_found(scene: Scene) -> None:
    old = scene.store.disk.tables.epoch
    changed_key(scene, 2, 2)
    put_epoch(scene, old)
    check_found(scene)


def test_an_old_row_beside_the_newer_is_found(scene: Scene) -> None:
    """Under an id of its own: its MAC is over the id."""
    old = scene.store.disk.tables.objects[K1]
    changed_key(scene, 2, 2)
    tamper(scene, lambda rows: {**rows, ("key", "k0"): msgspec.structs.replace(old, id="k0")})
    check_found(scene)


@pytest.mark.parametrize(
    "changes", [{"epoch": 3}, {"epoch": 1}, {"root": bytes(32)}, {"mac": bytes(32)}], ids=str
)
def test_an_altered_epoch_row_is_found(scene: Scene, changes: dict[str, object]) -> None:
    changed_key(scene, 2, 2)
    row = scene.store.disk.tables.epoch
    assert row is not None
    put_epoch(scene, msgspec.structs.replace(row, **changes))
    assert "epoch row was altered" in check_found(scene).message


def test_a_removed_epoch_row_is_found(scene: Scene) -> None:
    check_whole(scene)
    put_epoch(scene, None)
    with pytest.raises(StateRolledBack, match="epoch row was removed"):
        scene.load()


def test_another_deployments_registry_is_found(scene: Scene) -> None:
    check_whole(scene)
    scene.secrets = secrets_of(9)
    check_found(scene)


def test_a_row_of_a_kind_to_come_is_refused(scene: Scene) -> None:
    """What this version does not know may take something away: it does not start without it."""
    row = object_row("role", "r1", name="r1", revision=1, epoch=2, doc={}, secrets=scene.secrets)
    with scene.store.transaction() as tx:
        tx.put_object(row, previous_revision=0)
    assert "newer Keystead" in check_found(scene).hint


def test_the_whole_registry_of_before_is_not_found_here(scene: Scene) -> None:
    """Rows and epoch row of one older moment agree: only an anchor remembers more (I10)."""
    before = scene.store.disk.tables
    changed_key(scene, 2, 2)
    scene.store.disk.tables = before
    assert check_whole(scene).epoch == 1


# --- the snapshot --------------------------------------------------------------------------------


def test_nothing_is_a_snapshot_too(scene: Scene) -> None:
    snapshot = load([], None, scene.secrets)
    assert (snapshot.epoch, snapshot.keys, snapshot.revoked) == (0, {}, frozenset())
    for find in (snapshot.key, snapshot.named):
        with pytest.raises(NotFound):
            find("k1")


def test_keys_are_found_by_id_and_by_name(scene: Scene) -> None:
    snapshot = scene.load()
    assert snapshot.key("k2") == snapshot.named("name-k2") == key_of("k2")
    with pytest.raises(NotFound, match="'nobody'") as caught:
        snapshot.named("nobody")
    assert "key list" in caught.value.hint


def test_credentials_and_revocations_are_found(scene: Scene) -> None:
    ann = Credential(
        principal=Principal(name="ann", tenant="shop"), token_sha256=b"t" * 32, revision=1
    )
    row = object_row(
        "credential", "ann", name="ann", revision=1, epoch=2, doc=ann, secrets=scene.secrets
    )
    scene.write(2, [row, scene.revocation("link", 2)])
    snapshot = scene.load()
    assert snapshot.credentials == {b"t" * 32: ann}
    assert snapshot.revoked == {"link"}


def test_a_snapshot_never_changes(scene: Scene) -> None:
    before = scene.load()
    kept = msgspec.structs.astuple(before)
    copies = [dict(bucket) for bucket in before.buckets]
    after = before.with_rows(2, [scene.revocation("link", 2), key_row(key_of("k3"), scene.secrets)])
    assert "k3" in after.keys
    assert "k3" not in before.keys
    assert msgspec.structs.astuple(before) == kept
    assert [dict(bucket) for bucket in before.buckets] == copies


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["key", "revocation"])), max_size=4),
        max_size=6,
    )
)
def test_step_by_step_is_the_same_as_all_at_once(steps: list[list[tuple[int, str]]]) -> None:
    """A change rehashes one bucket of many; the digest is that of a load of everything."""
    scene = Scene()
    snapshot, rows = empty(), dict[tuple[str, str], ObjectRow]()
    for epoch, step in enumerate(steps, start=1):
        new = [
            key_row(key_of(f"k{number}", epoch=epoch, revision=epoch), scene.secrets)
            if kind == "key"
            else scene.revocation(f"link{number}", epoch)
            for number, kind in step
        ]
        snapshot = snapshot.with_rows(epoch, new)
        rows |= {(row.kind, row.id): row for row in new}
    root = scene.secrets.root_digest(snapshot.digests)
    whole = load(rows.values(), scene.secrets.epoch_row(snapshot.epoch, root), scene.secrets)
    assert whole == snapshot
