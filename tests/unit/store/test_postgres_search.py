"""Searches of the log on PostgreSQL: along one index whatever the planner thinks, and bounded."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keystead import limits
from keystead.errors import LogUnavailable
from keystead.ports import RecordRow, RecordsQuery
from keystead.store import postgres_search
from keystead.store.postgres import Session, Target
from keystead.store.postgres_journal import PostgresJournal
from keystead.store.postgres_search import PostgresLogReader
from keystead.testing.memory_store import MemoryStore
from postgres import PostgresServer

OPS = ("tls.sign", "jwt.sign", "key.move", "log.forget")
PLANNED = 40_000
"""So many that a plan over the wrong index would cost less by the planner's guess, if it could."""


def record(seq: int, **changes: object) -> RecordRow:
    row = RecordRow(
        seq,
        seq,
        1,
        "tls.sign",
        "ok",
        "k1",
        1,
        "h1",
        "ann",
        f"r{seq}",
        b"b",
        b"s",
        b"e",
        b"l",
        "tls",
    )
    return msgspec.structs.replace(row, **changes)


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> Iterator[str]:
    made = postgres.migrated("a", "b")
    yield made
    postgres.drop(made)


def append(url: str, rows: Sequence[RecordRow]) -> None:
    journal = PostgresJournal(Target(url, "a"))
    with journal.transaction() as tx:
        tx.append(rows)
    journal.close()


@pytest.fixture
def reader(url: str) -> Iterator[PostgresLogReader]:
    made = PostgresLogReader(Target(url, "a"))
    yield made
    made.close()


# --- plans ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planned(postgres: PostgresServer) -> Iterator[str]:
    """A log in which almost all is alike, with the planner's statistics of it."""
    made = postgres.migrated("a", "b")
    append(made, [record(seq) for seq in range(PLANNED)])
    with psycopg.connect(made, autocommit=True) as session:
        session.execute("ANALYZE keystead_log_a.records")
    yield made
    postgres.drop(made)


INDEXED = [
    (RecordsQuery(key_id="k1"), "records_by_key_id"),
    (RecordsQuery(key_id="k9"), "records_by_key_id"),
    (RecordsQuery(key_id="k1", version=2), "records_by_key_id"),
    (RecordsQuery(key_id="k1", outcome="ok", before=9), "records_by_key_id"),
    (RecordsQuery(key_id="k1", since_ms=1, until_ms=9), "records_by_key_id"),
    (RecordsQuery(handle_id="h1"), "records_by_handle_id"),
    (RecordsQuery(principal="ann"), "records_by_principal"),
    (RecordsQuery(request_id="r1"), "records_by_request_id"),
    (RecordsQuery(outcome="key_state"), "records_refused"),
    (RecordsQuery(outcome="key_state", op="tls.sign"), "records_refused"),
    (RecordsQuery(outcome="denied"), "records_denied"),
    (RecordsQuery(outcome="denied", principal="ann"), "records_denied"),
    (RecordsQuery(op="log.forget"), "records_by_change"),
    (RecordsQuery(op="key.move", outcome="ok", key_id="k1"), "records_by_change"),
    (RecordsQuery(), "records_pkey"),
    (RecordsQuery(since_ms=1, until_ms=9), "records_pkey"),
    (RecordsQuery(purpose="jwt"), "records_pkey"),
    (RecordsQuery(op="tls.sign"), "records_pkey"),
]


@pytest.mark.parametrize("oldest_first", [False, True], ids=["newest", "oldest"])
@pytest.mark.parametrize(("query", "index"), INDEXED, ids=str)
def test_each_question_runs_along_its_index(
    planned: str,
    monkeypatch: pytest.MonkeyPatch,
    query: RecordsQuery,
    index: str,
    *,
    oldest_first: bool,
) -> None:
    """In the order that is asked for, so that nothing is sorted and the limit ends it."""
    plans: list[str] = []
    ask = Session.ask

    def explaining(session: Session, statement: str, values: Sequence[object] = ()) -> Any:  # noqa: ANN401  as it is there
        if "FROM records WHERE" in statement:
            plan = ask(session, f"EXPLAIN {statement}", values)
            plans.append("\n".join(row[0] for row in plan))
        return ask(session, statement, values)

    monkeypatch.setattr(Session, "ask", explaining)
    query = msgspec.structs.replace(query, oldest_first=oldest_first)
    reader = PostgresLogReader(Target(planned, "a"))
    reader.search(query)
    reader.choose(query)
    reader.count(query, "outcome")
    reader.close()
    assert len(plans) >= 3
    for plan in plans:
        scans = re.findall(r"(\w[\w ]*Scan\b.*)", plan)
        used = [scan for scan in scans if "Subquery Scan" not in scan]
        assert len(used) == 1, plan
        assert f"using {index} " in used[0], plan
        assert "Sort" not in plan, plan


# --- bounds --------------------------------------------------------------------------------------


def test_a_search_that_finds_nothing_ends_somewhere(
    planned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_SCAN_ROWS_MAX", 100)
    reader = PostgresLogReader(Target(planned, "a"))
    for query in (RecordsQuery(purpose="jwt"), RecordsQuery(key_id="k1", version=9)):
        page = reader.search(query)
        first = PLANNED - 100
        assert (page.rows, page.reach.next, page.reach.end) == ([], first, False)
        onward = msgspec.structs.replace(query, before=first)
        assert reader.search(onward).reach.next == first - 100
        oldest = reader.search(msgspec.structs.replace(query, oldest_first=True))
        assert (oldest.reach.next, oldest.reach.end) == (99, False)
    reader.close()


def test_a_count_of_too_many_values_looks_at_fewer(planned: str) -> None:
    reader = PostgresLogReader(Target(planned, "a"))
    found = reader.count(RecordsQuery(op="tls.sign"), "hour")
    assert found.counts == {"0": PLANNED}
    append(planned, [record(PLANNED + at, handle_id=f"h{at}") for at in range(2_000)])
    found = reader.count(RecordsQuery(key_id="k1"), "handle")
    assert 0 < len(found.counts) <= limits.LIST_ITEMS_MAX
    assert not found.reach.end
    reader.close()


# --- the same as a plain implementation ----------------------------------------------------------


ROWS = st.builds(
    record,
    st.just(0),
    time_ms=st.integers(0, 20),
    op=st.sampled_from(OPS),
    outcome=st.sampled_from(["ok", "key_state", "handle_revoked"]),
    key_id=st.sampled_from(["", "k1", "k2"]),
    version=st.integers(0, 2),
    handle_id=st.sampled_from(["", "h1", "h2"]),
    principal=st.sampled_from(["", "ann", "bob"]),
    request_id=st.sampled_from(["", "r1", "r2"]),
    purpose=st.sampled_from(["", "tls", "jwt"]),
)
QUERIES = st.builds(
    RecordsQuery,
    key_id=st.sampled_from([None, None, "k1", "k9"]),
    version=st.sampled_from([None, None, 1]),
    purpose=st.sampled_from([None, None, "tls"]),
    handle_id=st.sampled_from([None, None, "h1"]),
    principal=st.sampled_from([None, None, "ann", ""]),
    op=st.sampled_from([None, None, *OPS]),
    ops=st.sampled_from([None, None, (), OPS[:2]]),
    outcome=st.sampled_from([None, None, "ok", "denied", "key_state"]),
    request_id=st.sampled_from([None, None, None, "r1"]),
    kept=st.sampled_from([None, None, True, False]),
    since_ms=st.sampled_from([None, None, 5]),
    until_ms=st.sampled_from([None, None, 15]),
    after=st.sampled_from([None, None, 3]),
    before=st.sampled_from([None, None, 20]),
    oldest_first=st.booleans(),
    limit=st.integers(1, 5),
)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=st.lists(ROWS, max_size=25), queries=st.lists(QUERIES, min_size=5, max_size=5))
def test_it_finds_what_a_plain_implementation_does(
    url: str, reader: PostgresLogReader, rows: list[RecordRow], queries: list[RecordsQuery]
) -> None:
    rows = [msgspec.structs.replace(row, seq=at) for at, row in enumerate(rows)]
    memory = MemoryStore()
    with psycopg.connect(url) as session:
        session.execute("TRUNCATE keystead_log_a.records, keystead_log_a.log_blocks")
    journal = PostgresJournal(Target(url, "a"))
    for store in (memory, journal):
        with store.transaction() as tx:
            tx.append(rows)
            tx.forget([(2, 3), (11, 12)], list(OPS))
    journal.close()
    for query in queries:
        assert reader.search(query).rows == memory.search(query).rows, query
        assert reader.count(query, "key").counts == memory.count(query, "key").counts, query
        assert reader.choose(query) == memory.choose(query), query


# --- sessions ------------------------------------------------------------------------------------


def test_a_session_that_was_lost_is_made_again(reader: PostgresLogReader) -> None:
    append_one = reader.search(RecordsQuery())
    for _, session in reader._sessions._idle:  # noqa: SLF001  what is lost
        session.close()
    assert reader.search(RecordsQuery()) == append_one


def test_searches_that_do_not_end_are_waited_for_in_vain(
    reader: PostgresLogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_search, "_SEARCH_S", 0.1)
    taken = [reader._sessions._room.acquire() for _ in range(limits.LOG_SEARCH_THREADS)]  # noqa: SLF001  as searches do
    with pytest.raises(LogUnavailable, match="do not end"):
        reader.search(RecordsQuery())
    for _ in taken:
        reader._sessions._room.release()  # noqa: SLF001  as above


def test_a_log_that_is_gone_is_no_other_node(url: str, reader: PostgresLogReader) -> None:
    """And a search in it fails as any that fails."""
    other = reader.others()["b"]
    with psycopg.connect(url) as session:
        session.execute("ALTER SCHEMA keystead_log_b RENAME TO put_away")
    try:
        assert reader.others() == {}
        with pytest.raises(LogUnavailable):
            other.search(RecordsQuery())
    finally:
        with psycopg.connect(url) as session:
            session.execute("ALTER SCHEMA put_away RENAME TO keystead_log_b")
    assert list(reader.others()) == ["b"]
