"""What clients and an operator do in one run, so that it passes every step of the commit.

The run is the same each time and may be begun again at any point: uses are repeated under their
idempotency keys, changes only after a look. So it ends in the same state whatever failed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from fault.crash.core import REGISTRY, Core, left, make_folder, opened_core
from keystead.frames.messages import Answer, Checkpoint, Done, Refused, Tend, Use
from keystead.keys.commands import (
    Command,
    CreateKey,
    IssuedHandle,
    IssueHandle,
    KeyInfo,
    MoveVersion,
    RevokeHandle,
    ShowKey,
)
from keystead.keys.framing.base import Facts
from keystead.keys.framing.data import Unwrap, Wrap, WrapResult
from keystead.keys.framing.firmware import SignFirmware
from keystead.keys.framing.jwt import SignJwt
from keystead.keys.framing.ledger import AppendLedger
from keystead.keys.framing.tls import SignTls
from keystead.keys.lifecycle import Move
from keystead.keys.model import FirmwarePolicy, JwtPolicy, Policy
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import RotateKey, SteerRollout
from keystead.keys.rollout.plan import (
    DAY_MS,
    WHOLE_PPM,
    Canary,
    Drain,
    Plan,
    Publish,
    Ramp,
    Retire,
)
from keystead.net.system import SystemClock, SystemRandom
from keystead.store.sqlite_journal import SqliteJournal
from keystead.testing.faulty_journal import FaultyJournal, Trips
from keystead.vault.macs import VaultSecrets
from keystead.vault.start import initialise

__all__ = ["BUDGET_USES", "ROLLED", "first_start", "handle_name", "operation_of", "play", "prepare"]

BUDGET_USES = 2
ROLLED = ("publish", "canary", "rolled_back")
"""Steps of the rollout that the run makes."""
_TRIES_MAX = 6
_ROUND_S = 0.1
_AGAIN = "log_unavailable"
_JWT = Policy(jwt=JwtPolicy(issuer="script"))
_PLAN = Plan(
    publish=Publish(overlap_ms=0, cache_ms=0),
    canary=Canary(share_ppm=WHOLE_PPM, length_ms=DAY_MS),
    drain=Drain(length_ms=DAY_MS),
    retire=Retire(unpublish=True),
    ramp=Ramp(steps_ppm=()),
)
"""The next round gives all new work to the new version, and there it stays."""
_KEYS = (
    CreateKey(name="jwt", purpose=Purpose.JWT, policy=_JWT),
    CreateKey(
        name="firmware",
        purpose=Purpose.FIRMWARE,
        policy=Policy(firmware=FirmwarePolicy(names=("image",))),
    ),
    CreateKey(name="ledger", purpose=Purpose.LEDGER),
    CreateKey(name="data", purpose=Purpose.DATA),
    CreateKey(name="rolled", purpose=Purpose.JWT, policy=_JWT, plan=_PLAN),
    CreateKey(name="edge", purpose=Purpose.TLS, policy=Policy(ack="best_effort")),
)
_HANDLES = {
    **{key.name: IssueHandle(key=key.name, principal="app") for key in _KEYS},
    "budget": IssueHandle(key="jwt", principal="app", narrowing=Narrowing(uses=BUDGET_USES)),
    "lost": IssueHandle(key="jwt", principal="app"),
}


def prepare(folder: Path) -> None:
    """A deployment with a key of each kind and a handle of each, before anything fails."""

    async def made() -> None:
        async with opened_core(folder) as core:
            for key in _KEYS:
                _done(await core.command(f"create:{key.name}", key))
            for name, command in _HANDLES.items():
                _done(await core.command(f"issue:{name}", command))
            await _Run(core).use("wrap-0")

    make_folder(folder)
    asyncio.run(made())


def first_start(folder: Path, trips: Trips) -> None:
    """The commit that makes a deployment, on an empty registry."""
    secrets = VaultSecrets(bytes(32), bytes([1]) * 32, bytes([2]) * 32)
    journal = SqliteJournal(folder / REGISTRY)
    try:
        initialise(
            FaultyJournal(journal, trips),
            secrets,
            deployment="d1",
            sealed_root=b"sealed",
            node="node1",
            clock=SystemClock(),
            random=SystemRandom(),
        )
    finally:
        journal.close()


async def play(core: Core) -> None:
    """The run, from its beginning; what is done already is answered as it was."""
    run = _Run(core)
    for name in ("fresh", "data"):
        await run.resume_if_stopped(name)
    await run.uses("jwt-1", "jwt-2", "ledger-1", "ledger-2", "firmware-1", "wrap-1", "budget-1")
    for name in ("edge-1", "edge-2", "edge-3"):
        await run.use(name)
        await asyncio.sleep(0.01)  # a reservation that was asked for comes meanwhile
    await run.change(
        "create:fresh",
        CreateKey(name="fresh", purpose=Purpose.JWT, tenant="fresh", policy=_JWT),
        lambda key: key is not None,
    )
    await run.issue("fresh")
    await run.use("fresh-1")
    for move, state in ((Move.SUSPEND, "suspended"), (Move.RESUME, "active")):
        command = MoveVersion(name="fresh", move=move, reason="script")
        await run.change(f"{move}:fresh", command, _is(state))
    await _other_node(core.folder)
    await core.follow()
    await run.uses("ledger-3", "unwrap-1", "firmware-2", "wrap-2", "budget-2", "fresh-2")
    await run.revoke("lost")
    await core.ask("tend", Tend)
    await run.checkpoint()
    await run.rollout("rolled")
    await run.uses("jwt-3", "ledger-4")
    refused = await core.ask("budget-3", run.make("budget-3"))
    if not isinstance(refused, Refused) or refused.code not in ("limit_exceeded", _AGAIN):
        raise AssertionError(f"the budget was overspent: {refused}")


async def _other_node(folder: Path) -> None:
    """Another node on the same registry changes what this one has read."""
    async with opened_core(folder, node="other") as other:
        for move in (Move.SUSPEND, Move.RESUME):
            command = MoveVersion(name="data", move=move, reason="elsewhere")
            await other.command(f"other:{move}", command)


class _Run:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._held = {item.name: item.answer for item in left(core.folder)}

    async def uses(self, *names: str) -> None:
        """All at once, so that they share a commit; each is repeated until it is answered."""
        await asyncio.gather(*(self.use(name) for name in names))

    async def use(self, name: str) -> None:
        self._held[name] = await self._until_done(
            lambda: self._core.ask(name, self.make(name)), name
        )

    def make(self, name: str) -> Callable[[int], Use]:
        """The request of a use; all but best-effort ones have an idempotency key."""
        handle = self._issued(handle_name(name))
        facts = self._facts(name)
        purpose, _, operation = operation_of(name).partition(".")
        return lambda number: Use(
            number,
            handle.token,
            purpose,
            operation,
            "script",
            msgspec.msgpack.encode(facts),
            idempotency_key=None if name.startswith("edge") else name,
        )

    def _issued(self, name: str) -> IssuedHandle:
        return msgspec.msgpack.decode(_done(self._held[f"issue:{name}"]).result, type=IssuedHandle)

    def _facts(self, name: str) -> Facts:
        kind, _, number = name.partition("-")
        text = name.encode()
        match kind:
            case "ledger":
                return AppendLedger(entry=text)
            case "firmware":
                digest = hashlib.sha256(text).digest()
                return SignFirmware(name="image", version=int(number), sha256=digest, size=1)
            case "wrap":
                return Wrap(plaintext=text)
            case "unwrap":
                return Unwrap(wrapped=_wrapped(_done(self._held["wrap-0"])))
            case "edge":
                return SignTls(role="server", transcript_hash=hashlib.sha256(text).digest())
            case _:
                return SignJwt(claims={"sub": name})

    async def change(
        self,
        name: str,
        command: Command,
        is_done: Callable[[KeyInfo | None], bool],
        key: str = "fresh",
    ) -> None:
        """After a lost answer a look tells whether it had its effect."""
        if name in self._held:
            return
        answer: Answer | None = None
        for _ in range(_TRIES_MAX):
            answer = await self._core.command(name, command, key=name)
            if isinstance(answer, Done) or is_done(await self.look(key)):
                return
        raise AssertionError(f"{name} is not done: {answer}")

    async def resume_if_stopped(self, name: str) -> None:
        """A run that was cut off may have left a key stopped, and a stopped key replays nothing."""
        key = await self.look(name)
        while key is not None and not _is("active")(key):
            await self._core.command(
                f"again:{name}", MoveVersion(name=name, move=Move.RESUME, reason="script")
            )
            key = await self.look(name)

    async def issue(self, name: str) -> None:
        """A handle whose answer was lost is nobody's: another one is asked for."""
        if f"issue:{name}" not in self._held:
            command = IssueHandle(key=name, principal="app")
            self._held[f"issue:{name}"] = await self._until_done(
                lambda: self._core.command(f"issue:{name}", command), name
            )

    async def revoke(self, name: str) -> None:
        """Revoked twice is a conflict, which says that it is revoked."""
        link = self._issued(name).link
        answer: Answer | None = None
        for _ in range(_TRIES_MAX):
            command = RevokeHandle(link=link, reason="lost")
            answer = await self._core.command(f"revoke:{name}", command, key=f"revoke:{name}")
            if isinstance(answer, Done) or answer.code == "conflict":
                return
        raise AssertionError(f"{name} is not revoked: {answer}")

    async def rollout(self, name: str) -> None:
        """A rotation as far as its canary, one use of the new version, and back."""
        await self.change(
            f"rotate:{name}",
            RotateKey(name=name, reason="script"),
            lambda key: key is not None and len(key.versions) > 1,
            key=name,
        )
        await self._canary(name)
        if f"{name}-1" not in self._held:  # what it signed is given to nobody once it is back
            await self.use(f"{name}-1")
        await self.change(
            f"back:{name}",
            SteerRollout(name=name, move="roll_back", reason="script"),
            lambda key: key is not None and key.versions[1].state == "suspended",
            key=name,
        )
        await self.use(f"{name}-2")

    async def _canary(self, name: str) -> None:
        """Rounds until it has come there: a checkpoint of new records comes after the change.

        Where there are none it is answered at once, and nothing says when the change is through.
        """
        for _ in range(_TRIES_MAX):
            await self._core.ask("tend", Tend)
            await self.checkpoint()
            key = await self.look(name)
            if key is not None and key.versions[1].state != "pre_activation":
                return
            await asyncio.sleep(_ROUND_S)
        raise AssertionError(f"the rollout of {name} does not move")

    async def checkpoint(self) -> None:
        """The tree head of all that is committed, as the steward asks for it."""
        await self._until_done(lambda: self._core.ask("checkpoint", Checkpoint), "checkpoint")

    async def look(self, name: str) -> KeyInfo | None:
        for _ in range(_TRIES_MAX):
            answer = await self._core.command(f"look:{name}", ShowKey(name=name))
            if isinstance(answer, Done):
                return msgspec.msgpack.decode(answer.result, type=KeyInfo)
            if answer.code == "not_found":
                return None
        raise AssertionError(f"nobody says whether there is a key {name}")

    async def _until_done(self, attempt: Callable[[], Awaitable[Answer]], name: str) -> Done:
        answer: Answer | None = None
        for _ in range(_TRIES_MAX):
            answer = await attempt()
            if isinstance(answer, Done):
                return answer
            if answer.code != _AGAIN:
                raise AssertionError(f"{name} was refused: {answer}")
        raise AssertionError(f"{name} was not answered: {answer}")


def operation_of(name: str) -> str:
    """The operation of a use, by its name in the script."""
    return {
        "ledger": "ledger.append",
        "firmware": "firmware.sign",
        "wrap": "data.wrap",
        "unwrap": "data.unwrap",
        "edge": "tls.sign",
    }.get(name.partition("-")[0], "jwt.sign")


def handle_name(name: str) -> str:
    """The handle that a use of this name comes by."""
    kind = name.partition("-")[0]
    return {"wrap": "data", "unwrap": "data"}.get(kind, kind)


def _wrapped(answer: Done) -> str:
    return msgspec.msgpack.decode(answer.result, type=WrapResult).wrapped


def _is(state: str) -> Callable[[KeyInfo | None], bool]:
    return lambda key: key is not None and key.versions[0].state == state


def _done(answer: Answer) -> Done:
    if not isinstance(answer, Done):
        raise TypeError(f"expected it to be done, met {answer}")
    return answer
