"""Signed revocation lists: recorded before they are answered, once for a revision of the key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import run

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.client.publications import check_list
from keystead.crypto.ssh import public_key_line
from keystead.errors import SignatureInvalid
from keystead.frames.messages import Answer, Checkpoint, Public, SignedHead
from keystead.keys.commands import MoveVersion
from keystead.keys.framing.ssh_ca import SignSshCa
from keystead.keys.lifecycle import Move
from keystead.keys.model import JwtPolicy, Policy, SshCaPolicy
from keystead.keys.purposes import Purpose
from keystead.keys.revocations import ListName, parse_deny_list
from keystead.testing.memory_store import Fault
from keystead.translog.notes import VerifierKey, parse_vkey
from keystead.vault.publications import Publications
from keystead.vault.server import Service
from unit.vault.node import Node, all_of, check_done, check_refused, result_of
from unit.vault.scene import WAIT_S

pytestmark = pytest.mark.anyio

SSH_POLICY = Policy(ssh_ca=SshCaPolicy(principals=("ann",)))
JWT_POLICY = Policy(jwt=JwtPolicy(issuer="https://issuer.example"))
USER = public_key_line(
    ed25519.Ed25519PrivateKey.from_private_bytes(b"\5" * 32)
    .public_key()
    .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)


class Desk:
    """A vault's publications, and who asks for them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.vkey: VerifierKey | None = None
        self.publications = Publications(
            standing=node.built.standing,
            committer=node.built.committer,
            registry=node.store,
            opened=node.built.opened,
            secrets=node.secrets,
            clock=node.clock,
            next_request_id=node.built.uses.next_request_id,
        )

    def begin(self, what: str, name: str) -> asyncio.Future[Answer]:
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.publications.begin(Public(self.node.next_id(), what, name), done.set_result)
        return done

    async def ask(self, what: str, name: str) -> Answer:
        return await asyncio.wait_for(self.begin(what, name), WAIT_S)

    async def get(self, what: str, name: str) -> bytes:
        age_s, body = result_of(await self.ask(what, name), tuple[int, bytes])
        assert age_s == 60
        return body

    async def checked(self, list_name: ListName, name: str, epoch_at_least: int = 0) -> bytes:
        assert self.vkey is not None
        data = await self.get(list_name, name)
        note = await self.get(f"{list_name}.note", name)
        check_list(data, note, self.vkey, key=name, name=list_name, epoch_at_least=epoch_at_least)
        return data

    async def compromise(self, name: str) -> None:
        move = MoveVersion(name=name, move=Move.COMPROMISE, version=1, reason="leaked")
        check_done(await self.node.admin(move))


@asynccontextmanager
async def desk_of(node: Node) -> AsyncIterator[Desk]:
    """A desk whose log has its key."""
    async with node.serving():
        head = result_of(await node.ask(Checkpoint(node.next_id())), SignedHead)
        desk = Desk(node)
        desk.vkey = parse_vkey(head.vkey)
        yield desk
        await desk.publications.close()


async def test_each_list_is_signed_by_the_logs_key() -> None:
    node = Node()
    async with desk_of(node) as desk:
        await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        info = await node.create("ssh", Purpose.SSH_CA, policy=SSH_POLICY)
        denied = parse_deny_list(await desk.checked("deny", "tokens"))
        assert (denied.key, denied.purpose, denied.denied) == ("tokens", "jwt", ())
        assert f"epoch {info.epoch}".encode() in await desk.checked("revoked_hosts", "ssh")
        await desk.checked("krl", "ssh")


async def test_a_front_gets_lists_as_it_gets_public_parts() -> None:
    node = Node()
    async with desk_of(node) as desk:
        await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        built = node.built
        service = Service(
            built.standing,
            built.uses,
            built.administration,
            built.tending,
            built.checkpoints,
            publications=desk.publications,
            now_ms=node.clock.now_ms,
        )
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        service.begin(Public(node.next_id(), "deny.note", "tokens"), done.set_result)
        _age_s, note = result_of(await asyncio.wait_for(done, WAIT_S), tuple[int, bytes])
        assert note == await desk.get("deny.note", "tokens")


async def test_a_list_is_recorded_before_it_is_answered() -> None:
    node = Node()
    async with desk_of(node) as desk:
        info = await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        release = node.hold()
        asked = [desk.begin(what, "tokens") for what in ("deny", "deny.note", "deny")]
        await asyncio.sleep(0.05)
        assert not any(item.done() for item in asked)
        release()
        answers = await all_of(asked)
        assert all(map(check_done, answers))
        (record,) = node.log("revocations.sign")
        assert (record.key, record.name, record.revision) == (info.id, "tokens", info.revision)
        assert record.detail.startswith(f"deny of epoch {info.epoch}, sha256 ")
        assert record.principal == "(vault)"


async def test_no_number_of_questions_makes_another_signature() -> None:
    node = Node()
    async with desk_of(node) as desk:
        await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        await all_of([desk.begin("deny.note", "tokens") for _ in range(100)])
        last = node.store.last_sequence()
        notes = {await desk.get("deny.note", "tokens") for _ in range(100)}
        assert len(notes) == 1
        assert node.store.last_sequence() == last
        assert len(node.log("revocations.sign")) == 1


async def test_a_restart_gives_what_was_signed_before() -> None:
    node = Node()
    async with desk_of(node) as desk:
        await node.create("ssh", Purpose.SSH_CA, policy=SSH_POLICY)
        before = await desk.get("krl", "ssh"), await desk.get("krl.note", "ssh")
        node.clock.advance(60_000)
    async with desk_of(node.after_restart()) as again:
        assert (await again.get("krl", "ssh"), await again.get("krl.note", "ssh")) == before
        assert len(again.node.log("revocations.sign")) == 1


async def test_a_change_of_the_key_makes_a_new_list() -> None:
    node = Node()
    async with desk_of(node) as desk:
        info = await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        old, old_note = await desk.get("deny", "tokens"), await desk.get("deny.note", "tokens")
        await desk.compromise("tokens")
        denied = parse_deny_list(await desk.checked("deny", "tokens", info.epoch + 1))
        (version,) = denied.denied
        assert (version.kid, version.state) == (info.versions[0].kid, "compromised")
        assert version.since_epoch == denied.epoch > info.epoch
        assert desk.vkey is not None
        with pytest.raises(SignatureInvalid, match="or later"):
            check_list(
                old, old_note, desk.vkey, key="tokens", name="deny", epoch_at_least=denied.epoch
            )
        assert len(node.log("revocations.sign")) == 2


async def test_no_list_of_before_a_change_is_recorded_after_it() -> None:
    """The change stands in the queue before the signature: the list is made again (I4)."""
    node = Node()
    async with desk_of(node) as desk:
        await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        release = node.hold()
        moved = asyncio.create_task(desk.compromise("tokens"))
        await asyncio.sleep(0.05)
        asked = desk.begin("deny", "tokens")
        await asyncio.sleep(0.05)
        release()
        await moved
        (answer,) = await all_of([asked])
        _age_s, data = result_of(answer, tuple[int, bytes])
        assert len(parse_deny_list(data).denied) == 1
        (record,) = node.log("revocations.sign")
        assert record.seq > node.log("key.move")[0].seq


async def test_who_asks_after_a_change_gets_no_list_of_before() -> None:
    """A signature that is under way while the key changes is not for who asks behind the change."""
    node = Node()
    async with desk_of(node) as desk:
        await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        first = desk.begin("deny", "tokens")
        await desk.compromise("tokens")
        behind = desk.begin("deny", "tokens")
        answers = await all_of([first, behind])
        lists = [parse_deny_list(result_of(answer, tuple[int, bytes])[1]) for answer in answers]
        assert [version.state for version in lists[1].denied] == ["compromised"]


@pytest.mark.parametrize("fault", Fault)
async def test_a_commit_with_an_unknown_end_gives_nothing_out(fault: Fault) -> None:
    node = Node()
    async with desk_of(node) as desk:
        await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        node.store.fail_next(fault)
        check_refused(await desk.ask("deny", "tokens"), "log_unavailable")
        await desk.checked("deny", "tokens")
        assert len(node.log("revocations.sign")) == 1


async def test_a_stopped_log_key_signs_no_list() -> None:
    node = Node()
    async with desk_of(node) as desk:
        await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        await node.create("others", Purpose.JWT, policy=JWT_POLICY)
        known = await desk.get("deny.note", "tokens")
        move = MoveVersion(name="log.node-a", move=Move.SUSPEND, version=1, reason="test")
        check_done(await node.admin(move))
        check_refused(await desk.ask("deny.note", "others"), "key_state")
        assert await desk.get("deny.note", "tokens") == known


async def test_a_log_key_that_is_stopped_meanwhile_has_no_record_behind_it() -> None:
    node = Node()
    async with desk_of(node) as desk:
        await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        release = node.hold()
        move = MoveVersion(name="log.node-a", move=Move.SUSPEND, version=1, reason="test")
        moved = asyncio.create_task(node.admin(move))
        await asyncio.sleep(0.05)
        asked = desk.begin("deny", "tokens")
        await asyncio.sleep(0.05)
        release()
        check_done(await moved)
        (answer,) = await all_of([asked])
        check_refused(answer, "key_state")
        assert node.log("revocations.sign") == []


async def test_a_log_without_a_key_says_when_to_ask_again() -> None:
    node = Node()
    async with node.serving():
        desk = Desk(node)
        await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        refused = check_refused(await desk.ask("deny", "tokens"), "log_unavailable")
        assert refused.retry_after_s == 1.0


async def test_what_is_not_there_is_told() -> None:
    node = Node()
    async with desk_of(node) as desk:
        await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        check_refused(await desk.ask("krl", "tokens"), "malformed_request")
        check_refused(await desk.ask("deny.note", "nobody"), "not_found")
        assert node.log("revocations.sign") == []


async def test_an_altered_signature_in_the_registry_is_found() -> None:
    node = Node()
    async with desk_of(node) as desk:
        info = await node.create("tokens", Purpose.JWT, policy=JWT_POLICY)
        await desk.get("deny", "tokens")
    place = (info.id, "published/node-a/deny")
    counters = dict(node.disk.tables.counters)
    counters[place] = counters[place][:-1] + b"\0"
    node.disk.tables = msgspec.structs.replace(node.disk.tables, counters=counters)
    async with desk_of(node.after_restart()) as again:
        check_refused(await again.ask("deny", "tokens"), "state_rolled_back")


async def test_ssh_keygen_refuses_what_a_compromised_authority_signed(tmp_path: Path) -> None:
    node = Node()
    async with desk_of(node) as desk:
        await node.create("ssh", Purpose.SSH_CA, policy=SSH_POLICY)
        handle = (await node.issue("ssh")).token
        facts = SignSshCa(public_key=USER, key_id="ann", principals=("ann",), lifetime_s=60)
        answer = await node.ask(node.use_of(handle, facts, "ssh_ca.sign", key="once"))
        line = msgspec.msgpack.decode(check_done(answer).result)["certificate"]
        before = await desk.checked("krl", "ssh")
        await desk.compromise("ssh")
        after = await desk.checked("krl", "ssh")
    (tmp_path / "ann-cert.pub").write_text(f"{line}\n", encoding="ascii")
    assert [keygen_status(tmp_path, data) for data in (before, after)] == [0, 1]


def keygen_status(folder: Path, krl: bytes) -> int:
    """How ``ssh-keygen -Q`` ends: 1 if the list revokes the certificate."""
    (folder / "krl").write_bytes(krl)
    asked = run(
        ["ssh-keygen", "-Q", "-f", "krl", "ann-cert.pub"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    return asked.returncode
