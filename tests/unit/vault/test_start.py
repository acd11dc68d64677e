"""The first start of a deployment, every start after, and what is found on the disk then."""

import hashlib

import msgspec
import pytest

from keystead.errors import LogUnavailable, PermissionDenied, StartupError, StateRolledBack
from keystead.keys.commands import RevokeKeyHandles
from keystead.keys.model import Principal
from keystead.keys.purposes import Purpose
from keystead.testing.memory_store import Fault, MemoryStore
from keystead.vault.guard import OPERATOR, OperatorGuard
from keystead.vault.standing import Standing
from keystead.vault.start import DEPLOYMENT, SEALED_ROOT, found, initialise
from unit.vault.node import Node, check_done, check_refused
from unit.vault.scene import Scene, secrets_of

pytestmark = pytest.mark.anyio


def test_the_first_start_is_one_commit_with_its_record() -> None:
    node = Node()
    assert node.store.meta(DEPLOYMENT) == b"d1"
    assert node.store.meta(SEALED_ROOT) == b"sealed"
    (body,) = node.log()
    assert (body.op, body.seq, body.epoch, body.principal) == (
        "deployment.init",
        0,
        1,
        "operator",
    )
    snapshot = found(node.store, node.secrets)
    assert snapshot.epoch == 1
    credential = snapshot.credentials[hashlib.sha256(node.token.encode()).digest()]
    assert credential.principal == OPERATOR
    assert node.token.startswith("kso1.")


def test_two_deployments_have_two_tokens() -> None:
    assert Node(seed=1).token != Node(seed=2).token


@pytest.mark.parametrize("fault", list(Fault), ids=str)
def test_a_first_start_that_fails_gives_no_token(scene: Scene, fault: Fault) -> None:
    store = MemoryStore()
    store.fail_next(fault)
    with pytest.raises(LogUnavailable):
        initialise(
            store,
            scene.secrets,
            deployment="d1",
            sealed_root=b"",
            node="n",
            clock=scene.clock,
            random=scene.random,
        )
    assert (store.epoch() is None) == (fault is Fault.NOT_APPLIED)


async def test_a_restart_finds_all_that_there_was() -> None:
    node = Node()
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        first = check_done(await node.ask(node.use_of(handle, key="once")))
    after = node.after_restart()
    async with after.serving():
        again = check_done(await after.ask(after.use_of(handle, key="once")))
        assert again.result == first.result
        check_done(await after.ask(after.use_of(handle)))
        check_done(await after.ask(after.use_of((await after.issue("web")).token)))
    seqs = [body.seq for body in after.log()]
    assert seqs == list(range(len(seqs)))


def test_a_registry_without_its_epoch_is_refused() -> None:
    node = Node()
    node.disk.tables = msgspec.structs.replace(node.disk.tables, epoch=None)
    with pytest.raises(StartupError, match="epoch row was removed"):
        found(node.store, node.secrets)


def test_a_registry_of_other_secrets_is_refused() -> None:
    node = Node()
    with pytest.raises(StateRolledBack):
        found(node.store, secrets_of(9))


async def test_an_old_row_put_back_is_refused_at_the_start() -> None:
    node = Node()
    async with node.serving():
        await node.create("web", Purpose.TLS)
        old = {at: row for at, row in node.disk.tables.objects.items() if at[0] == "key"}
        from_before = (await node.issue("web")).token
        check_done(await node.admin(RevokeKeyHandles(key="web", reason="lost")))
    now = node.disk.tables
    node.disk.tables = msgspec.structs.replace(now, objects={**now.objects, **old})
    with pytest.raises(StateRolledBack, match="older one put"):
        found(node.store, node.secrets)
    node.disk.tables = now
    after = node.after_restart()
    async with after.serving():
        check_refused(await after.ask(after.use_of(from_before)), "handle_revoked")


# --- who may, and whether anything may be done ---------------------------------------------------


@pytest.mark.parametrize(
    "principal",
    [
        Principal(name="ci", tenant="default"),
        Principal(name="operator", tenant="shop"),
        Principal(name="operator2", tenant="default"),
    ],
    ids=lambda principal: f"{principal.name} of {principal.tenant}",
)
def test_only_the_operator_administers(principal: Principal) -> None:
    OperatorGuard().decide(OPERATOR, "key.create", None)
    with pytest.raises(PermissionDenied, match=r"may not do key\.create"):
        OperatorGuard().decide(principal, "key.create", None)


def test_nothing_is_done_on_an_altered_registry(scene: Scene) -> None:
    standing = Standing(scene.load(), deployment="d1", node="n")
    standing.check()
    standing.tampered = StateRolledBack("altered")
    with pytest.raises(StateRolledBack, match="altered"):
        standing.check()


def test_counts_add_up_by_name_and_label(scene: Scene) -> None:
    standing = Standing(scene.load(), deployment="d1", node="n")
    standing.count("uses", "tls")
    standing.count("uses", "tls", 2)
    standing.count("uses", "jwt")
    standing.count("gap_uses", by=0)
    assert standing.counters == {("uses", "tls"): 3, ("uses", "jwt"): 1, ("gap_uses", ""): 0}
