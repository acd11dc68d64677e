"""The registry of many keys that starts are timed with: whole, and as a vault itself writes it."""

from pathlib import Path

import msgspec
import pytest

from keystead import limits
from keystead.cli.bench.registry import Opening, main
from keystead.cli.bench.vault import REGISTRY, open_stores
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.translog.entries import decode_body, entry_of, leaf_hash


def test_every_key_has_its_row_its_material_and_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More records in one commit than one statement takes, and a number that is no power of two."""
    count = 1_101
    assert main([str(tmp_path), str(count)]) == 0
    told = msgspec.json.decode(capsys.readouterr().out, type=Opening)
    used = min(count, 2 * limits.OPENED_KEYS_MAX)
    assert told == Opening(keys=count, used=used, still_open=min(used, limits.OPENED_KEYS_MAX))
    registry = SqliteRegistry(tmp_path / REGISTRY)
    try:
        rows = registry.records_from(0, 2 * count)
        assert [row.seq for row in rows] == list(range(count + 1))  # the first is the deployment's
        bodies = [decode_body(row.body or b"") for row in rows[1:]]
        assert [body.name for body in bodies] == [f"key-{number}" for number in range(count)]
        assert [body.seq for body in bodies] == [row.seq for row in rows[1:]]
        assert all(row.entry == entry_of(row.salt or b"", row.body or b"") for row in rows)
        assert all(row.leaf == leaf_hash(row.entry) for row in rows)
        assert all(registry.material(body.key, 1) for body in bodies)
    finally:
        registry.close()


def test_a_folder_that_is_there_is_opened_and_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "3"]) == 0
    capsys.readouterr()
    stores = open_stores(tmp_path)
    try:
        assert stores.token == ""
        assert len(stores.snapshot().keys) == 3
    finally:
        stores.close()


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / REGISTRY).write_bytes(b"no database")
    assert main([str(tmp_path), "3"]) == 3
    assert "damaged" in capsys.readouterr().out
