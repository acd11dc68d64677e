"""What a drill of revocations sees of two nodes that do as they should, on a made-up clock."""

import msgspec

from keystead.drills.revocation.answers import OPERATION
from keystead.drills.revocation.targets import KINDS, WORKS, Target, targets
from keystead.drills.revocation.trace import (
    OK,
    Change,
    Front,
    How,
    Recorded,
    Stopped,
    Trace,
    Use,
)
from keystead.keys.reservations import BOUND_MS

COUNT = len(KINDS) * len(WORKS)
MS = 1_000_000
NODES = ("a", "b")


def played(count: int = COUNT, nodes: tuple[str, ...] = NODES) -> Trace:
    """The whole drill: each target is used on every node, stopped, and tried again."""
    fronts = tuple(Front(url=f"http://127.0.0.1:{port}", node=n) for port, n in enumerate(nodes, 1))
    trace = Trace(run="cafe", fronts=fronts, targets=targets("cafe", count, len(nodes)))
    for target in trace.targets:
        _play(trace, target)
    trace.uses.sort(key=lambda use: use.began_ns)
    return trace


def _play(trace: Trace, target: Target) -> None:
    """One target: stopped at 1,000 ms of its own second; committed 4 ms later, answered in 10."""
    epoch = 50 + target.number
    start = target.number * 2_000 * MS
    first = target.work.ack == "best_effort"
    for front, _ in enumerate(trace.fronts):
        for at in (900, 950, 999):
            _use(trace, target, front, start + at * MS, epoch - 1)
        for at in (1_006, 1_020, 1_030):
            _refused(trace, target, front, start + at * MS, "hot")
        if not first:
            _refused(trace, target, front, start + 1_040 * MS, "again")
        _refused(trace, target, front, start + 3_600_000 * MS, "last")
        for at in (950, 1_050):
            _use(trace, target, front, start + at * MS, epoch, how="steady")
    node = trace.fronts[target.via].node
    trace.stopped.append(
        Stopped(
            target=target.number,
            sent_ns=start + 1_000 * MS,
            answered_ns=start + 1_010 * MS,
            node=node,
            seq=1_000 * target.number,
            epoch=epoch,
            commit_ms=4.0,
            bound_ms=BOUND_MS if first else None,
            ended_ms=3.0 if first else None,
        )
    )
    trace.changes.append(
        Change(target=target.number, operation=OPERATION, epoch=epoch, outcome=OK, own=True)
    )


def _use(  # noqa: PLR0917  a trace, and what is new in it
    trace: Trace, target: Target, front: int, began_ns: int, epoch: int, how: How = "hot"
) -> None:
    request = f"{how}-{front}-{began_ns}"
    number = -1 if how == "steady" else target.number
    node = trace.fronts[front].node
    trace.uses.append(
        Use(
            target=number,
            front=front,
            how=how,
            began_ns=began_ns,
            ended_ns=began_ns + 5 * MS,
            outcome=OK,
            ack="durable" if how == "steady" else target.work.ack,
            node=node,
            seq=began_ns // MS,
            epoch=epoch,
            request=request,
        )
    )
    if how != "steady":
        trace.recorded.append(
            Recorded(target=number, node=node, seq=began_ns // MS, epoch=epoch, request=request)
        )


def _refused(trace: Trace, target: Target, front: int, began_ns: int, how: How) -> None:
    code = "key_state" if target.kind in {"suspended", "compromised"} else "handle_revoked"
    trace.uses.append(
        Use(
            target=target.number,
            front=front,
            how=how,
            began_ns=began_ns,
            ended_ns=began_ns + 5 * MS,
            outcome=code,
        )
    )


def change_use(trace: Trace, place: int, **changed: object) -> None:
    """Have seen something else of one use."""
    trace.uses[place] = msgspec.structs.replace(trace.uses[place], **changed)


def change_stop(trace: Trace, place: int, **changed: object) -> None:
    """Have seen something else of one revocation."""
    trace.stopped[place] = msgspec.structs.replace(trace.stopped[place], **changed)


def place_of(trace: Trace, ack: str, how: How = "hot", outcome: str = OK) -> int:
    """Where the last such use of a key that answers so is."""
    return max(
        place
        for place, use in enumerate(trace.uses)
        if use.target >= 0
        and use.how == how
        and (use.outcome == OK) is (outcome == OK)
        and trace.targets[use.target].work.ack == ack
    )
