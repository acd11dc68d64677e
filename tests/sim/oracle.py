"""Holds every commit, and every answer as it leaves a vault, to the invariants.

By rules of its own: it sees the whole disk and all messages, which no part of Keystead does. Each
finding names the invariant of design section 2 that it breaks.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import msgspec

from keystead.keys.purposes import PURPOSES
from keystead.keys.reservations import BOUND_MS
from keystead.ports import RecordRow
from keystead.testing.memory_store import Log, Tables
from keystead.translog.entries import Body, decode_body
from sim.prepared import LONG_AGO, SECRET, Prepared, Token
from sim.scenario import Op
from sim.timeline import START_MS
from sim.truth import Truth, Used

__all__ = ["Oracle", "root_of"]

_CHANGES = frozenset({"key.move", "handle.revoke", "handle.revoke_all", "rollout.publish"})
_MAC_BYTES = 32
_SLACK_US = 2_000
_LONG_BEHIND_MS = 1_000
_DRIFT_PPM = 10_000
_USES = frozenset(
    f"{purpose!s}.{operation}" for purpose, row in PURPOSES.items() for operation in row.operations
)


class Oracle:
    """``findings``: what is wrong, in the order it was seen; each once.

    ``ops``: by number. ``tokens``: every handle that a client holds, by the id of its last link.
    ``believes_clock``: a vault started after its wall clock was set: neither the overlap nor the
    time that outcomes are kept is held to any more (docs/limitations.md). ``behind``: a wall clock
    was, by more than a second, so that what is due by it may come later. ``forgotten``: outcomes
    that such a start has cost. ``skew_us``: by how much nodes' clocks may differ.
    """

    def __init__(
        self, prepared: Prepared, ops: dict[int, Op], now_us: Callable[[], int], skew_us: int
    ) -> None:
        self.findings: list[str] = []
        self.believes_clock = False
        self.behind = False
        self.forgotten: set[tuple[str, str]] = set()
        self.acknowledged: dict[int, tuple[int, str]] = {}
        self.truth = Truth()
        self.truth.learn(Tables(), prepared.tables, 0, "")
        self.truth.published.clear()
        self.tokens: dict[str, Token] = {t.chain_id: t for t in prepared.tokens.values()}
        self.rows: dict[str, list[tuple[RecordRow, Body]]] = {}
        for node, log in prepared.tables.logs.items():
            self.rows[node] = [(row, _body(row)) for _, row in sorted(log.records.items())]
        self.effects: dict[int, list[tuple[str, int]]] = defaultdict(list)
        self.in_order: list[tuple[int, str]] = []  # (op, operation) of uses, as they committed
        self.released: Counter[tuple[str, str]] = Counter()
        self.late: Counter[tuple[str, str]] = Counter()
        self.gaps: Counter[tuple[str, str]] = Counter()
        self.of_reservation: Counter[str] = Counter()
        self._ops = ops
        self._now_us = now_us
        self._skew_us = skew_us
        self._seen: set[str] = set()

    def wrong(self, what: str) -> None:
        """Keep a finding."""
        if what not in self._seen:
            self._seen.add(what)
            self.findings.append(what)

    def clocks(self, walls_ms: list[int]) -> None:
        """Wall clocks were set: so they stand now."""
        self._skew_us = max(self._skew_us, (max(walls_ms) - min(walls_ms)) * 1_000)
        true_ms = START_MS + self._now_us() // 1_000
        self.behind |= min(walls_ms) < true_ms - _LONG_BEHIND_MS

    # --- commits ------------------------------------------------------------------------------

    def committed(self, node: str, before: Tables, after: Tables) -> None:
        """One transaction of a node has ended; both states are whole."""
        if after is before:
            return
        was = before.epoch.epoch if before.epoch else 0
        now = after.epoch.epoch if after.epoch else 0
        changed = after.objects is not before.objects
        if now != was + changed:
            self.wrong(f"I4 {node} committed epoch {now} after {was}, rows changed: {changed}")
        rows = list(self._appended(node, before, after))
        if changed:
            for what in self.truth.learn(before, after, self._now_us(), node):
                self.wrong(what)
            if not any(body.signed for body in rows):
                self.wrong(f"I7 {node} changed authority without a record that commits to it")
        for body in rows:
            self._record(node, body, now, before)
        self._once(node, before, after, rows)
        self._spent(before, after, rows)
        self._steps(before, after, rows)
        self._others(node, before, after, now)

    def _appended(self, node: str, before: Tables, after: Tables) -> Iterator[Body]:
        """I10: what was in a log stays there as it was; what is new follows without a gap."""
        for name, log in after.logs.items():
            if name != node and log is not before.logs.get(name):
                self.wrong(f"I10 {node} wrote to the log of {name}")
        records = after.logs.get(node, Log()).records
        kept = self.rows.setdefault(node, [])
        if len(records) < len(kept) or (kept and records.get(len(kept) - 1) is not kept[-1][0]):
            self.wrong(f"I10 the log of {node} is not what it was")
            return
        for seq in range(len(kept), len(records)):
            row = records.get(seq)
            if row is None:
                self.wrong(f"I2 the log of {node} has no record {seq}")
                return
            body = _body(row)
            kept.append((row, body))
            yield body

    def _record(self, node: str, body: Body, epoch: int, before: Tables) -> None:
        rows = self.rows[node]
        row = rows[body.seq][0] if body.seq < len(rows) else None
        if row is None or hashlib.sha256((row.salt or b"") + (row.body or b"")).digest() != (
            row.entry
        ):
            self.wrong(f"I10 {node} {body.seq}: the entry is not the hash of the body")
        if body.epoch != epoch:
            self.wrong(f"I4 {node} {body.seq} bears epoch {body.epoch}, committed under {epoch}")
        if row is not None and SECRET in (row.body or b""):
            self.wrong(f"I9 {node} {body.seq} holds a plaintext")
        if body.op == "reservation.gap":
            self.gaps[node, body.key] += body.count
        if body.outcome != "ok":
            return
        if _is_use(body.op):
            self._use(node, body, before)
        number = _op_number(body.reason)
        if number is not None and (_is_use(body.op) or body.op in _CHANGES):
            self.effects[number].append((node, body.seq))
            self.in_order.append((number, body.op))

    def _use(self, node: str, body: Body, before: Tables) -> None:
        name = f"{node} {body.seq} {body.op} by {body.reason or 'nobody'}"
        token = self.tokens.get(body.link)
        if token is None:
            self.wrong(f"I5 {name} came by a handle that nobody holds")
            return
        purpose, _, operation = body.op.partition(".")
        used = Used(body.key, body.version, operation, token)
        key = self.truth.keys[body.key]
        if str(key.purpose) != purpose or token.key_id != body.key:
            self.wrong(f"I1 {name} is done by a key for {key.purpose}")
        if body.ack == "best_effort":
            self._late_use(node, name, body, used, before)
        else:
            stop = self.truth.stopped(used)
            if stop is not None:
                self.wrong(f"I4 {name} committed after epoch {stop.epoch}: {stop.why}")
            elif unfit := self.truth.unfit(used):
                self.wrong(f"I3 {name}: {unfit}")
            self._overlap(name, used)

    def _overlap(self, name: str, used: Used) -> None:
        """I12: nothing before its version stood published for the overlap."""
        at = self.truth.published.get((used.key_id, used.version))
        if at is None or self.believes_clock or used.operation in ("unwrap", "derive", "mac"):
            return
        published_us, overlap_us = at
        slack = self._skew_us + overlap_us * _DRIFT_PPM // 1_000_000 + _SLACK_US
        if self._now_us() - published_us < overlap_us - slack:
            self.wrong(f"I12 {name} after {self._now_us() - published_us} us of {overlap_us}")

    def _late_use(self, node: str, name: str, body: Body, used: Used, before: Tables) -> None:
        """I4 of best effort: who has made or confirmed a change records nothing older after it."""
        self.late[node, body.key] += 1
        self.of_reservation[body.reservation] += 1
        stop = self.truth.stopped(used)
        if stop is None:
            return
        row = before.nodes.get(node)
        if row is not None and row.seen_epoch >= stop.epoch:
            self.wrong(f"I4 {name} late, after {node} confirmed epoch {stop.epoch}: {stop.why}")
        if stop.node == node:
            self.wrong(f"I4 {name} late, after {node} itself committed: {stop.why}")

    def _once(self, node: str, before: Tables, after: Tables, rows: list[Body]) -> None:
        """I6: what is kept under an idempotency key is kept, and names a record of this commit."""
        if after.idempotency is before.idempotency:
            return
        now_ms = START_MS + self._now_us() // 1_000
        for at in before.idempotency.keys() - after.idempotency.keys():
            early = before.idempotency[at].expires_ms > now_ms or at[1] != LONG_AGO
            if early and self.believes_clock:
                self.forgotten.add(at)
            elif early:
                self.wrong(f"I6 {node} forgot the outcome under {at[1]} of {at[0][:8]}")
        places = {body.seq: body for body in rows}
        for at in after.idempotency.keys() - before.idempotency.keys():
            row = after.idempotency[at]
            body = places.get(row.seq)
            if body is None or body.outcome != "ok":
                self.wrong(f"I6 {node} keeps record {row.seq} under {at[1]}, which did nothing")
            elif _is_use(body.op) and body.link != at[0]:
                self.wrong(f"I6 {node} keeps the record of another handle under {at[1]}")

    def _spent(self, before: Tables, after: Tables, rows: list[Body]) -> None:
        """I5: budgets count what was done by them, and are not overspent."""
        if after.spent is before.spent:
            return
        most = {link: uses for token in self.tokens.values() for link, uses in token.budgets}
        done: Counter[str] = Counter()
        for body in rows:
            if body.outcome == "ok" and _is_use(body.op) and body.link in self.tokens:
                done.update(link for link, _ in self.tokens[body.link].budgets)
        for link, uses in most.items():
            was, now = before.spent.get(link, 0), after.spent.get(link, 0)
            if now - was != done[link]:
                self.wrong(f"I5 budget {link[:8]} went from {was} to {now} by {done[link]} uses")
            if now > uses:
                self.wrong(f"I5 budget {link[:8]} of {uses} is spent {now} times")

    def _steps(self, before: Tables, after: Tables, rows: list[Body]) -> None:
        """Ledgers grow by what was appended; firmware counters never fall."""
        if after.counters is before.counters:
            return
        appended = Counter(
            body.key for body in rows if body.op == "ledger.append" and body.outcome == "ok"
        )
        for (key_id, name), value in after.counters.items():
            stored = before.counters.get((key_id, name))
            old = msgspec.msgpack.decode(stored[_MAC_BYTES:]) if stored else [0]
            new = msgspec.msgpack.decode(value[_MAC_BYTES:])
            if name == "ledger" and new[0] - old[0] != appended[key_id]:
                grew = f"from {old[0]} to {new[0]} by {appended[key_id]} entries"
                self.wrong(f"I6 the ledger went {grew}")
            if name.startswith("firmware/") and new[0] < old[0]:
                self.wrong(f"I6 {name} fell from {old[0]} to {new[0]}")

    def _others(self, node: str, before: Tables, after: Tables, epoch: int) -> None:
        """Nodes and leases only go on; checkpoints are of the log as it is (I10)."""
        for name, row in after.nodes.items():
            old = before.nodes.get(name)
            if row is not old and (
                row.seen_epoch > epoch or (old and row.seen_epoch < old.seen_epoch)
            ):
                self.wrong(f"I4 {name} says to hold to epoch {row.seen_epoch} of {epoch}")
        for name, lease in after.leases.items():
            held = before.leases.get(name)
            if held is None or lease is held:
                continue
            moved = lease.holder != held.holder
            if lease.fence != held.fence + moved or lease.beat <= held.beat:
                self.wrong(f"I4 lease {name}: {lease.holder} under fence {lease.fence}")
        log, was = after.logs.get(node, Log()), before.logs.get(node, Log())
        for size, head in log.checkpoints.items():
            if size not in was.checkpoints:
                leaves = [row.leaf for row, _ in self.rows[node][:size]]
                if len(leaves) != size or root_of(leaves) != head.root:
                    self.wrong(f"I10 the checkpoint of {node} over {size} is of another log")

    # --- answers ------------------------------------------------------------------------------

    def reserved(self, node: str, key_id: str, tables: Tables) -> None:
        """I2 of best effort: one more answer without a record; is it covered by a reservation?"""
        self.released[node, key_id] += 1
        rows = [
            row
            for row in tables.reservations.values()
            if row.node == node and row.key_id == key_id and not row.closed
        ]
        room = sum(row.count - self.of_reservation[row.id] for row in rows)
        if self.unrecorded(node, key_id) > room:
            self.wrong(f"I2 {node} answered best-effort with {len(rows)} reservations, room {room}")

    def unrecorded(self, node: str, key_id: str) -> int:
        """Answers of a node whose record is not committed, and that no gap stands for."""
        at = (node, key_id)
        return self.released[at] - self.late[at] - self.gaps[at]

    def stopped(self, epoch: int, node: str) -> None:
        """A revocation is answered: from now on nothing that it stopped is answered anywhere."""
        self.acknowledged.setdefault(epoch, (self._now_us(), node))

    def bound(self, name: str, used: Used) -> None:
        """I4 of best effort: after the bound, or the acknowledgement, nothing is answered."""
        stop = self.truth.stopped(used)
        if stop is None:
            return
        late_us = self._now_us() - stop.at_us
        if late_us > BOUND_MS * 1_000 * (1_000_000 + _DRIFT_PPM) // 1_000_000 + _SLACK_US:
            self.wrong(f"I4 {name} answered best-effort {late_us} us after: {stop.why}")
        told_us, _ = self.acknowledged.get(stop.epoch, (self._now_us(), ""))
        if told_us < self._now_us():
            self.wrong(f"I4 {name} answered best-effort after it was acknowledged: {stop.why}")

    def acknowledged_here(self, name: str, node: str, used: Used) -> None:
        """I6: who has acknowledged a stop gives out nothing of it any more, not even again."""
        stop = self.truth.stopped(used)
        if stop is None or stop.epoch not in self.acknowledged:
            return
        told_us, by = self.acknowledged[stop.epoch]
        if by == node and told_us < self._now_us():
            self.wrong(f"I6 {name} after {node} acknowledged: {stop.why}")


def root_of(leaves: list[bytes]) -> bytes:
    """The tree head of RFC 6962 section 2.1, as that says it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + root_of(leaves[:half]) + root_of(leaves[half:])).digest()


def commits_to(row: RecordRow, body: Body, message: bytes) -> bool:
    """Whether a record is of this message."""
    signed = hmac.digest(row.salt or b"", message, hashlib.sha256).hex()
    return hmac.compare_digest(signed, body.signed)


def _body(row: RecordRow) -> Body:
    return decode_body(row.body or b"")


def _is_use(op: str) -> bool:
    return op in _USES


def _op_number(reason: str) -> int | None:
    return int(reason[3:]) if reason.startswith("op ") else None
