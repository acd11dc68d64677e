"""What fails on the way to PostgreSQL: each call ends in time, and goes on when the server does."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from signal import SIGCONT, SIGINT, SIGQUIT, SIGSTOP

import psycopg
import pytest

from keystead.errors import LogUnavailable, StateRolledBack
from keystead.ports import EpochRow, RecordRow, RecordsQuery
from keystead.store import postgres_journal
from keystead.store.opening import Store, open_store
from keystead.store.postgres import IDLE_IN_TRANSACTION_S, LOCK_WAIT_S
from postgres import PostgresMissing, PostgresServer, postgres_server

SOON_S = 20.0
"""Until what has failed is back; machines that run tests are busy."""
SLEEPER = """
import sys
from keystead.errors import LogUnavailable, StateRolledBack
from keystead.store.postgres import Target
from keystead.store.postgres_journal import PostgresJournal

journal = PostgresJournal(Target(sys.argv[1], "b"))
try:
    with journal.transaction("shared") as tx:
        print("in", tx.last_sequence(), flush=True)
        sys.stdin.readline()
        tx.put_spent({"x": 1})
    print("committed", flush=True)
except LogUnavailable as exc:
    print("refused", exc.message, flush=True)
"""


@pytest.fixture(scope="module")
def server(postgres: PostgresServer) -> Iterator[PostgresServer]:  # noqa: ARG001  skips where there is none
    """One of this file's own, as its tests stop it."""
    try:
        with postgres_server() as made:
            yield made
    except PostgresMissing as exc:
        pytest.skip(str(exc))


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    made = server.migrated("a", "b", tcp=True)
    yield made
    server.drop(made)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with ExitStack() as opened:
        made = open_store(url, "a")
        opened.callback(made.close)
        yield made


def record(seq: int) -> RecordRow:
    leaf = b"leaf-%d" % seq
    return RecordRow(
        seq, 1, 1, "tls.sign", "ok", "k1", 1, "h1", "ann", "r1", b"b", b"s", b"e", leaf, "tls"
    )


def append(store: Store) -> int:
    """Commit a record after the last one."""
    with store.journal.transaction("shared") as tx:
        seq = tx.last_sequence() + 1
        tx.append([record(seq)])
    return seq


def took_s(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def fails(call: Callable[[], object]) -> float:
    """How long it takes to fail as it should."""
    began = time.monotonic()
    with pytest.raises(LogUnavailable) as caught:
        call()
    assert caught.value.hint
    return time.monotonic() - began


def again(call: Callable[[], object]) -> None:
    """Call until it works."""
    until = time.monotonic() + SOON_S
    while time.monotonic() < until:
        with suppress(LogUnavailable):
            call()
            return
        time.sleep(0.05)
    call()


# --- the server ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [SIGINT, SIGQUIT], ids=["stop", "crash"])
def test_a_restart_goes_unnoticed(server: PostgresServer, store: Store, number: int) -> None:
    """By whoever asks nothing meanwhile: sessions that were lost while idle are made again."""
    first = append(store)
    assert store.watch is not None
    store.watch.wait(0.01)
    server.stop(number)
    server.start()
    assert append(store) == first + 1
    assert store.registry.last_sequence() == first + 1
    assert len(store.log_reader.search(RecordsQuery()).rows) == first + 2
    again(lambda: store.watch.wait(0.01) if store.watch else None)


def test_a_server_that_is_gone_fails_fast_and_comes_back(
    server: PostgresServer, store: Store
) -> None:
    assert store.watch is not None
    store.watch.wait(0.01)
    calls: list[Callable[[], object]] = [
        lambda: append(store),
        store.registry.last_sequence,
        lambda: store.log_reader.search(RecordsQuery()),
        lambda: store.watch.wait(0.01) if store.watch else None,
    ]
    last = append(store)
    server.kill()
    try:
        for call in calls:
            fails(call)
        # The last try was a moment ago: nobody waits for another.
        assert min(fails(store.registry.last_sequence) for _ in range(3)) < 0.2
        assert min(fails(calls[0]) for _ in range(3)) < 0.2
    finally:
        server.start()
    for call in calls:
        again(call)
    assert store.registry.record_of("a", last) == record(last)


def test_a_server_that_does_not_answer_holds_nobody_up(
    server: PostgresServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is suspended: connections stay, and the network says nothing is wrong."""
    monkeypatch.setattr(postgres_journal, "COMMIT_S", 2.0)
    assert store.watch is not None
    last = append(store)
    store.watch.wait(0.01)
    store.log_reader.search(RecordsQuery())
    server.suspend()
    try:
        assert 0.5 < fails(store.registry.last_sequence) < 5  # a second
        assert fails(store.registry.last_sequence) < 5
        assert 1 < fails(lambda: append(store)) < 8
        assert fails(lambda: append(store)) < 8
        assert fails(lambda: store.watch.wait(0.01) if store.watch else None) < 8
    finally:
        server.resume()
    again(lambda: append(store))
    again(store.registry.last_sequence)
    assert store.registry.last_sequence() > last
    rows = store.registry.records_from(0, 100)
    assert [row.seq for row in rows] == list(range(len(rows)))


def test_a_commit_whose_answer_was_lost_is_found_again(
    server: PostgresServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has it, and carries it out when it goes on; the next commit sees what it did."""
    monkeypatch.setattr(postgres_journal, "COMMIT_S", 1.0)
    append(store)

    def lost() -> None:
        with store.journal.transaction("shared") as tx:
            tx.append([record(tx.last_sequence() + 1)])
            server.suspend()

    try:
        fails(lost)
    finally:
        server.resume()
    again(lambda: append(store))
    seqs = [row.seq for row in store.registry.records_from(0, 100)]
    assert seqs == list(range(len(seqs)))
    assert len(seqs) in (2, 3)


# --- a node that sleeps --------------------------------------------------------------------------


def change(store: Store) -> None:
    with store.journal.transaction("exclusive") as tx:
        tx.set_epoch(EpochRow(tx.epoch().epoch + 1, b"root", b"mac"))


@pytest.fixture
def sleeper(url: str) -> Iterator[subprocess.Popen[str]]:
    """Node b, in the midst of a commit that holds the fence beside others."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in -1\n"
    yield process
    with suppress(ProcessLookupError):
        process.send_signal(SIGCONT)
        process.kill()
    process.communicate()


def test_a_suspended_node_holds_up_a_revocation_for_seconds_only(
    store: Store, sleeper: subprocess.Popen[str]
) -> None:
    """The server ends its session; when it wakes up its commit fails, and nothing is applied."""
    sleeper.send_signal(SIGSTOP)
    assert took_s(lambda: change(store)) < IDLE_IN_TRANSACTION_S + SOON_S
    epoch = store.registry.epoch()
    assert epoch is not None
    assert epoch.epoch == 1
    sleeper.send_signal(SIGCONT)
    said, _ = sleeper.communicate("go on\n", timeout=SOON_S)
    assert said.startswith("refused")
    assert store.registry.spent("x") == 0


def test_a_node_that_goes_on_in_time_commits(store: Store, sleeper: subprocess.Popen[str]) -> None:
    """The change waits for it: its use stands before."""
    said, _ = sleeper.communicate("go on\n", timeout=SOON_S)
    assert said == "committed\n"
    change(store)
    assert store.registry.spent("x") == 1


def test_a_killed_node_holds_nothing(store: Store, sleeper: subprocess.Popen[str]) -> None:
    sleeper.kill()
    sleeper.wait()
    assert took_s(lambda: change(store)) < LOCK_WAIT_S + SOON_S


def test_a_node_that_fell_asleep_while_it_sent_is_ended(url: str, store: Store) -> None:
    """No limit of the server's sees it: the statements' end was never said, so none is idle."""
    fence = postgres_journal._TAKE_FENCE["shared"]  # noqa: SLF001  what a node sends
    with psycopg.connect(url, autocommit=True) as asleep:
        asleep.execute("SET idle_in_transaction_session_timeout = '2s'")
        asleep.pgconn.enter_pipeline_mode()
        for statement in (b"BEGIN", fence):
            asleep.pgconn.send_query_params(statement, None)
        asleep.pgconn.send_flush_request()
        while asleep.pgconn.flush():
            pass
        time.sleep(IDLE_IN_TRANSACTION_S + 0.5)
        assert took_s(lambda: change(store)) < LOCK_WAIT_S + SOON_S
        asleep.close()


def test_a_change_that_waits_is_not_overtaken(url: str) -> None:
    """Uses that come after it wait behind it, however many nodes keep committing them."""
    fence = postgres_journal._TAKE_FENCE  # noqa: SLF001  as above
    order: list[str] = []

    def take(name: str, lock: bytes) -> None:
        with psycopg.connect(url) as session:
            session.execute(lock)
            order.append(name)

    change = threading.Thread(target=take, args=("change", fence["exclusive"]))
    late = threading.Thread(target=take, args=("late use", fence["shared"]))
    with psycopg.connect(url) as using:
        using.execute(fence["shared"])
        change.start()
        wait_for_waiting(url, 1)
        late.start()
        wait_for_waiting(url, 2)
        assert order == []
    for thread in (change, late):
        thread.join(SOON_S)
    assert order == ["change", "late use"]


def wait_for_waiting(url: str, count: int) -> None:
    """Until so many sessions wait for the fence."""
    sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(url, autocommit=True) as session:
        until = time.monotonic() + SOON_S
        while time.monotonic() < until:
            row = session.execute(sql).fetchone()
            if row == (count,):
                return
            time.sleep(0.02)
    raise AssertionError(f"expected {count} that wait")


def test_a_server_that_lost_records_is_no_server_to_go_on_with(
    server: PostgresServer, store: Store, url: str
) -> None:
    """As after a fail-over to a standby that was behind (I10)."""
    for _ in range(4):
        append(store)
    database = url.rpartition("/")[2].partition("?")[0]
    server.sql('DELETE FROM "keystead_log_a".records WHERE seq >= 2', database)
    server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"  # noqa: S608  a name of our own making
        f" WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    )
    for _ in range(2):  # nor does it believe it at the second look
        with pytest.raises(StateRolledBack, match="ends at record 1, and record 3"):
            again(lambda: append(store))
