"""Every step of the commit, failed in both forms and cut off by a crash, on the real registry.

Not done and reported as failed; done and reported as failed; and the process gone, before the step
and after it. Afterwards everything is read again from the file (I2, I4, I6).
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from fault.crash.checker import Storage
from fault.crash.core import REGISTRY, left, make_folder
from fault.crash.everywhere import run
from fault.crash.gone import Case, CrashServer
from fault.crash.script import first_start, prepare
from fault.crash.verdict import check_folder
from keystead.errors import LogUnavailable
from keystead.net.system import SystemClock, SystemRandom
from keystead.ports import Transaction
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.testing.faulty_journal import FaultyJournal, Moment, Step, Trip, Trips, fail
from keystead.vault.start import DEPLOYMENT, record_gaps

SEED = 20
KILLED = -9
OUTSIDE = {Step.BEGIN, Step.COMMIT, Step.ANSWER}
"""Steps that are not methods of the transaction."""
FIRST_START = [
    Step.BEGIN,
    Step.PUT_META,
    Step.PUT_OBJECT,
    Step.PUT_HISTORY,
    Step.SET_EPOCH,
    Step.APPEND,
    Step.COMMIT,
]
ELSEWHERE = {Step.FORGET}
"""A record is a day old before it can be forgotten: see ``test_forgetting``."""
IN_A_RUN = [step for step in Step if step not in {Step.PUT_META, *ELSEWHERE}]
GAP = [Step.BEGIN, Step.EPOCH, Step.LAST_SEQUENCE, Step.APPEND, Step.PUT_RESERVATION, Step.COMMIT]
MOMENTS = pytest.mark.parametrize("moment", list(Moment), ids=str)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "deployment"
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def hits(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Counter[tuple[Step, Moment]]:
    """How often an undisturbed run is at each step."""
    folder = tmp_path_factory.mktemp("undisturbed") / "deployment"
    shutil.copytree(template, folder)
    trips = Trips()
    run(folder, trips)
    check_folder(folder, settled=True)
    return trips.hits


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "deployment"))


@pytest.fixture(scope="module")
def crashes() -> Iterator[CrashServer]:
    with CrashServer() as server:
        yield server


def check_run_again(folder: Path) -> None:
    """Whoever asks again gets what there is; a second run adds no use."""
    run(folder)
    check_folder(folder, settled=True)
    before = done(folder)
    run(folder)
    check_folder(folder, settled=True)
    assert done(folder) == before


def done(folder: Path) -> list[tuple[int, str]]:
    """Uses in storage, but for those that carry no idempotency key."""
    rows = Storage.read(folder / REGISTRY).rows
    return [(row.seq, row.request_id) for row in rows if row.done and row.op != "tls.sign"]


# --- the table of steps --------------------------------------------------------------------------


def test_the_steps_are_the_methods_of_the_port() -> None:
    methods = {name for name in vars(Transaction) if not name.startswith("_")}
    assert methods == {str(step) for step in Step} - OUTSIDE


def test_every_step_is_passed(hits: Counter[tuple[Step, Moment]], tmp_path: Path) -> None:
    first = Trips()
    make_folder(tmp_path / "empty")
    first_start(tmp_path / "empty", first)
    passed = {at for at, count in (hits + first.hits).items() if count}
    expected = set(Step) - ELSEWHERE
    assert passed == {(step, moment) for step in expected for moment in Moment}
    assert {step for step, _ in first.hits} == set(FIRST_START)


# --- in a run ------------------------------------------------------------------------------------


@MOMENTS
@pytest.mark.parametrize("step", IN_A_RUN, ids=str)
def test_a_step_that_fails(
    template: Path,
    tmp_path: Path,
    hits: Counter[tuple[Step, Moment]],
    step: Step,
    moment: Moment,
) -> None:
    """At its first and its last passing: the run goes on, and has one effect each."""
    count = hits[step, moment]
    if (step, moment) == (Step.ANSWER, Moment.AFTER):
        moment = Moment.BEFORE  # an answer that left cannot be called back
    for nth in sorted({1, count}):
        folder = Path(shutil.copytree(template, tmp_path / f"nth{nth}"))
        tripped: list[int] = []
        run(folder, Trips(Trip(step, moment, failing(tripped), nth)))
        assert tripped == [1]
        check_folder(folder, settled=True)
        run(folder)
        check_folder(folder, settled=True)


def failing(tripped: list[int]) -> Callable[[], None]:
    def do() -> None:
        tripped.append(1)
        fail()

    return do


@MOMENTS
@pytest.mark.parametrize("step", IN_A_RUN, ids=str)
def test_a_crash_at_a_step(
    folder: Path,
    hits: Counter[tuple[Step, Moment]],
    crashes: CrashServer,
    step: Step,
    moment: Moment,
) -> None:
    """At a seeded passing: what left is in storage, and the run can be made again to its end."""
    nth = Random(f"{SEED}/{step}/{moment}").randint(1, hits[step, moment])  # noqa: S311  a schedule
    case = Case(folder=str(folder), step=step, moment=moment, nth=nth)
    assert crashes.run(case) == KILLED
    check_folder(folder, settled=False)
    check_run_again(folder)


def test_crash_after_crash(folder: Path, crashes: CrashServer) -> None:
    """A deployment that is killed at its every commit, one further each time, comes to its end."""
    status, nth = KILLED, 0
    while status == KILLED:
        nth += 1
        case = Case(folder=str(folder), step=Step.COMMIT, moment=Moment.AFTER, nth=nth)
        status = crashes.run(case)
        check_folder(folder, settled=status == 0)
    assert status == 0
    assert nth > 5
    check_run_again(folder)


def test_a_crash_is_seen_by_the_check(folder: Path) -> None:
    """What would be wrong is found: a record, a key and a spent use are taken away."""
    run(folder)
    check_folder(folder, settled=True)
    for sql in (
        "DELETE FROM records WHERE seq = (SELECT max(seq) FROM records WHERE op = 'jwt.sign')",
        "DELETE FROM materials WHERE key_id IN (SELECT id FROM objects WHERE name = 'fresh')",
        "UPDATE spent SET uses = uses - 1",
        "DELETE FROM idempotency WHERE key = 'ledger-3'",
        "UPDATE records SET salt = zeroblob(16) WHERE op = 'firmware.sign'",
        "UPDATE counters SET value = CAST(zeroblob(32)||x'9201c0' AS BLOB) WHERE name = 'ledger'",
    ):
        altered = Path(shutil.copytree(folder, folder.with_name("altered")))
        journal = SqliteJournal(altered / REGISTRY)
        assert journal._connection.execute(sql).rowcount > 0  # noqa: SLF001  as whoever can write it
        journal.close()
        with pytest.raises(AssertionError, match=r"I2|I6|lost|budget|ledger|I10"):
            check_folder(altered, settled=True)
        shutil.rmtree(altered)


# --- at a start ----------------------------------------------------------------------------------


@MOMENTS
@pytest.mark.parametrize("step", FIRST_START, ids=str)
def test_a_first_start_that_fails(tmp_path: Path, step: Step, moment: Moment) -> None:
    """All of it is there, or nothing."""
    folder = tmp_path / "empty"
    make_folder(folder)
    with pytest.raises(LogUnavailable):
        first_start(folder, Trips(Trip(step, moment, fail)))
    check_first_start(folder, whole=(step, moment) == (Step.COMMIT, Moment.AFTER))


@MOMENTS
@pytest.mark.parametrize("step", FIRST_START, ids=str)
def test_a_crash_at_the_first_start(
    tmp_path: Path, crashes: CrashServer, step: Step, moment: Moment
) -> None:
    folder = tmp_path / "empty"
    make_folder(folder)
    case = Case(folder=str(folder), step=step, moment=moment, first=True)
    assert crashes.run(case) == KILLED
    check_first_start(folder, whole=(step, moment) == (Step.COMMIT, Moment.AFTER))


def check_first_start(folder: Path, *, whole: bool) -> None:
    registry = SqliteRegistry(folder / REGISTRY)
    try:
        assert (registry.meta(DEPLOYMENT) is not None) == whole
        assert (registry.epoch() is not None) == whole
        assert len(list(registry.objects())) == whole
        assert registry.last_sequence() == (0 if whole else -1)
    finally:
        registry.close()
    if not whole:
        first_start(folder, Trips())
        check_first_start(folder, whole=True)


@MOMENTS
@pytest.mark.parametrize("step", GAP, ids=str)
def test_a_gap_is_recorded_once(
    folder: Path, crashes: CrashServer, step: Step, moment: Moment
) -> None:
    """The start that records what a crash left may itself fail; the next one makes it good."""
    case = Case(folder=str(folder), step=Step.PUT_MATERIAL, moment=Moment.BEFORE)
    assert crashes.run(case) == KILLED
    registry, journal = SqliteRegistry(folder / REGISTRY), SqliteJournal(folder / REGISTRY)
    faulty = FaultyJournal(journal, Trips(Trip(step, moment, fail)))
    clock, random = SystemClock(), SystemRandom()
    try:
        (open_before,) = registry.reservations_open("node1")
        with pytest.raises(LogUnavailable):
            record_gaps(registry, faulty, epoch=1, node="node1", clock=clock, random=random)
        record_gaps(registry, journal, epoch=1, node="node1", clock=clock, random=random)
        assert not registry.reservations_open("node1")
    finally:
        registry.close()
        journal.close()
    gaps = [row for row in Storage.read(folder / REGISTRY).rows if row.op == "reservation.gap"]
    assert [row.request_id for row in gaps] == [open_before.id]
    check_folder(folder, settled=False)
    check_run_again(folder)


def test_a_crash_leaves_no_answer_without_its_file(folder: Path, crashes: CrashServer) -> None:
    """The harness itself: the first answer is a refusal, the second left, the third did not."""
    whole = len(left(folder))
    case = Case(folder=str(folder), step=Step.ANSWER, moment=Moment.BEFORE, nth=3)
    assert crashes.run(case) == KILLED
    assert len(left(folder)) == whole + 1
