"""The checker: histories made by hand that each break one rule, and one that breaks none."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fault.cluster.checker import Evidence, findings
from fault.cluster.history import Attempt, Outcome, Stop, Target
from fault.cluster.logs import Log, Row, Storage
from keystead.client import Receipt
from keystead.keys.framing.firmware import FirmwareResult
from keystead.keys.framing.ledger import LedgerResult

SALT = b"s" * 16
JWT = Target(key="t", key_id="k1", handle_id="h1", links=("root", "child"))
BOOKS = Target(key="books", key_id="k2", handle_id="h2", links=("books",))
IMAGES = Target(key="images", key_id="k3", handle_id="h3", links=("images",))
EDGE = Target(key="edge", key_id="k4", handle_id="h4", links=("edge",))


class World:
    """A history and its logs, built a step at a time; the steps may lie."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {"a": [], "b": []}
        self.attempts: list[Attempt] = []
        self.stops: list[Stop] = []
        self.storage = Storage(epoch=9, logs={})
        self.clock = 0

    def tick(self) -> int:
        self.clock += 10
        return self.clock

    def record(self, node: str, epoch: int, op: str, target: Target | None, **body: object) -> Row:
        """Append a record; ``seq`` and hashes are right."""
        seq, message = len(self.rows[node]), body.pop("message", b"")
        told: dict[str, Any] = {"seq": seq, "epoch": epoch, "node": node, "op": op, "outcome": "ok"}
        told |= {"request": f"{node}-{seq}"}
        if target is not None:
            told |= {"key": target.key_id, "handle": target.handle_id, "link": target.link}
            told["version"] = 1
        told |= body
        if isinstance(message, bytes) and message:
            told["signed"] = hmac.digest(SALT, message, hashlib.sha256).hex()
        raw = json.dumps(told).encode()
        entry = hashlib.sha256(SALT + raw).digest()
        row = Row(
            seq=seq,
            epoch=epoch,
            op=op,
            outcome=str(told["outcome"]),
            key_id=str(told.get("key", "")),
            version=int(str(told.get("version", 0))),
            handle_id=str(told.get("handle", "")),
            request_id=str(told["request"]),
            raw=raw,
            salt=SALT,
            entry=entry,
            leaf=hashlib.sha256(b"\0" + entry).digest(),
            body=told,
        )
        self.rows[node].append(row)
        return row

    def tell(
        self,
        node: str,
        row: Row,
        target: Target,
        key: str,
        *,
        message: bytes | None = None,
        result: object = None,
    ) -> Attempt:
        """A client is answered with a record."""
        receipt = Receipt(
            seq=row.seq,
            epoch=row.epoch,
            key=target.key_id,
            version=1,
            kid="",
            algorithm="",
            ack="durable",
            request_id=row.request_id,
            node=node,
        )
        begun = self.tick()
        attempt = Attempt(
            client="c",
            front=node,
            operation=row.op,
            target=target,
            key=key,
            invoked_ns=begun,
            completed_ns=self.tick(),
            outcome=Outcome.OK,
            receipt=receipt,
            result=result,
            message=message,
        )
        self.attempts.append(attempt)
        return attempt

    def use(
        self, node: str, epoch: int, key: str, *, target: Target = JWT, op: str = "jwt.sign"
    ) -> Attempt:
        """A use that is recorded, kept under its key, and answered."""
        row = self.record(node, epoch, op, target, message=key.encode())
        self.storage.idempotency[target.link, key] = (node, row.seq)
        return self.tell(node, row, target, key, message=key.encode())

    def append(self, node: str, number: int, previous: bytes | None, text: str) -> bytes:
        """An entry of the ledger; gives its document."""
        before = hashlib.sha256(previous).hexdigest() if previous else "0" * 64
        told = {"ledger": "k2", "sequence": number, "previous": before, "text": text}
        document = json.dumps(told).encode()
        row = self.record(node, 4, "ledger.append", BOOKS, message=document)
        self.storage.idempotency["books", text] = (node, row.seq)
        result = LedgerResult(sequence=number, document=document, head=b"", signatures={})
        self.tell(node, row, BOOKS, text, message=document, result=result)
        self.storage.counters["k2", "ledger"] = [number, hashlib.sha256(document).digest()]
        return document

    def image(self, node: str, version: int) -> Attempt:
        """A signed image."""
        manifest = json.dumps({"name": "image", "version": version}).encode()
        key = f"image-{version}"
        row = self.record(node, 4, "firmware.sign", IMAGES, message=manifest)
        self.storage.idempotency["images", key] = (node, row.seq)
        self.storage.counters["k3", "firmware/image"] = [version]
        result = FirmwareResult(manifest=manifest, signatures={})
        return self.tell(node, row, IMAGES, key, message=manifest, result=result)

    def stop(self, what: str, node: str, epoch: int, target: str) -> Stop:
        """A stop that is recorded and answered."""
        match what:
            case "revoke_handle":
                self.record(node, epoch, "handle.revoke", None, link=target)
                epoch = 0
            case "revoke_key":
                self.record(node, epoch, "handle.revoke_all", None, key=target)
            case _:
                detail = f"{what} version 1"
                self.record(node, epoch, "key.move", None, key=target, detail=detail)
        stop = Stop(
            front=node,
            what=what,
            target=target,
            invoked_ns=self.tick(),
            completed_ns=self.tick(),
            outcome=Outcome.OK,
            epoch=epoch,
        )
        self.stops.append(stop)
        return stop

    def found(self, budgets: dict[str, int] | None = None) -> list[str]:
        """What the checker says of it all."""
        storage = msgspec.structs.replace(
            self.storage, logs={node: Log(rows=rows) for node, rows in self.rows.items()}
        )
        evidence = Evidence(attempts=self.attempts, stops=self.stops, budgets=budgets or {})
        return findings(evidence, storage)

    def alter(self, node: str, seq: int, **columns: object) -> None:
        """Have a row say something else."""
        self.rows[node][seq] = msgspec.structs.replace(self.rows[node][seq], **columns)

    def forget_answer(self, outcome: Outcome, code: str = "") -> None:
        """Have the last attempt end otherwise than it did."""
        self.attempts[-1] = msgspec.structs.replace(
            self.attempts[-1], outcome=outcome, code=code, receipt=None, result=None, message=None
        )


def good() -> World:
    """Uses, a repeat at the other node, a suspension that ends, a revocation, a ledger, images."""
    world = World()
    world.record("a", 1, "handle.issue", JWT)
    first = world.use("a", 1, "u1")
    world.attempts.append(msgspec.structs.replace(first, front="b"))
    world.use("b", 1, "u2")
    world.forget_answer(Outcome.UNKNOWN)
    world.stop("suspend", "a", 2, "k1")
    world.record("b", 2, "jwt.sign", JWT, outcome="key_state")
    world.stop("resume", "b", 3, "k1")
    world.use("a", 3, "u3")
    world.stop("revoke_handle", "b", 4, "root")
    entry = world.append("a", 1, None, "one")
    world.append("b", 2, entry, "two")
    world.image("a", 3)
    world.image("b", 5)
    return world


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert good().found() == []


Break = Callable[[World], None]


def lost_record(world: World) -> None:
    row = world.rows["a"][1]
    world.tell("a", msgspec.structs.replace(row, seq=77), JWT, "lost")


def other_logs_record(world: World) -> None:
    """The answer names the other node's log, where another use has that sequence."""
    row = world.record("a", 4, "jwt.sign", BOOKS, message=b"x")
    world.rows["a"].pop()
    world.tell("b", msgspec.structs.replace(row, seq=0), JWT, "elsewhere")


def other_message(world: World) -> None:
    world.use("a", 4, "u4", target=BOOKS)
    world.attempts[-1] = msgspec.structs.replace(world.attempts[-1], message=b"other")


def gap_in_a_log(world: World) -> None:
    del world.rows["b"][1]


def epoch_that_falls(world: World) -> None:
    world.record("a", 3, "log.start", None)


def altered_body(world: World) -> None:
    world.alter("a", 2, raw=b"{}")


def altered_column(world: World) -> None:
    world.alter("a", 2, outcome="denied")


def epoch_taken_twice(world: World) -> None:
    world.record("a", 4, "handle.revoke", None, link="another")


def epoch_beyond_the_registry(world: World) -> None:
    world.record("a", 10, "log.start", None)


def second_effect(world: World) -> None:
    """The other node did it again under the same key, and kept that one."""
    row = world.record("b", 4, "ledger.append", BOOKS, message=b"again")
    world.storage.idempotency["books", "one"] = ("b", row.seq)
    world.storage.counters["k2", "ledger"][0] = 3


def effect_without_a_key(world: World) -> None:
    world.record("b", 4, "jwt.sign", BOOKS, message=b"x")


def effect_that_nobody_asked_for(world: World) -> None:
    row = world.record("b", 4, "jwt.sign", BOOKS, message=b"x")
    world.storage.idempotency["books", "ghost"] = ("b", row.seq)


def refused_and_done(world: World) -> None:
    world.use("b", 4, "r1", target=BOOKS)
    world.forget_answer(Outcome.REFUSED, "key_state")


def use_behind_a_revocation(world: World) -> None:
    """By the child, when its parent's link was revoked; the client's clock does not show it."""
    world.use("b", 4, "u5")
    world.attempts[-1] = msgspec.structs.replace(world.attempts[-1], invoked_ns=1)


def unanswered_use_behind_a_revocation(world: World) -> None:
    world.use("a", 5, "u6")
    world.forget_answer(Outcome.UNKNOWN)


def commit_that_ends_behind_a_stop(world: World) -> None:
    """It read the epoch before the stop, and the server committed it behind it."""
    world.use("a", 4, "slow", target=BOOKS)
    world.alter("a", len(world.rows["a"]) - 1, committed_us=2001)
    world.stop("compromise", "b", 5, "k2")
    world.alter("b", len(world.rows["b"]) - 1, committed_us=2000)


def commit_that_overtakes_a_stop_of_something_else(world: World) -> None:
    """What it used was not stopped; but it passed the fence, and next time it may be."""
    world.use("a", 4, "slow", target=BOOKS)
    world.alter("a", len(world.rows["a"]) - 1, committed_us=2001)
    world.stop("compromise", "b", 5, "k9")
    world.alter("b", len(world.rows["b"]) - 1, committed_us=2000)


def use_of_a_suspended_key(world: World) -> None:
    world.stop("suspend", "b", 5, "k2")
    world.use("a", 5, "s1", target=BOOKS)
    world.attempts[-1] = msgspec.structs.replace(world.attempts[-1], invoked_ns=1)


def use_of_a_compromised_key(world: World) -> None:
    world.stop("compromise", "b", 5, "k2")
    world.use("a", 6, "c1", target=BOOKS)
    world.forget_answer(Outcome.UNKNOWN)


def use_of_an_older_generation(world: World) -> None:
    world.record("b", 4, "handle.issue", BOOKS)
    world.stop("revoke_key", "a", 5, "k2")
    world.use("b", 5, "g1", target=BOOKS)
    world.forget_answer(Outcome.UNKNOWN)


def stored_answer_after_the_stop(world: World) -> None:
    """Its record stands before the stop, but it was asked for again behind it, and given out."""
    done = world.attempts[0]
    world.attempts.append(
        msgspec.structs.replace(done, invoked_ns=world.tick(), completed_ns=world.tick())
    )


def stop_without_a_record(world: World) -> None:
    stop = world.stop("suspend", "b", 5, "k2")
    world.rows["b"].pop()
    world.stops[-1] = msgspec.structs.replace(stop, epoch=5)


def stop_recorded_twice(world: World) -> None:
    world.stop("suspend", "b", 5, "k2")
    world.stop("suspend", "a", 6, "k2")


def ledger_fork(world: World) -> None:
    """Both nodes appended the second entry."""
    document = next(a.result.document for a in world.attempts if a.operation == "ledger.append")
    world.append("a", 2, document, "fork")


def ledger_broken_chain(world: World) -> None:
    world.append("a", 3, b"not the second entry", "three")


def ledger_order(world: World) -> None:
    """The third entry was answered before the second one was asked for."""
    entry = next(a.result.document for a in world.attempts if a.key == "two")
    world.append("a", 3, entry, "three")
    late = world.attempts[-1]
    world.attempts[-1] = msgspec.structs.replace(late, invoked_ns=1, completed_ns=2)


def stale_epoch(world: World) -> None:
    """Of a key that nobody stopped: the node did not read the newest epoch in its commit."""
    row = world.record("a", 4, "jwt.sign", BOOKS, message=b"x")
    world.storage.idempotency["books", "late"] = ("a", row.seq)
    world.stop("suspend", "b", 5, "k9")
    world.tell("a", row, BOOKS, "late", message=b"x")


def ledger_count(world: World) -> None:
    world.storage.counters["k2", "ledger"][0] = 5


def firmware_falls(world: World) -> None:
    world.image("b", 4)
    world.storage.counters["k3", "firmware/image"] = [5]


def firmware_counter_behind(world: World) -> None:
    world.storage.counters["k3", "firmware/image"] = [4]


def wraps_uncounted(world: World) -> None:
    world.use("a", 4, "w1", target=BOOKS, op="data.wrap")


def best_effort_lost(world: World) -> None:
    row = world.record("a", 4, "tls.sign", EDGE, ack="best_effort")
    world.tell("a", row, EDGE, "")
    for _ in range(2):
        told = world.attempts[-1]
        assert told.receipt is not None
        receipt = msgspec.structs.replace(told.receipt, seq=None, ack="best_effort")
        world.attempts.append(msgspec.structs.replace(told, receipt=receipt))


def search_differs(world: World) -> None:
    world.storage.found["b"] = [(0, 1, "ok", "another")]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (lost_record, "I2 .*record 77 of a: none"),
        (other_logs_record, "I2 .*its record says"),
        (other_message, "I2 .*commits to something else"),
        (gap_in_a_log, "I2 expected record 1 of b, met 2"),
        (epoch_that_falls, "I4 record .* of a is of epoch 3"),
        (altered_body, "I10 the entry of record 2 of a"),
        (altered_column, "I10 the columns of record 2 of a"),
        (epoch_taken_twice, "I4 epoch 4 was taken by"),
        (epoch_beyond_the_registry, "I4 the registry is at 9"),
        (second_effect, "I6 one was answered with .*, kept is"),
        (effect_without_a_key, "I6 1 records by books are of no key"),
        (effect_that_nobody_asked_for, "I6 ghost has record"),
        (refused_and_done, "I6 r1 was only ever refused"),
        (use_behind_a_revocation, "I4 record .* of epoch 4: link root was revoked at 4"),
        (unanswered_use_behind_a_revocation, "I4 record .* of epoch 5: link root"),
        (commit_that_ends_behind_a_stop, "I4 record .* was committed 1 us after this: its key had"),
        (
            commit_that_overtakes_a_stop_of_something_else,
            "I4 record .* of a is of epoch 4, and was committed 1 us after epoch 5 had been taken",
        ),
        (use_of_a_suspended_key, "I4 record .* of epoch 5: its key was suspended at 5"),
        (use_of_a_compromised_key, "I4 record .* of epoch 6: its key had a compromise at 5"),
        (use_of_an_older_generation, "I4 record .*: all handles of its key were revoked at 5"),
        (stored_answer_after_the_stop, "I4 jwt.sign under u1 was answered by a although"),
        (stop_without_a_record, "I2 suspend of k2 was answered at epoch 5, no record"),
        (stop_recorded_twice, "I6 k2 has two records of suspend in a row"),
        (ledger_fork, "the ledger forks at 2"),
        (ledger_broken_chain, "ledger entry 3 does not follow entry 2"),
        (ledger_count, "the ledger's counter is at 5, 2 entries"),
        (ledger_order, "the ledger: a smaller number was given out after"),
        (stale_epoch, "I4 .* is of epoch 4; it began after 5 had been answered"),
        (firmware_falls, "firmware image: a smaller number"),
        (firmware_counter_behind, "firmware image: the counter is at 4"),
        (wraps_uncounted, "I5 encryptions are counted as"),
        (best_effort_lost, "I2 2 best-effort answers of k4, 1 recorded"),
        (search_differs, "the log of b is found to differ"),
    ],
)
def test_each_rule_catches_what_breaks_it(broken: Break, expected: str) -> None:
    world = good()
    broken(world)
    found = world.found()
    assert any(re.match(expected, line) for line in found), found


@pytest.mark.parametrize(("spent", "most"), [(2, 10), (3, 2)])
def test_budgets_over_both_logs(spent: int, most: int) -> None:
    """Three uses by the child of a budget's link: counted as two, or more than there were."""
    world = World()
    for node, key in (("a", "u1"), ("b", "u2"), ("b", "u3")):
        world.use(node, 1, key)
    world.storage.spent["root"] = spent
    assert any(line.startswith("I5 budget root") for line in world.found({"root": most}))
    world.storage.spent["root"] = 3
    assert world.found({"root": 10}) == []


def test_a_checkpoint_is_over_the_records() -> None:
    world = World()
    for number in range(5):
        world.use("a", 1, f"u{number}")
    leaves = [row.leaf for row in world.rows["a"]]

    def pair(left: bytes, right: bytes) -> bytes:
        return hashlib.sha256(b"\1" + left + right).digest()

    four = pair(pair(leaves[0], leaves[1]), pair(leaves[2], leaves[3]))
    roots = [
        (1, leaves[0]),
        (3, pair(pair(leaves[0], leaves[1]), leaves[2])),
        (5, pair(four, leaves[4])),
    ]
    for altered, expected in (([], []), ([(4, leaves[0])], [4])):
        log = Log(rows=world.rows["a"], checkpoints=[*roots, *altered])
        storage = msgspec.structs.replace(world.storage, logs={"a": log, "b": Log(rows=[])})
        said = findings(Evidence(attempts=world.attempts), storage)
        assert [f"I10 the checkpoint of a at {n} is not over its records" for n in expected] == said
