"""Holds a folder of the script against the answers that left it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from fault.crash.checker import Evidence, Storage, findings
from fault.crash.core import REGISTRY, left
from fault.crash.held import Answer, Created, signed_message
from fault.crash.rollouts import Histories, rollout_findings
from fault.crash.script import BUDGET_USES, ROLLED, handle_name, operation_of
from keystead.client import Issued, Receipt
from keystead.frames.messages import Done
from keystead.keys.commands import IssuedHandle, KeyInfo
from keystead.keys.framing.base import Result
from keystead.keys.framing.data import UnwrapResult, WrapResult
from keystead.keys.framing.firmware import FirmwareResult
from keystead.keys.framing.jwt import JwtResult
from keystead.keys.framing.ledger import LedgerResult
from keystead.keys.handles import parse

__all__ = ["check_folder"]

_RESULTS: dict[str, type[Result]] = {
    "jwt.sign": JwtResult,
    "firmware.sign": FirmwareResult,
    "ledger.append": LedgerResult,
    "data.wrap": WrapResult,
    "data.unwrap": UnwrapResult,
}

Leaving = list[tuple[str, Done]]


def check_folder(folder: Path, *, settled: bool) -> None:
    """Raise what storage and clients disagree in; ``settled``: the script came to its end."""
    answers: Leaving = [
        (item.name, item.answer) for item in left(folder) if isinstance(item.answer, Done)
    ]
    links = {name: issued.link for name, issued in _handles(answers)}
    evidence = Evidence(
        answers=list(_uses(answers, links)),
        created=list(_created(answers)),
        budgets={links["budget"]: BUDGET_USES},
        settled=settled,
    )
    histories = Histories.read(folder / REGISTRY)
    storage = Storage.read(folder / REGISTRY)
    found = [
        *findings(evidence, storage),
        *_unaccounted(answers, storage, settled=settled),
        *rollout_findings(histories, storage, overlap_ms=0),
        *_rollouts(storage, settled=settled),
    ]
    if found:
        raise AssertionError("\n".join(found))


def _rollouts(storage: Storage, *, settled: bool) -> Iterator[str]:
    """The script's one rollout: each of its steps once, whatever was repeated."""
    events = [
        row.op.removeprefix("rollout.")
        for row in storage.rows
        if row.op.startswith("rollout.") and row.outcome == "ok"
    ]
    expected = ROLLED if settled else ROLLED[: len(events)]
    if tuple(events) != expected:
        yield f"expected the rollout's steps {expected}, met {events}"


def _handles(answers: Leaving) -> Iterator[tuple[str, Issued]]:
    for name, answer in answers:
        verb, _, handle = name.partition(":")
        if verb == "issue":
            told = msgspec.msgpack.decode(answer.result, type=IssuedHandle)
            yield (
                handle,
                Issued(
                    handle=parse(told.token),
                    handle_id=told.handle_id,
                    link=told.link,
                    key=told.key,
                    purpose=told.purpose,
                    operations=told.operations,
                    principal=told.principal,
                ),
            )


def _uses(answers: Leaving, links: dict[str, str]) -> Iterator[Answer]:
    for name, answer in answers:
        operation = operation_of(name)
        if ":" in name or answer.receipt is None or operation not in _RESULTS:
            continue
        result = msgspec.msgpack.decode(answer.result, type=_RESULTS[operation])
        yield Answer(
            operation=operation,
            link=links[handle_name(name)],
            idempotency_key=name,
            receipt=Receipt(**msgspec.structs.asdict(answer.receipt)),
            result=result,
            message=signed_message(result),
        )


def _created(answers: Leaving) -> Iterator[Created]:
    keys = {
        name.partition(":")[2]: msgspec.msgpack.decode(answer.result, type=KeyInfo)
        for name, answer in answers
        if name.startswith("create:")
    }
    for _, issued in _handles(answers):
        if issued.key in keys:
            yield Created(key=keys[issued.key], issued=issued)


def _unaccounted(answers: Leaving, storage: Storage, *, settled: bool) -> Iterator[str]:
    """I2: a best-effort answer has its record, or stands in a gap that was recorded."""
    answered = sum(
        answer.receipt is not None and answer.receipt.seq is None for _, answer in answers
    )
    recorded = sum(row.done and row.body.get("ack") == "best_effort" for row in storage.rows)
    gaps = sum(row.body["count"] for row in storage.rows if row.op == "reservation.gap")
    if settled and answered > recorded + gaps:
        yield f"I2 {answered} best-effort answers, {recorded} records, a gap of {gaps}"
