"""Commits on PostgreSQL: in how many round trips, what two nodes decide, and whose log it is."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import psycopg
import pytest

from keystead.errors import CommitContended, Conflict, LogUnavailable, StartupError
from keystead.ports import EpochRow, IdempotencyRow, ObjectRow, RecordRow
from keystead.store import postgres_journal
from keystead.store.postgres import Target
from keystead.store.postgres_journal import PostgresJournal
from keystead.store.postgres_transaction import Call, Result
from postgres import ROLE, PostgresServer


class CountingJournal(PostgresJournal):
    """Counts round trips."""

    trips = 0

    def _send(self, calls: Sequence[Call]) -> list[Result]:
        self.trips += 1
        return super()._send(calls)


def record(seq: int) -> RecordRow:
    leaf = b"leaf-%d" % seq
    return RecordRow(
        seq, 1, 1, "tls.sign", "ok", "k1", 1, "h1", "ann", "r1", b"b", b"s", b"e", leaf, "tls"
    )


def outcome(key: str) -> IdempotencyRow:
    return IdempotencyRow("h1", key, b"print", 0, None, b"receipt", 5_000)


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    made = postgres.migrated("a", "b")
    yield made
    postgres.drop(made)


@pytest.fixture
def journals(url: str) -> Iterator[tuple[CountingJournal, CountingJournal]]:
    with ExitStack() as opened:
        made = [CountingJournal(Target(url, name)) for name in "ab"]
        for journal in made:
            opened.callback(journal.close)
        yield made[0], made[1]


# --- round trips ---------------------------------------------------------------------------------


def test_a_commit_of_uses_takes_two_round_trips(
    journals: tuple[CountingJournal, CountingJournal],
) -> None:
    """However many there are."""
    journal, _ = journals
    for first, count in ((0, 1), (1, 100)):
        journal.trips = 0
        with journal.transaction("shared") as tx:
            tx.epoch()
            tx.append([record(seq) for seq in range(first, first + count)])
        assert journal.trips == 2


def test_what_is_expected_comes_with_the_first_round_trip(
    journals: tuple[CountingJournal, CountingJournal],
) -> None:
    """If it is said first, else with one more; and the first use of a budget takes one more."""
    journal, _ = journals
    for asks_first, trips in ((True, 3), (True, 2), (False, 3)):
        journal.trips = 0
        with journal.transaction("shared") as tx:
            if not asks_first:
                tx.epoch()
            keys = [("h1", f"i{trips}{asks_first}{at}") for at in range(50)]
            tx.expect(idempotent=keys, spent=["x", "y"], counters=[("k1", "a"), ("k1", "b")])
            tx.epoch()
            assert [tx.idempotent(*at) for at in keys] == [None] * 50
            if trips == 3 and asks_first:  # the committer keeps the counts from then on
                assert tx.idempotent_count("h1") == 0
            tx.put_spent({"x": tx.spent("x") + 1, "y": tx.spent("y") + 1})
            tx.put_counters({("k1", "a"): b"1", ("k1", "b"): b"1"})
            assert tx.counter("k1", "b") == b"1"
        assert journal.trips == trips


def test_a_transaction_without_work_sends_nothing(
    journals: tuple[CountingJournal, CountingJournal],
) -> None:
    journal, _ = journals
    with journal.transaction("shared"):
        pass
    assert journal.trips == 0


def test_a_change_of_many_objects_takes_a_few(
    journals: tuple[CountingJournal, CountingJournal],
) -> None:
    journal, _ = journals
    with journal.transaction() as tx:
        tx.epoch()
        for at in range(300):
            row = ObjectRow("key", f"k{at}", f"n{at}", 1, 1, b"doc", b"mac")
            tx.put_object(row, previous_revision=0)
        tx.set_epoch(EpochRow(1, b"root", b"mac"))
    assert journal.trips == 3


# --- two nodes at once ---------------------------------------------------------------------------


def test_shared_commits_run_beside_each_other(
    journals: tuple[CountingJournal, CountingJournal],
) -> None:
    """Both are open at once in one thread, so neither waits for the other."""
    one, other = journals
    with one.transaction("shared") as tx, other.transaction("shared") as beside:
        assert tx.epoch() == beside.epoch()
        tx.append([record(0)])
        beside.append([record(0)])


def test_an_idempotency_key_that_came_meanwhile_begins_the_commit_anew(
    journals: tuple[CountingJournal, CountingJournal],
) -> None:
    one, other = journals
    with pytest.raises(CommitContended), other.transaction("shared") as late:  # noqa: PT012  its end is what fails
        late.expect(idempotent=[("h1", "i1")], spent=[], counters=[])
        assert late.idempotent("h1", "i1") is None
        late.append([record(0)])
        late.put_idempotent([outcome("i1")])
        with one.transaction("shared") as tx:
            tx.put_idempotent([outcome("i1")])
    with other.transaction("shared") as anew:
        assert anew.last_sequence() == -1
        anew.expect(idempotent=[("h1", "i1")], spent=[], counters=[])
        assert anew.idempotent("h1", "i1") == outcome("i1")


def test_a_deadlock_begins_the_commit_anew(
    url: str, journals: tuple[CountingJournal, CountingJournal]
) -> None:
    """Made by a session that locks in the other order, as no node does, and waits for longer."""
    journal, _ = journals
    with journal.transaction() as tx:
        tx.put_spent({"x": 1, "y": 1})
    owner = psycopg.conninfo.make_conninfo(url, user="postgres")
    with psycopg.connect(owner) as session, ExitStack() as ending:
        session.execute("SET deadlock_timeout = '60s'")
        session.execute("SELECT uses FROM keystead.spent WHERE link = 'y' FOR UPDATE")
        with pytest.raises(CommitContended), journal.transaction("shared") as tx:  # noqa: PT012  its last read is what fails
            tx.expect(idempotent=[], spent=["x"], counters=[])
            session.pgconn.send_query(b"UPDATE keystead.spent SET uses = 9 WHERE link = 'x'")
            ending.callback(session.close)
            tx.expect(idempotent=[], spent=["y"], counters=[])


def test_an_object_that_another_node_changed_conflicts(
    journals: tuple[CountingJournal, CountingJournal],
) -> None:
    one, other = journals
    row = ObjectRow("key", "k1", "n1", 1, 1, b"doc", b"mac")
    with one.transaction() as tx:
        tx.put_object(row, previous_revision=0)
    with pytest.raises(Conflict, match="already"), other.transaction() as tx:
        tx.put_object(ObjectRow("key", "k2", "n1", 1, 1, b"doc", b"mac"), previous_revision=0)
    with pytest.raises(Conflict, match="n1 has changed meanwhile"), other.transaction() as tx:
        tx.put_object(row, previous_revision=7)


# --- whose log it is -----------------------------------------------------------------------------


def test_a_second_node_of_a_name_does_not_start(
    url: str,
    journals: tuple[CountingJournal, CountingJournal],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_journal, "_FIRST_LOCK_S", 0.2)
    with pytest.raises(StartupError, match="another node named a") as caught:
        PostgresJournal(Target(url, "a"))
    assert "--node" in caught.value.hint
    journals[0].close()
    PostgresJournal(Target(url, "a")).close()


def test_a_name_that_was_taken_meanwhile_stays_taken(
    url: str,
    journals: tuple[CountingJournal, CountingJournal],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who lost its session does not write beside the one that has its name now."""
    monkeypatch.setattr(postgres_journal, "_LATER_LOCK_S", 0.2)
    journal, _ = journals
    assert journal._session is not None  # noqa: SLF001  its connection is what is lost
    journal._session.close()  # noqa: SLF001  as above
    other = PostgresJournal(Target(url, "a"))
    with pytest.raises(LogUnavailable, match="another session writes to the log of a"):  # noqa: SIM117  its block is what fails
        with journal.transaction("shared") as tx:
            tx.append([record(0)])
    other.close()


def test_a_node_without_a_log_does_not_start(url: str) -> None:
    with pytest.raises(StartupError, match="no log of a node named 'c'"):
        PostgresJournal(Target(url, "c"))


def test_a_server_that_is_not_there_is_named(postgres: PostgresServer) -> None:
    with pytest.raises(StartupError, match="cannot open the database") as caught:
        PostgresJournal(Target(postgres.url("there_is_none"), "a"))
    assert "pg_hba.conf" in caught.value.hint


def test_durable_means_the_commit_whatever_the_roles_default_is(
    postgres: PostgresServer, url: str
) -> None:
    """And what a URL asks for is set again as well."""
    postgres.sql(f"ALTER ROLE {ROLE} SET synchronous_commit = off")
    try:
        journal = PostgresJournal(Target(f"{url}&options=-csynchronous_commit%3Doff", "a"))
        assert journal._session is not None  # noqa: SLF001  what it is set to
        found = journal._session.ask("SHOW synchronous_commit")  # noqa: SLF001  as above
        journal.close()
    finally:
        postgres.sql(f"ALTER ROLE {ROLE} RESET synchronous_commit")
    assert found == [("on",)]
