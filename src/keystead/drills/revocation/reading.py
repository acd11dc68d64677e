"""What the logs of the nodes hold of a drill, read through each node's own front."""

from __future__ import annotations

from keystead.client import AsyncClient, Issued
from keystead.client.admin import search_log
from keystead.drills.revocation.setting import Setting
from keystead.drills.revocation.targets import Target
from keystead.drills.revocation.trace import Change, Front, Recorded, Stopped
from keystead.keys.commands import RecordInfo

__all__ = ["read_change", "read_uses"]

_PAGE = 1_000


async def read_uses(client: AsyncClient, front: Front, setting: Setting) -> list[Recorded]:
    """All records of uses of a drill's targets that were done, in one node's log."""
    found: list[Recorded] = []
    for target, issued in setting.handles.items():
        operation = f"{issued.purpose}.sign"
        after = -1
        while True:
            page = await client.run(
                search_log(
                    handle_id=issued.handle_id,
                    operation=operation,
                    outcome="ok",
                    after=after,
                    oldest_first=True,
                    limit=_PAGE,
                )
            )
            found += [_recorded(target, front.node, record) for record in page.records]
            if page.end:
                break
            after = page.next
    return found


def _recorded(target: int, node: str, record: RecordInfo) -> Recorded:
    return Recorded(
        target=target, node=node, seq=record.seq, epoch=record.epoch, request=record.request
    )


async def read_change(
    client: AsyncClient, stopped: Stopped, target: Target, issued: Issued
) -> Change | None:
    """The record that a revocation says is its own, in the log of the node that it was asked of."""
    page = await client.run(search_log(after=stopped.seq - 1, before=stopped.seq + 1))
    for record in page.records:
        return Change(
            target=stopped.target,
            operation=record.operation,
            epoch=record.epoch,
            outcome=record.outcome,
            own=_is_own(record, target, issued),
        )
    return None


def _is_own(record: RecordInfo, target: Target, issued: Issued) -> bool:
    match target.kind:
        case "link":
            return record.body.get("link") == issued.link
        case "handle":
            return record.handle == issued.handle_id
        case _:
            return record.name == target.key
