"""A drill of a node that does as it should: the real machine of rollouts, on a made-up clock."""

import hashlib

import msgspec

from keystead.drills.rotation.acts import FAULT, HEALTHY, INCIDENT
from keystead.drills.rotation.lengths import CONTEXTS, PARTIES, lengths
from keystead.drills.rotation.trace import Act, Found, Signed, Told, Trace
from keystead.keys.rollout.caching import as_of
from keystead.keys.rollout.choosing import SUBJECT_BYTES, chosen
from keystead.keys.rollout.commands import EvidenceInfo, ReportInfo
from keystead.keys.rollout.model import Rollout, Status, live
from keystead.keys.rollout.plan import Plan
from unit.cli.rolling import GOOD, Rolling

TIMING = lengths(1.0)
ONE = msgspec.structs.replace(GOOD, reporters=1)
TWO = msgspec.structs.replace(GOOD, reporters=2)
AHEAD_MS = 500


class Played:
    """Plays the acts; ``trace`` is what a drill would have seen."""

    def __init__(self) -> None:
        self.rolling = Rolling(TIMING.plan)
        self.rolling.signals = GOOD
        self.trace = Trace(run="cafe", key="drill-cafe", ahead_ms=AHEAD_MS)
        self.trace.fetches, self.trace.unchanged = 20, 15
        self._reports: list[ReportInfo] = []
        self._seq = 0

    def whole(self) -> Trace:
        """All three acts."""
        self.healthy()
        self.fault()
        self.incident()
        counted: dict[int, int] = {}
        for token in self.trace.signed:
            counted[token.version] = counted.get(token.version, 0) + 1
        self.trace.counted = counted
        return self.trace

    def healthy(self) -> None:
        act = self._begin(HEALTHY)
        self._until_ended()
        self._key_set(act)
        self._close(act)

    def fault(self) -> None:
        act = self._begin(FAULT)
        self._report(act)
        self._key_set(act)
        self._pass(2)
        self._close(act)

    def incident(self) -> None:
        act = self._begin(INCIDENT, incident=True)
        self._report(act)
        self._pass(3)
        act.halts = ["halted"] * 3
        act.refused = "it began as an incident: it never goes back"
        self._close(act)
        self._rotate(TIMING.recovery, incident=True)
        self._until_ended()
        self._key_set(act)
        self._close(act)

    # --- parts -------------------------------------------------------------------------------

    @property
    def _rollout(self) -> Rollout:
        rollout = self.rolling.rotation.rollout
        assert rollout is not None
        return rollout

    def _begin(self, name: str, *, incident: bool = False) -> Act:
        act = Act(name=name, title=name.title(), began_ms=self._here_ms())
        self.trace.acts.append(act)
        self._rotate(TIMING.plan, incident=incident)
        return act

    def _rotate(self, plan: Plan, *, incident: bool) -> None:
        self.rolling.signals = GOOD
        self.rolling.plan = plan
        self.rolling.begin(incident=incident)
        self._record()

    def _here_ms(self) -> int:
        return self.rolling.now_ms - AHEAD_MS

    def _until_ended(self) -> None:
        while live(self.rolling.rotation) is not None:
            self._pass(1)

    def _pass(self, seconds: int) -> None:
        for _ in range(seconds):
            before = self.rolling.rotation.epoch
            self.rolling.pass_time(1_000)
            if self.rolling.rotation.epoch > before:
                self._record()
            for context in range(CONTEXTS):
                self._sign(context)

    def _sign(self, context: int) -> None:
        rotation = self.rolling.rotation
        secret = f"{self._rollout.number}/{context}".encode()
        subject = hashlib.sha256(secret).digest()[:SUBJECT_BYTES]
        self.trace.signed.append(
            Signed(
                at_ms=self._here_ms() - 1_000 + context,  # in the second that is over
                seq=self._next_seq(),
                epoch=rotation.epoch,
                context=context,
                version=chosen(self.rolling.key, rotation, subject),
                early=True,
                late=True,
            )
        )

    def _report(self, act: Act) -> None:
        """One party's report at first, which is within the limit; then those that are past it."""
        while self._rollout.stage != "canary":
            self._pass(1)
        self._told(act, "party-1")
        self.rolling.signals = ONE
        self._pass(1)
        act.stood = self._rollout.status
        for number in range(2, PARTIES + 1):
            self._told(act, f"party-{number}")
        self.rolling.signals = TWO
        self._pass(1)
        assert self._rollout.status in {Status.ROLLED_BACK, Status.HALTED}

    def _told(self, act: Act, principal: str) -> None:
        new = self._rollout.next
        cited = next(t.seq for t in reversed(self.trace.signed) if t.version == new)
        at_ms = self.rolling.now_ms + 600
        self._reports.append(
            ReportInfo(
                principal=principal, seq=cited, at_ms=at_ms, version=new, problem="signature"
            )
        )
        act.told.append(
            Told(
                principal=principal,
                cited=cited,
                seq=-1,
                version=new,
                counted=True,
                at_ms=at_ms - AHEAD_MS,
            )
        )

    def _close(self, act: Act) -> None:
        key = self.rolling.key
        rollout = self._rollout
        act.rollouts.append(
            EvidenceInfo(
                key=key.name,
                purpose=str(key.purpose),
                rollout=rollout,
                reports=tuple(self._reports),
                acknowledged=(),
                revisions=(),
                records=(),
            )
        )
        act.primary = key.primary
        act.states = {version.number: str(version.state) for version in key.versions}
        act.ended_ms = self._here_ms()

    def _key_set(self, act: Act) -> None:
        rotation = as_of(self.rolling.rotation, self.rolling.now_ms)
        assert rotation is not None
        act.published = [
            version.number
            for version in self.rolling.key.versions
            if version.number not in rotation.unpublished
        ]

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _record(self) -> None:
        step = self._rollout.steps[-1]
        self.trace.found.append(
            Found(
                seq=self._next_seq(),
                epoch=step.epoch,
                operation=f"rollout.{step.event.replace(' ', '_')}",
                version=self._rollout.next,
                outcome="ok",
            )
        )
