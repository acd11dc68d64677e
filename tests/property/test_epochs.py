"""Commits under any interleaving of uses, retries and revocations (I3 to I6): a machine of states.

Uses are checked at one time and committed at another, in any order, as vaults on several nodes do.
The model beside the view remembers what was taken away when, and what was promised to whom.
"""

import json
from itertools import pairwise

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keystead.errors import (
    Conflict,
    HandleRevoked,
    KeyStateError,
    KeysteadError,
    LimitExceeded,
    ReplayConflict,
)
from keystead.keys.administration import moved, new_generation
from keystead.keys.caveats import ContextPrefix, Uses
from keystead.keys.commands import MoveVersion
from keystead.keys.epochs import Accepted, Candidate, Replayed
from keystead.keys.framing.base import Framed
from keystead.keys.framing.firmware import FIRMWARE, SignFirmware
from keystead.keys.framing.ledger import LEDGER, AppendLedger, entry_hash
from keystead.keys.handles import Grant, Handle, attenuate, verify
from keystead.keys.lifecycle import Move, State
from keystead.keys.model import Key
from keystead.keys.purposes import Purpose
from keystead.keys.use import check_standing
from unit.keys.commit import MemoryCommit
from unit.keys.sample import ROOT, handle_of, key_of, scene_of

REFUSALS = (HandleRevoked, KeyStateError, LimitExceeded, ReplayConflict, Conflict)
ACTIVE = (State.ACTIVE, State.ACTIVE)
LEDGER_KEY = key_of(Purpose.LEDGER, states=ACTIVE, id="ledger")
FIRMWARE_KEY = key_of(Purpose.FIRMWARE, states=ACTIVE, id="firmware")
OPERATIONS = {"ledger": "append", "firmware": "sign"}
PICK = st.integers(0, 99)


class Checked(msgspec.Struct, frozen=True, eq=False):
    """A use that was done and waits for its commit."""

    candidate: Candidate
    framed: Framed


class Commits(RuleBasedStateMachine):
    """One deployment's commits."""

    @initialize()
    def begin(self) -> None:
        self.view = MemoryCommit(LEDGER_KEY, FIRMWARE_KEY)
        self.family: list[Handle] = [handle_of(LEDGER_KEY), handle_of(FIRMWARE_KEY)]
        self.waiting: list[Checked] = []
        self.ledger: list[bytes] = []
        self.firmware: list[int] = []
        self.promised: dict[tuple[str, str], tuple[bytes, int]] = {}
        self.revoked: set[str] = set()
        self.stopped: set[str] = set()

    @rule(pick=PICK, most=st.none() | st.integers(1, 4))
    def attenuate(self, pick: int, most: int | None) -> None:
        parent = self.family[pick % len(self.family)]
        if len(parent.caveats) < 5:
            self.family.append(attenuate(parent, Uses(most) if most else ContextPrefix("web")))

    @rule(
        pick=PICK,
        version=st.integers(1, 2),
        number=st.integers(1, 30),
        name=st.none() | st.sampled_from("ab"),
        payload=st.sampled_from((b"f", b"g")),
    )
    def check(self, pick: int, version: int, number: int, name: str | None, payload: bytes) -> None:
        """Admit a use and do it, against what can be seen now; it commits later, or never."""
        grant = verify(ROOT, self.family[pick % len(self.family)])
        key = self.view.key(grant.body.key_id)
        operation = OPERATIONS[key.id]
        try:
            check_standing(
                grant, key, operation, version, self.view.revoked, stopped=self.view.stopped
            )
            framed = self.frame(key, version, number, payload)
        except KeysteadError:
            return
        candidate = Candidate(
            grant=grant,
            key_id=key.id,
            operation=operation,
            version=version,
            epoch=self.view.epoch,
            budgets=tuple((link, b.count) for link, b in grant.budgets if isinstance(b, Uses)),
            idempotency=(grant.chain_id, name, payload) if name else None,
            step=framed.step,
        )
        self.waiting.append(Checked(candidate, framed))

    def frame(self, key: Key, version: int, number: int, payload: bytes) -> Framed:
        if key is self.view.keys.get("ledger"):
            counter = self.view.counter("ledger", "ledger")
            return LEDGER.frame(
                AppendLedger(entry=payload), scene_of(key, version=version, counter=counter)
            )
        counter = self.view.counter("firmware", "firmware/router")
        facts = SignFirmware(name="router", version=number, sha256=payload * 32, size=number)
        return FIRMWARE.frame(facts, scene_of(key, version=version, counter=counter))

    @rule(pick=PICK, keep=st.booleans())
    def commit(self, pick: int, *, keep: bool) -> None:
        """Commit any waiting use; ``keep``: it was committed, yet its sender asks once more."""
        if not self.waiting:
            return
        index = pick % len(self.waiting)
        checked = self.waiting[index] if keep else self.waiting.pop(index)
        candidate = checked.candidate
        before = len(self.view.effects)
        outcome = self.view.commit(candidate)
        if isinstance(outcome, KeysteadError):
            assert isinstance(outcome, REFUSALS)
            self.check_refusal(candidate, outcome)
        else:
            self.check_standing_now(candidate)
        if isinstance(outcome, Replayed):
            assert candidate.idempotency is not None
            assert self.promised[outcome.scope, outcome.key] == (
                candidate.idempotency[2],
                self.view.effect_of(outcome),
            )
        accepted = isinstance(outcome, Accepted)
        assert len(self.view.effects) == before + accepted
        if accepted:
            self.remember(checked, before)

    def check_standing_now(self, candidate: Candidate) -> None:
        """I3, I4: nothing revoked, stopped or of an older generation is done or given out."""
        key = self.view.key(candidate.key_id)
        assert candidate.grant.body.generation == key.generation
        assert key.version(candidate.version).state is State.ACTIVE
        assert self.revoked.isdisjoint(candidate.grant.links)
        assert self.stopped.isdisjoint({"*", key.tenant})

    def check_refusal(self, candidate: Candidate, refusal: KeysteadError) -> None:
        """A refusal has its cause: nothing is refused out of hand."""
        key = self.view.key(candidate.key_id)
        match refusal:
            case HandleRevoked():
                assert (
                    candidate.grant.body.generation != key.generation
                    or not self.revoked.isdisjoint(candidate.grant.links)
                )
            case KeyStateError():
                assert key.version(
                    candidate.version
                ).state is not State.ACTIVE or not self.stopped.isdisjoint({"*", key.tenant})
            case ReplayConflict():
                assert candidate.idempotency is not None
                scope, name, fingerprint = candidate.idempotency
                assert self.promised[scope, name][0] != fingerprint
            case LimitExceeded():
                assert any(self.done_under(link) >= most for link, most in candidate.budgets)
            case _:
                assert candidate.step is not None
                counter = self.view.counter(candidate.key_id, candidate.step.name)
                assert counter != candidate.step.old

    def done_under(self, link: str) -> int:
        return sum(link in candidate.grant.links for _, candidate in self.view.effects)

    def remember(self, checked: Checked, effect: int) -> None:
        candidate = checked.candidate
        if candidate.idempotency is not None:
            scope, name, fingerprint = candidate.idempotency
            assert (scope, name) not in self.promised, "one key, two effects"
            self.promised[scope, name] = (fingerprint, effect)
        if candidate.key_id == "ledger":
            self.ledger.append(checked.framed.message)
        else:
            self.firmware.append(json.loads(checked.framed.message)["version"])

    # --- what stops keys and handles -------------------------------------------------------------

    @rule(pick=PICK, link=PICK)
    def revoke_link(self, pick: int, link: int) -> None:
        links = self.grant(pick).links
        if len(links) == 1 and link % 4:
            return  # a family's first link ends it all: seldom
        self.view.revoke(links[link % len(links)])
        self.revoked.add(links[link % len(links)])

    @rule(pick=PICK, seldom=st.integers(0, 3))
    def revoke_all(self, pick: int, seldom: int) -> None:
        if seldom == 0:
            key = self.view.key(self.grant(pick).body.key_id)
            self.view.replace(new_generation(key, epoch=self.view.epoch + 1))
            self.family.append(handle_of(self.view.key(key.id)))

    @rule(tenants=st.sampled_from(((), (), ("*",), ("default",), ("other",), ("default", "*"))))
    def emergency(self, tenants: tuple[str, ...]) -> None:
        """Stops in force from now on; ``()``: all are ended."""
        self.view.emergency(*tenants)
        self.stopped = set(tenants)

    @rule(pick=PICK, version=st.integers(1, 2), what=st.sampled_from((Move.SUSPEND, Move.RESUME)))
    def move(self, pick: int, version: int, what: Move) -> None:
        key = self.view.key(self.grant(pick).body.key_id)
        command = MoveVersion(name=key.name, move=what, version=version, reason="test")
        try:
            after, _ = moved(key, command, epoch=self.view.epoch + 1)
        except KeyStateError:
            return
        self.view.replace(after)

    def grant(self, pick: int) -> Grant:
        return verify(ROOT, self.family[pick % len(self.family)])

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def ledger_is_one_chain(self) -> None:
        documents = [json.loads(document) for document in self.ledger]
        assert [d["sequence"] for d in documents] == list(range(1, len(documents) + 1))
        for (_, before), (after, _) in pairwise(zip(documents, self.ledger, strict=True)):
            assert after["previous"] == entry_hash(before).hex()

    @invariant()
    def firmware_only_grows(self) -> None:
        for before, after in pairwise(self.firmware):
            assert before <= after <= before + 10

    @invariant()
    def no_budget_is_overspent(self) -> None:
        for handle in self.family:
            for link, budget in verify(ROOT, handle).budgets:
                if isinstance(budget, Uses):
                    assert self.done_under(link) <= budget.count
                    assert self.view.spent(link) == self.done_under(link)

    @invariant()
    def each_promise_is_one_effect(self) -> None:
        effects = [effect for _, effect in self.promised.values()]
        assert len(set(effects)) == len(effects)


TestCommits = Commits.TestCase
TestCommits.settings = settings(max_examples=200, stateful_step_count=40)
