"""The whole vault but its socket, in this process, on a real registry that can be made to fail.

It is the composition root's own vault: only the journal is wrapped. What clients hold is a file
that an answer is written to as it leaves, so that it outlives a crash of this process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from keystead import app
from keystead.custody.software import SoftwareCustody
from keystead.errors import LogUnavailable
from keystead.frames.messages import Admin, Answer, Done, Refused, Request
from keystead.keys.commands import Command
from keystead.net.system import SystemClock, SystemRandom
from keystead.ports import Clock
from keystead.store.migrate import migrate_sqlite
from keystead.testing.faulty_journal import FaultyJournal, Moment, Step, Trips
from keystead.vault.wiring import Services, wire

__all__ = ["REGISTRY", "Core", "Left", "left", "make_folder", "opened_core"]

REGISTRY = "registry.db"
_ANSWERS = "answers"
_TOKEN = "operator.token"
_ANSWERED_WITHIN_S = 20.0


class Left(msgspec.Struct, frozen=True):
    """An answer that left the vault, under the name its request has in the script."""

    name: str
    answer: Answer


class Core:
    """Requests in, answers out; each answer is in the clients' file before anyone acts on it."""

    def __init__(self, folder: Path, vault: Services, trips: Trips, token: str) -> None:
        self.folder = folder
        self._vault = vault
        self._trips = trips
        self._token = token
        self._loop = asyncio.get_running_loop()
        self._ids = 0

    async def ask(self, name: str, make: Callable[[int], Request]) -> Answer:
        """Send one request; what is lost on the way comes back as the front would say it."""
        done: asyncio.Future[Answer] = self._loop.create_future()
        self._ids += 1
        request = make(self._ids)

        def reply(answer: Answer) -> None:
            try:
                self._trips.at(Step.ANSWER, Moment.BEFORE)
            except LogUnavailable as exc:
                answer = Refused(answer.id, "log_unavailable", exc.message)
            if isinstance(answer, Done):
                _leave(self.folder, Left(name, answer))
            self._trips.at(Step.ANSWER, Moment.AFTER)
            if not done.done():
                done.set_result(answer)

        self._vault.service.begin(request, reply)
        return await asyncio.wait_for(done, _ANSWERED_WITHIN_S)

    async def follow(self) -> None:
        """Hear of the epoch that another node has moved; gives once this one has confirmed it."""
        following = self._vault.following
        if following is None:
            raise AssertionError("the vault believes to be alone")
        before = self._vault.standing.snapshot.epoch
        while following.confirmed <= before:  # a step on the way may have failed
            following.moved(before + 1)
            await asyncio.sleep(0.01)

    async def command(self, name: str, command: Command, key: str | None = None) -> Answer:
        """Ask as the operator, under an idempotency key if there is one."""
        body = msgspec.msgpack.encode(command)
        return await self.ask(name, lambda number: Admin(number, self._token, body, key))


class Told:
    """An ``EpochWatch`` without a thread: the script says when there is news."""

    def wait(self, timeout_s: float) -> int:
        raise NotImplementedError("nobody waits for news here")

    def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def opened_core(
    folder: Path, trips: Trips | None = None, *, node: str = "node1", clock: Clock | None = None
) -> AsyncIterator[Core]:
    """Start the vault on what the folder holds; end it in the order of the real process.

    ``clock``: one that a test moves, in place of the system's.
    """
    trips = trips or Trips()
    config = app.VaultConfig(
        database=str(folder / REGISTRY),
        seal_file=str(folder / "seal.key"),
        socket="",
        node=node,
        token_file=str(folder / _TOKEN),
    )
    random = SystemRandom()
    opened = app._open_deployment(config, SystemClock(), random)  # noqa: SLF001  the real start is under test
    faulty = FaultyJournal(opened.store.journal, trips)
    custody = SoftwareCustody(opened.root, random)
    base = app._base(config, opened, custody, {})  # noqa: SLF001  as above
    base = msgspec.structs.replace(base, journal=faulty, watch=Told())
    if clock is not None:
        base = msgspec.structs.replace(base, clock=clock)
    vault = wire(base)
    vault.committer.start()
    try:
        yield Core(folder, vault, trips, (folder / _TOKEN).read_text().strip())
    finally:
        await vault.close()
        custody.close()
        opened.store.close()


def make_folder(folder: Path) -> None:
    """An empty registry, as the node's migration leaves it."""
    folder.mkdir()
    migrate_sqlite(folder / REGISTRY)


def left(folder: Path) -> list[Left]:
    """Every answer that left, in order, whatever became of the process."""
    path = folder / _ANSWERS
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [
        Left(name, msgspec.msgpack.decode(bytes.fromhex(text), type=Done))
        for name, text in (line.decode().split(" ") for line in lines)
    ]


def _leave(folder: Path, item: Left) -> None:
    line = f"{item.name} {msgspec.msgpack.encode(item.answer).hex()}\n".encode()
    handle = os.open(folder / _ANSWERS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)
