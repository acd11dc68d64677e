"""Forgetting on the real registry, failed in both forms and cut off at every step of its commit.

Afterwards everything is read again from the files: a record without a body is named by an entry,
and what an entry names has no body.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from keystead.custody.locked import LockedBuffer
from keystead.custody.root import RootKey
from keystead.custody.software import SoftwareCustody
from keystead.frames.messages import Admin, Answer, Done, Refused
from keystead.keys.commands import ForgetRecords, Forgotten
from keystead.keys.forgetting import read_ranges
from keystead.ports import RecordRow
from keystead.store.migrate import migrate_sqlite
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.store.sqlite_search import SqliteLogReader
from keystead.testing.clocks import ManualClock, SeededRandom
from keystead.testing.faulty_journal import FaultyJournal, Moment, Step, Trip, Trips, fail
from keystead.translog.entries import Draft, decode_body, entry_of, leaf_hash
from keystead.vault.logbook import forget_again
from keystead.vault.macs import VaultSecrets
from keystead.vault.rows import record_row
from keystead.vault.start import found, initialise
from keystead.vault.wiring import Base, Services, wire

USES = 40
CHANGES = 3
WAIT_S = 10.0
DAY_MS = 24 * 3600 * 1000
STEPS = (Step.BEGIN, Step.LAST_SEQUENCE, Step.FORGET, Step.APPEND, Step.COMMIT)
MOMENTS = pytest.mark.parametrize("moment", list(Moment), ids=str)
BY_STEP = pytest.mark.parametrize("step", STEPS, ids=str)
COMMAND = ForgetRecords(principal="ann", reason="retention")
SECRETS = VaultSecrets(b"\1" * 32, b"\2" * 32, b"\3" * 32)


class Place:
    """A registry on disk, opened; of its uses every other one is ann's."""

    def __init__(self, path: Path, token: str = "") -> None:
        self.path = path
        self.clock = ManualClock()
        self.random = SeededRandom(5)
        self.registry, self.journal = SqliteRegistry(path), SqliteJournal(path)
        self.reader = SqliteLogReader(path)
        self.token = token

    def fill(self) -> None:
        self.token = initialise(
            self.journal,
            SECRETS,
            deployment="d1",
            sealed_root=b"sealed",
            node="n",
            clock=self.clock,
            random=self.random,
        )
        with self.journal.transaction() as tx:
            tx.append([self.row(1 + number) for number in range(USES)])
            tx.append([self.row(1 + USES + number, "key.move") for number in range(CHANGES)])

    def row(self, seq: int, op: str = "jwt.sign") -> RecordRow:
        draft = Draft(
            time_ms=self.clock.now_ms(),
            node="n",
            op=op,
            outcome="ok",
            request=f"r{seq}",
            handle="h1",
            principal="ann" if seq % 2 else "bob",
        )
        return record_row(seq, 1, draft, self.random.bytes(16))

    def rows(self) -> list[RecordRow]:
        return self.registry.records_from(0, 1_000)

    def close(self) -> None:
        for each in (self.reader, self.registry, self.journal):
            each.close()

    @asynccontextmanager
    async def serving(self, trips: Trips) -> AsyncIterator[Services]:
        root = RootKey(LockedBuffer.take(bytearray(b"\1" * 32)), self.random)
        services = wire(
            Base(
                registry=self.registry,
                journal=FaultyJournal(self.journal, trips),
                log_reader=self.reader,
                custody=SoftwareCustody(root, self.random),
                secrets=SECRETS,
                clock=self.clock,
                random=self.random,
                snapshot=found(self.registry, SECRETS),
                deployment="d1",
                node="n",
                protections={},
            )
        )
        services.committer.start()
        try:
            yield services
        finally:
            await services.close(orderly=False)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    migrate_sqlite(tmp_path / "registry.db")
    made = Place(tmp_path / "registry.db")
    made.fill()
    made.clock.advance(2 * DAY_MS)
    yield made
    made.close()


async def ask(services: Services, token: str) -> Answer:
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    request = Admin(1, token, msgspec.msgpack.encode(COMMAND))
    services.administration.begin(request, answered.set_result)
    return await asyncio.wait_for(answered, WAIT_S)


def forgotten_of(answer: Answer) -> int:
    assert isinstance(answer, Done), answer
    return msgspec.msgpack.decode(answer.result, type=Forgotten).count


def check_whole(rows: list[RecordRow], *, erased: bool) -> None:
    """Every entry stands, in its place; what is gone is what entries name, all of ann's or none."""
    assert [row.seq for row in rows] == list(range(len(rows)))
    named: set[int] = set()
    gone: set[int] = set()
    for row in rows:
        assert leaf_hash(row.entry) == row.leaf
        assert (row.body is None) == (row.salt is None)
        if row.body is None or row.salt is None:
            gone.add(row.seq)
            assert (row.handle_id, row.principal, row.request_id) == ("", "", "")
            continue
        assert entry_of(row.salt, row.body) == row.entry
        if row.op == "log.forget" and row.outcome == "ok":
            for first, last in read_ranges(decode_body(row.body).detail):
                named |= set(range(first, last + 1))
    assert gone == named
    assert gone == (set(range(1, USES + 1, 2)) if erased else set())


@MOMENTS
@BY_STEP
def test_a_step_that_fails(place: Place, step: Step, moment: Moment) -> None:
    """The erasure is there with its entry, or not at all; asked again, it is done."""
    applied = (step, moment) == (Step.COMMIT, Moment.AFTER)

    async def run() -> None:
        async with place.serving(Trips(Trip(step, moment, fail))) as services:
            answer = await ask(services, place.token)
            assert isinstance(answer, Refused), answer
            assert answer.code == "log_unavailable"
            check_whole(place.rows(), erased=applied)
            assert forgotten_of(await ask(services, place.token)) == (0 if applied else USES // 2)

    asyncio.run(run())
    check_whole(place.rows(), erased=True)


@MOMENTS
@BY_STEP
def test_a_crash_at_a_step(place: Place, tmp_path: Path, step: Step, moment: Moment) -> None:
    """What the files hold at that moment is whole, and the next start goes on from there."""
    crashed = tmp_path / "crashed.db"

    async def run() -> None:
        trips = Trips(Trip(step, moment, copying(place.path, crashed)))
        async with place.serving(trips) as services:
            assert forgotten_of(await ask(services, place.token)) == USES // 2

    asyncio.run(run())
    left = Place(crashed, place.token)
    applied = (step, moment) == (Step.COMMIT, Moment.AFTER)
    check_whole(left.rows(), erased=applied)
    assert forget_again(left.reader, left.journal) == 0
    left.clock.advance(2 * DAY_MS)

    async def go_on() -> None:
        async with left.serving(Trips()) as services:
            assert forgotten_of(await ask(services, left.token)) == (0 if applied else USES // 2)

    asyncio.run(go_on())
    check_whole(left.rows(), erased=True)
    left.close()


def copying(path: Path, copy: Path) -> Callable[[], None]:
    """What a process that is killed now would leave."""

    def do() -> None:
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")

    return do


def test_a_backup_from_before_is_forgotten_again(place: Place, tmp_path: Path) -> None:
    """The files of yesterday, and the records that were committed since."""
    yesterday = tmp_path / "yesterday.db"
    copying(place.path, yesterday)()

    async def run() -> None:
        async with place.serving(Trips()) as services:
            assert forgotten_of(await ask(services, place.token)) == USES // 2

    asyncio.run(run())
    since = [row for row in place.rows() if row.seq > USES + CHANGES]
    restored = Place(yesterday)
    with restored.journal.transaction() as tx:
        tx.append(since)
    assert restored.reader.forgotten_in([(0, USES)]) == 0
    assert forget_again(restored.reader, restored.journal) == USES // 2
    check_whole(restored.rows(), erased=True)
    assert restored.rows() == place.rows()
    assert forget_again(restored.reader, restored.journal) == 0
    restored.close()
