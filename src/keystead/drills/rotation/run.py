"""The whole drill: what it sets up on the node, the acts under load, and what it leaves there."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

import msgspec

from keystead.client import AsyncClient, Client, Issued, Narrowing
from keystead.drills.rotation.acts import Acts
from keystead.drills.rotation.ending import TENANT, end_use
from keystead.drills.rotation.expected import checks
from keystead.drills.rotation.lengths import PARTIES, TASKS, Lengths, lengths
from keystead.drills.rotation.load import PREFIX, sign_on
from keystead.drills.rotation.parties import ISSUER, Desk
from keystead.drills.rotation.report import Report, judged
from keystead.drills.rotation.timeline import timeline
from keystead.drills.rotation.trace import Found, Trace
from keystead.keys.model import JwtPolicy, Policy

__all__ = ["Tell", "run_rotation"]

_RUN_BYTES = 4
_RECORDS_MAX = 1_000
_STOP_S = 2.0

Tell = Callable[[str, float], None]
"""Called with what is under way, and the share of the drill that is over."""


class _Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Where a drill is played, and by whom."""

    url: str
    token: str
    timing: Lengths
    algorithm: str | None
    signer: Issued
    reporters: list[Issued]


def run_rotation(
    url: str, token: str, *, scale: float = 1.0, algorithm: str | None = None, tell: Tell
) -> Report:
    """Drill rotations on the node at ``url``, on a key of the drill's own.

    ``token``: an operator's. ``scale``: how many seconds a second of the plan lasts.
    ``algorithm``: of the versions that are rotated to; None: as the key's first one.

    Raises:
        KeysteadError: the node cannot be reached, or refused what the drill cannot go on without.
            Its notes say what is left; as those of any other exception, such as a signal's.
    """
    began_s = time.monotonic()
    timing = lengths(scale)
    run = secrets.token_hex(_RUN_BYTES)
    trace = Trace(run=run, key=f"drill-{run}")

    def say(words: str) -> None:
        tell(words, min(1.0, (time.monotonic() - began_s) / timing.whole_s))

    with Client(url, operator=token) as client:
        say("Making a key")
        _make_key(client, trace, timing)
        try:
            scene = _scene(client, url, token, trace, timing, algorithm)
            asyncio.run(_play(scene, trace, say))
            say("Reading the log")
            _read_log(client, trace)
        except BaseException as exc:
            exc.add_note(f"left: {end_use(client, trace)}")
            raise
        say("Ending the key's use")
        left = end_use(client, trace)
    return judged(
        Report(
            run=run,
            url=url,
            key=trace.key,
            seconds=round(time.monotonic() - began_s, 3),
            scale=scale,
            checks=tuple(checks(trace)),
            tokens=len(trace.signed),
            left=left,
            timeline=timeline(trace),
        )
    )


def _make_key(client: Client, trace: Trace, timing: Lengths) -> None:
    client.create_key(
        trace.key,
        "jwt",
        tenant=TENANT,
        labels={"drill": trace.run},
        policy=Policy(jwt=JwtPolicy(issuer=ISSUER, lifetime_max_s=timing.lifetime_s)),
        plan=timing.plan,
    )


def _scene(  # noqa: PLR0917  what a drill is told, and what it set up
    client: Client,
    url: str,
    token: str,
    trace: Trace,
    timing: Lengths,
    algorithm: str | None,
) -> _Scene:
    parties = [f"party-{number}" for number in range(1, PARTIES + 1)]
    return _Scene(
        url=url,
        token=token,
        timing=timing,
        algorithm=algorithm,
        signer=_issue(client, trace, "load", None),
        reporters=[_issue(client, trace, who, ("report",)) for who in parties],
    )


def _issue(client: Client, trace: Trace, who: str, operations: tuple[str, ...] | None) -> Issued:
    return client.issue_handle(
        trace.key,
        f"drill-{trace.run}-{who}",
        operations=operations,
        narrowing=Narrowing(context_prefix=f"{PREFIX}/{trace.run}"),
    )


async def _play(scene: _Scene, trace: Trace, say: Callable[[str], None]) -> None:
    """The acts, under load, and then the end of each token's life.

    Raises:
        KeysteadError: the node refused what the acts cannot go on without.
    """
    async with AsyncClient(scene.url, operator=scene.token) as client:
        desk = Desk(client, trace.key, scene.reporters, trace)
        again = asyncio.create_task(desk.verify_again())
        load = [
            asyncio.create_task(sign_on(client, scene.signer.handle, task, desk, trace))
            for task in range(TASKS)
        ]
        acts = asyncio.create_task(
            Acts(client, desk, trace, scene.timing, scene.algorithm, say).run()
        )
        try:
            # What the load meets is in the trace: one of its tasks that ends has a fault of ours.
            await asyncio.wait((acts, again, *load), return_when=asyncio.FIRST_COMPLETED)
            desk.stop.set()
            await asyncio.wait(load, timeout=_STOP_S)
            say("The last tokens come to the end of their life")
            await asyncio.wait((again,), timeout=scene.timing.lifetime_s + _STOP_S)
        finally:
            for task in (acts, again, *load):
                task.cancel()
            await asyncio.gather(acts, again, *load, return_exceptions=True)
        for task in (acts, again, *load):
            if not task.cancelled():
                task.result()


def _read_log(client: Client, trace: Trace) -> None:
    """What the log holds of the drill: each decision, and how many tokens of each version."""
    events = {
        step.event.replace(" ", "_")
        for act in trace.acts
        for evidence in act.rollouts
        for step in evidence.rollout.steps
    }
    for event in sorted(events):
        records = client.log(key=trace.key, operation=f"rollout.{event}", limit=_RECORDS_MAX)
        trace.found += [
            Found(
                seq=record.seq,
                epoch=record.epoch,
                operation=record.operation,
                version=record.version,
                outcome=record.outcome,
            )
            for record in records
        ]
    for version in sorted({token.version for token in trace.signed}):
        trace.counted[version] = _count(client, trace.key, version)


def _count(client: Client, key: str, version: int) -> int:
    """How many records of tokens a version has; a long log is counted stretch by stretch."""
    total, before = 0, None
    while True:
        told = client.count_log(
            "outcome", key=key, version=version, operation="jwt.sign", before=before
        )
        total += told.counts.get("ok", 0)
        if told.end:
            return total
        before = told.next
