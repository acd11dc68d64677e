"""Uses under custody that is wrong, broken or slow: withheld, answered, and beside the loop."""

import asyncio
import threading
from typing import TypeVar

import msgspec
import pytest

from keystead import limits
from keystead.custody.locked import LockedBuffer
from keystead.custody.root import RootKey
from keystead.custody.software import SoftwareCustody
from keystead.keys.algorithms import ALGORITHMS
from keystead.keys.commands import RevokeHandle
from keystead.keys.framing.base import Facts
from keystead.keys.framing.ca import CrlRequest, SignCa
from keystead.keys.framing.firmware import SignFirmware
from keystead.keys.framing.ledger import AppendLedger
from keystead.keys.framing.ssh_ca import SignSshCa
from keystead.keys.model import CaPolicy, FirmwarePolicy, Key, Policy, SshCaPolicy, Version
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.ports import OpenKey
from keystead.testing.clocks import SeededRandom
from unit.vault.node import TLS_FACTS, Node, all_of, check_done, check_refused
from unit.vault.scene import WAIT_S, eventually

pytestmark = pytest.mark.anyio
C = TypeVar("C", bound=SoftwareCustody)


@pytest.fixture
def node() -> Node:
    return Node()


def entry(number: int) -> AppendLedger:
    return AppendLedger(entry=b"entry %d" % number)


# --- custody -------------------------------------------------------------------------------------


class Bent(SoftwareCustody):
    """Real custody that a test bends as hardware breaks: another private key, or a failing call."""

    wrong = False
    broken = False

    def open(self, key: Key, version: Version, sealed: bytes, tenant_key: bytes) -> OpenKey:
        if self.broken:
            raise RuntimeError("the driver fell over")
        if self.wrong:
            sealed = self.generate(key, version.number, version.algorithm, tenant_key).sealed
        return super().open(key, version, sealed, tenant_key)


class Slow(SoftwareCustody):
    """Real custody whose signatures wait until a test lets them go."""

    gate = threading.Event()

    def open(self, key: Key, version: Version, sealed: bytes, tenant_key: bytes) -> OpenKey:
        opened = super().open(key, version, sealed, tenant_key)
        sign = opened.sign

        def slowly(message: bytes, *, prehashed: bool) -> tuple[bytes, ...]:
            self.gate.wait(WAIT_S)
            return sign(message, prehashed=prehashed)

        if ALGORITHMS[version.algorithm].blocking:
            opened.sign = slowly  # type: ignore[method-assign]  # the key stays as it is, only late
        return opened


def custody_of(kind: type[C]) -> C:
    random = SeededRandom(9)
    return kind(RootKey(LockedBuffer.take(bytearray(b"\1" * 32)), random), random)


CA_POLICY = Policy(ca=CaPolicy(common_name="CA", dns_suffixes=("shop.example",)))
SSH_POLICY = Policy(ssh_ca=SshCaPolicy(principals=("ann",)))
FIRMWARE_POLICY = Policy(firmware=FirmwarePolicy(names=("router",)))
IMAGE = SignFirmware(name="router", version=1, sha256=bytes(32), size=1)
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID1AF8PoQ4lakrcKp00bfrycmCzPLsSWjMDNVfEq9GYM"
SSH_FACTS = SignSshCa(public_key=SSH_KEY, key_id="ann", principals=("ann",), lifetime_s=60)


@pytest.mark.parametrize(
    ("purpose", "policy", "operation", "facts"),
    [
        (Purpose.CA, CA_POLICY, "ca.sign", SignCa(crl=CrlRequest(revoked=()))),
        (Purpose.FIRMWARE, FIRMWARE_POLICY, "firmware.sign", IMAGE),
        (Purpose.SSH_CA, SSH_POLICY, "ssh_ca.sign", SSH_FACTS),
        (Purpose.TLS, Policy(verify_before_release=True), "tls.sign", TLS_FACTS),
    ],
    ids=lambda value: str(value) if isinstance(value, Purpose) else "",
)
async def test_a_wrong_signature_is_withheld(
    purpose: Purpose, policy: Policy, operation: str, facts: Facts
) -> None:
    custody = custody_of(Bent)
    node = Node(custody=custody)
    async with node.serving():
        await node.create("key", purpose, policy=policy)
        handle = (await node.issue("key")).token
        custody.wrong = True
        answer = check_refused(await node.ask(node.use_of(handle, facts, operation)), "internal")
        assert "withheld" in answer.message
        custody.wrong = False
        node.built.opened.close()  # as if the version had been suspended and resumed
        check_done(await node.ask(node.use_of(handle, facts, operation)))
    assert [body.outcome for body in node.log(operation)] == ["ok"]


async def test_a_slow_wrong_signature_is_withheld_too() -> None:
    custody = custody_of(Bent)
    node = Node(custody=custody)
    async with node.serving():
        await node.create("fw", Purpose.FIRMWARE, policy=FIRMWARE_POLICY, algorithm="ml-dsa-65")
        handle = (await node.issue("fw")).token
        custody.wrong = True
        check_refused(await node.ask(node.use_of(handle, IMAGE, "firmware.sign")), "internal")


async def test_a_signature_that_need_not_be_checked_is_not_checked() -> None:
    """For tls it is a policy of the key: the price of a check is paid where it is asked for."""
    custody = custody_of(Bent)
    node = Node(custody=custody)
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        custody.wrong = True
        check_done(await node.ask(node.use_of(handle)))


async def test_a_fault_is_answered_and_names_no_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    custody = custody_of(Bent)
    node = Node(custody=custody)
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        custody.broken = True
        answer = check_refused(await node.ask(node.use_of(handle, key="once")), "internal")
        assert "RuntimeError" in answer.message
        assert "fell over" not in answer.message
        custody.broken = False
        check_done(await node.ask(node.use_of(handle, key="once")))
    assert "fell over" not in capsys.readouterr().out
    assert [body.outcome for body in node.log("tls.sign")] == ["ok"]


async def test_a_fault_in_a_second_attempt_is_answered_to_each() -> None:
    """The commit's answers are given one after the other: one that fails must not end the rest."""
    custody = custody_of(Bent)
    node = Node(custody=custody)
    async with node.serving():
        await node.create("book", Purpose.LEDGER)
        spent = (await node.issue("book", Narrowing(uses=1))).token
        handle = (await node.issue("book")).token
        check_done(await node.ask(node.use_of(spent, entry(0), "ledger.append")))
        release = node.hold()
        waiting = [
            node.begin(node.use_of(token, entry(number), "ledger.append"))
            for number, token in enumerate((spent, handle, handle, handle))
        ]
        custody.broken = True
        node.built.opened.close()
        release()
        answers = await all_of(waiting)
        check_refused(answers[0], "limit_exceeded")
        for answer in answers[1:]:
            check_refused(answer, "internal")


async def test_a_slow_key_does_not_hold_up_the_others() -> None:
    custody = custody_of(Slow)
    node = Node(custody=custody)
    async with node.serving():
        await node.create("slow", Purpose.TLS, algorithm="ml-dsa-44")
        await node.create("fast", Purpose.TLS)
        slow, fast = (await node.issue("slow")).token, (await node.issue("fast")).token
        waiting = [node.begin(node.use_of(slow)) for _ in range(4)]
        try:
            for _ in range(3):
                check_done(await node.ask(node.use_of(fast)))
            assert not any(each.done() for each in waiting)
        finally:
            custody.gate.set()
        for answer in await all_of(waiting):
            check_done(answer)


async def test_what_a_change_took_away_while_custody_worked_is_refused() -> None:
    """The signature is there, and stays inside: its record would stand behind the change (I4)."""
    custody = custody_of(Slow)
    custody.gate = threading.Event()
    node = Node(custody=custody)
    async with node.serving():
        await node.create("slow", Purpose.TLS, algorithm="ml-dsa-44")
        handle = await node.issue("slow")
        waiting = node.begin(node.use_of(handle.token))
        check_done(await node.admin(RevokeHandle(link=handle.link, reason="lost")))
        custody.gate.set()
        check_refused((await all_of([waiting]))[0], "handle_revoked")
    assert [body.outcome for body in node.log("tls.sign")] == ["handle_revoked"]


async def test_a_best_effort_use_is_checked_again_when_custody_was_slow() -> None:
    """Its answer would not wait for the commit, so the commit's check would come too late (I4)."""
    custody = custody_of(Slow)
    custody.gate = threading.Event()
    custody.gate.set()
    node = Node(custody=custody)
    async with node.serving():
        policy = Policy(ack="best_effort")
        await node.create("slow", Purpose.TLS, algorithm="ml-dsa-44", policy=policy)
        handle = await node.issue("slow")
        check_done(await node.ask(node.use_of(handle.token)))
        await eventually(lambda: bool(node.log("reservation.open")))
        await asyncio.sleep(0.02)
        custody.gate.clear()
        waiting = node.begin(node.use_of(handle.token))
        check_done(await node.admin(RevokeHandle(link=handle.link, reason="lost")))
        custody.gate.set()
        check_refused((await all_of([waiting]))[0], "handle_revoked")
    assert [body.outcome for body in node.log("tls.sign")] == ["ok", "handle_revoked"]


async def test_the_first_commit_of_a_key_is_the_outcome_on_every_node() -> None:
    """Two nodes do the same request at once: the second to commit gives out the first's result."""
    custody = custody_of(Slow)
    custody.gate = threading.Event()
    one = Node(custody=custody)
    other = one.after_restart(custody_of(SoftwareCustody))
    async with one.serving():
        await one.create("slow", Purpose.TLS, algorithm="ml-dsa-44")
        handle = (await one.issue("slow")).token
        use = one.use_of(handle, key="once")
        waiting = [one.begin(use), one.begin(use)]
        async with other.serving():
            first = check_done(await other.ask(use))
        custody.gate.set()
        for answer in await all_of(waiting):
            assert check_done(answer).result == first.result
            assert first.receipt is not None
            replayed = msgspec.structs.replace(first.receipt, replayed=True)
            assert check_done(answer).receipt == replayed
    assert len(one.log("tls.sign")) == 1


async def test_a_fault_beside_the_loop_is_answered_too() -> None:
    custody = custody_of(Slow)
    custody.gate = threading.Event()
    node = Node(custody=custody)
    async with node.serving():
        await node.create("slow", Purpose.TLS, algorithm="ml-dsa-44")
        handle = (await node.issue("slow")).token
        waiting = [node.begin(node.use_of(handle, key=key)) for key in ("a", "a", "b")]
        node.built.opened.close()  # as when its key changes, or room ends
        custody.gate.set()
        for answer in await all_of(waiting):
            check_refused(answer, "custody_unavailable")
        for key in ("a", "b"):
            check_done(await node.ask(node.use_of(handle, key=key)))


async def test_verified_handles_are_kept_within_a_bound(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDLE_CACHE_MAX", 2)
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handles = [(await node.issue("web")).token for _ in range(4)]
        for handle in (*handles, *handles):
            check_done(await node.ask(node.use_of(handle)))
        held = [node.built.grants.get(handle) for handle in handles]
        assert node.built.grants.get(handles[3]) is held[3]
        assert node.built.grants.get(handles[0]) is not held[0]
