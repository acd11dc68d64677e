"""Which database a node is given, and what is not taken."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from keystead.errors import StartupError
from keystead.ports import EpochRow
from keystead.store.opening import (
    check_database,
    is_server,
    migrate,
    open_registry,
    open_store,
)
from postgres import PostgresServer


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    made = postgres.migrated("a", "b")
    yield made
    postgres.drop(made)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://db.internal/keystead",
        "postgres://keystead@db.internal:5433/keystead?sslmode=verify-full",
        "postgresql:///keystead?host=/run/postgresql&passfile=/etc/keystead/pgpass",
        "postgresql://one,two/keystead",
    ],
)
def test_a_url_without_a_password_is_taken(text: str) -> None:
    assert is_server(text)
    assert check_database(text) == text


@pytest.mark.parametrize("text", ["registry.db", "data/registry.db", "/var/lib/k/registry.db"])
def test_a_path_is_taken(text: str) -> None:
    assert not is_server(text)
    assert check_database(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann:hunter2@db.internal/keystead",
        "postgresql://db.internal/keystead?user=ann&password=hunter2",
        "postgresql://db.internal/keystead?sslpassword=hunter2",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(StartupError, match="holds a password") as caught:
        check_database(text)
    assert "hunter2" not in str(caught.value)
    assert "PGPASSFILE" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mysql://db.internal/keystead", "mysql:// is none of Keystead's"),
        ("postgresql://db.internal/keystead?hunter2", "does not parse"),
        ("postgresql://db.internal:hunter2", "cannot open"),
    ],
)
def test_another_url_is_refused(text: str, said: str) -> None:
    with pytest.raises(StartupError, match=said):
        migrate(check_database(text), "a")


def test_a_file_is_opened(tmp_path: Path) -> None:
    path = str(tmp_path / "registry.db")
    migrate(path, "a")
    store = open_store(path, "a")
    assert store.watch is None
    assert store.protection().startswith("sqlite")
    with store.journal.transaction() as tx:
        tx.set_epoch(EpochRow(1, b"root", b"mac"))
    with closing(open_registry(path, "a")) as registry:
        assert registry.epoch() == EpochRow(1, b"root", b"mac")
    store.close()


def test_a_server_is_opened(url: str) -> None:
    store = open_store(url, "a")
    assert store.protection().startswith("postgresql")
    with store.journal.transaction() as tx:
        tx.set_epoch(EpochRow(1, b"root", b"mac"))
    assert store.watch is not None
    assert store.watch.wait(0.01) == 1
    with closing(open_registry(url, "b")) as registry:
        assert registry.epoch() == EpochRow(1, b"root", b"mac")
    store.close()


def test_a_node_without_a_log_is_not_opened(url: str) -> None:
    for opened in (open_store, open_registry):
        with pytest.raises(StartupError, match="no log of a node named 'c'"):
            opened(url, "c")
