"""Whoever writes the database: a forged, swapped, missing or old row is refused (I10)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from integration.node import Node
from keystead.client import Client

UNAVAILABLE = 3


@pytest.fixture
def stopped(tmp_path: Path) -> Node:
    node = Node(tmp_path / "data")
    with node, node.client() as client:
        client.create_key("one", "tls")
        client.create_key("two", "tls")
    return node


@pytest.fixture
def rows(stopped: Node) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(stopped.data / "registry.db", isolation_level=None)) as connection:
        yield connection


def key_rows(rows: sqlite3.Connection) -> dict[str, tuple[Any, ...]]:
    found = rows.execute(
        "SELECT name, id, revision, epoch, doc, mac FROM objects WHERE kind='key'"
        " AND name IN ('one', 'two')"
    )
    return {row[0]: row for row in found}


def check_refused(node: Node, message: str) -> None:
    status, said = node.refusal()
    assert status == UNAVAILABLE
    assert message in said["error"]
    assert "backup" in said["hint"]


def check_whole(node: Node) -> None:
    with node, node.client() as client:
        assert [key.name for key in client.list_keys(tenant="default")] == ["one", "two"]


def test_forged_row(stopped: Node, rows: sqlite3.Connection) -> None:
    doc = key_rows(rows)["one"][4]
    forged = doc.replace(b"default", b"defaulx")
    assert forged != doc
    rows.execute("UPDATE objects SET doc = ? WHERE name = 'one'", (forged,))
    check_refused(stopped, "forged, altered or swapped")
    rows.execute("UPDATE objects SET doc = ? WHERE name = 'one'", (doc,))
    check_whole(stopped)


def test_swapped_rows(stopped: Node, rows: sqlite3.Connection) -> None:
    before = key_rows(rows)
    for name, other in (("one", "two"), ("two", "one")):
        rows.execute(
            "UPDATE objects SET doc = ?, mac = ? WHERE name = ?",
            (before[other][4], before[other][5], name),
        )
    check_refused(stopped, "forged, altered or swapped")


def test_old_row_put_back(stopped: Node, rows: sqlite3.Connection) -> None:
    before = key_rows(rows)["one"]
    with stopped, stopped.client() as client:
        client.move_version("one", "suspend", reason="an incident")
    after = key_rows(rows)["one"]
    restore = "UPDATE objects SET revision=?, epoch=?, doc=?, mac=? WHERE name='one'"
    rows.execute(restore, before[2:])
    check_refused(stopped, "an older one put back")
    rows.execute(restore, after[2:])
    with stopped, stopped.client() as client:
        assert client.show_key("one").versions[0].state == "suspended"


def test_removed_row(stopped: Node, rows: sqlite3.Connection) -> None:
    rows.execute("DELETE FROM objects WHERE name = 'one'")
    check_refused(stopped, "one was removed")


def test_forged_epoch(stopped: Node, rows: sqlite3.Connection) -> None:
    rows.execute("UPDATE epoch SET epoch = epoch + 1")
    check_refused(stopped, "epoch row was altered")


def test_removed_epoch(stopped: Node, rows: sqlite3.Connection) -> None:
    rows.execute("DELETE FROM epoch")
    check_refused(stopped, "epoch")


def test_operator_of_someone_elses_making(stopped: Node, rows: sqlite3.Connection) -> None:
    """A writer of the database cannot make themselves an operator."""
    rows.execute(
        "INSERT INTO objects SELECT kind, 'mallory', 'mallory', revision, epoch, doc, mac"
        " FROM objects WHERE kind = 'credential'"
    )
    check_refused(stopped, "credential 'mallory' was not written by this vault")


def test_swapped_material_does_not_open(stopped: Node, rows: sqlite3.Connection) -> None:
    ids = [row[1] for row in key_rows(rows).values()]
    sealed = rows.execute("SELECT sealed FROM materials WHERE key_id = ?", (ids[1],)).fetchone()
    rows.execute("UPDATE materials SET sealed = ? WHERE key_id = ?", (*sealed, ids[0]))
    with stopped, stopped.client() as client:
        check_custody_refuses(client, ids[0])


def check_custody_refuses(client: Client, key_id: str) -> None:
    name = next(key.name for key in client.list_keys() if key.id == key_id)
    handle = client.issue_handle(name, "tester").handle
    with pytest.raises(Exception, match="does not open") as caught:
        client.sign_tls(handle, bytes(32), context="web")
    assert getattr(caught.value, "code", "") == "custody_unavailable"
