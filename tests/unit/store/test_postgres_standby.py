"""A record is durable where the servers are two: on both, or it is not answered."""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from keystead.errors import LogUnavailable, StartupError
from keystead.ports import RecordRow
from keystead.store import postgres_journal
from keystead.store.opening import open_store
from keystead.store.postgres import Target
from keystead.store.postgres_journal import PostgresJournal
from postgres import PostgresServer, postgres_server

SOON_S = 30.0
MONITORS = "GRANT pg_monitor TO keystead"


@pytest.fixture(scope="module")
def primary(postgres: PostgresServer) -> Iterator[PostgresServer]:  # noqa: ARG001  skips where there is none
    with postgres_server() as made:
        yield made


@pytest.fixture(scope="module")
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """It follows the primary, and does not hold it up by itself."""
    folder = Path(tempfile.mkdtemp(prefix="keystead-pg-"))
    made = PostgresServer(folder)
    try:
        made.follow(primary)
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(primary: PostgresServer) -> Iterator[str]:
    made = primary.migrated("a")
    yield made
    synchronous(primary, None)
    primary.drop(made)


def synchronous(server: PostgresServer, names: str | None) -> None:
    """Set which standbys a commit waits for, and wait until the server goes by it."""
    if names is None:
        server.sql("ALTER SYSTEM RESET synchronous_standby_names")
    else:
        server.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    server.sql("SELECT pg_reload_conf()")
    until = time.monotonic() + SOON_S
    while time.monotonic() < until:
        if server.sql("SHOW synchronous_standby_names") == [(names or "",)]:
            return
        time.sleep(0.05)


def standby_is(server: PostgresServer, state: str) -> None:
    """Wait until its standby is, as the server says it."""
    until = time.monotonic() + SOON_S
    while time.monotonic() < until:
        if server.sql("SELECT sync_state FROM pg_stat_replication") == [(state,)]:
            return
        time.sleep(0.05)
    raise AssertionError(f"expected a standby that is {state}")


def append(journal: PostgresJournal) -> None:
    with journal.transaction("shared") as tx:
        seq = tx.last_sequence() + 1
        leaf = b"leaf-%d" % seq
        row = RecordRow(
            seq, 1, 1, "tls.sign", "ok", "k", 1, "h", "ann", "r", b"b", b"s", b"e", leaf
        )
        tx.append([row])


def test_a_wait_for_a_standby_that_is_cancelled_is_no_commit(
    primary: PostgresServer, url: str
) -> None:
    """The server says COMMIT and warns: the record is on one disk only, so nobody is answered."""
    journal = PostgresJournal(Target(url, "a"))
    append(journal)
    synchronous(primary, "nobody")
    failed: list[str] = []

    def commit() -> None:
        try:
            append(journal)
        except LogUnavailable as exc:
            failed.append(exc.message)

    committing = threading.Thread(target=commit)
    committing.start()
    until = time.monotonic() + SOON_S
    while committing.is_alive() and time.monotonic() < until:
        primary.sql(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        )
        time.sleep(0.05)
    committing.join(SOON_S)
    assert len(failed) == 1
    assert "one server only" in failed[0]
    synchronous(primary, None)
    append(journal)
    journal.close()


def test_a_commit_waits_for_a_standby_no_longer_than_it_may(
    primary: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_journal, "COMMIT_S", 1.0)
    journal = PostgresJournal(Target(url, "a"))
    synchronous(primary, "nobody")
    with pytest.raises(LogUnavailable, match="did not answer in time"):
        append(journal)
    synchronous(primary, None)
    until = time.monotonic() + SOON_S
    done = False
    while not done and time.monotonic() < until:
        with suppress(LogUnavailable):
            append(journal)
            done = True
    assert done
    journal.close()


def test_a_standby_that_may_lack_records_is_refused_or_accepted(
    primary: PostgresServer, standby: PostgresServer, url: str
) -> None:
    del standby
    standby_is(primary, "async")
    with pytest.raises(StartupError, match="asynchronous standby") as caught:
        open_store(url, "a")
    assert "synchronous_standby_names" in caught.value.hint
    store = open_store(url, "a", allow_async_standby=True)
    assert "a fail-over loses the newest records" in store.protection()
    store.close()


def test_a_synchronous_standby_is_taken(
    primary: PostgresServer, standby: PostgresServer, url: str
) -> None:
    """Also by a role that may not see which one it is."""
    del standby
    synchronous(primary, "standby")
    standby_is(primary, "sync")
    store = open_store(url, "a")
    assert "synchronous_standby_names = standby" in store.protection()
    store.close()
    primary.sql(MONITORS)
    store = open_store(url, "a")
    assert "1 synchronous standby(s)" in store.protection()
    store.close()


def test_a_server_that_waits_no_more_is_noticed(
    primary: PostgresServer, standby: PostgresServer, url: str
) -> None:
    """While the node runs: by the first commit some seconds later."""
    del standby
    synchronous(primary, "standby")
    standby_is(primary, "sync")
    now_s = [0.0]
    journal = PostgresJournal(Target(url, "a"), lambda: time.monotonic() + now_s[0])
    append(journal)
    synchronous(primary, None)
    now_s[0] = 100.0
    with pytest.raises(LogUnavailable, match="asynchronous standby"):
        append(journal)
    synchronous(primary, "standby")
    append(journal)
    journal.close()


def test_a_standby_is_no_primary(standby: PostgresServer, url: str) -> None:
    name = url.partition("?")[0].rpartition("/")[2]
    with pytest.raises(StartupError, match="cannot open the database"):
        PostgresJournal(Target(standby.url(name), "a"))
