"""Processes are killed while a rollout goes on: it goes on to its end, or back, and nothing twice.

The long form is ``fuzz/crash_soak.py``; what is checked is in ``fault.crash.rollouts``.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from fault.crash.checker import Row, Storage
from fault.crash.rolling import PLAN, STAGES, RollingSiege, roll
from fault.crash.rollouts import Histories, rollout_findings
from fault.crash.siege import TARGETS

SEED = 5
AWAY_S = 3.0
"""Longer than a stage, and than three rounds."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_each_stage(tmp_path: Path) -> None:
    report = roll(tmp_path, seed=SEED)
    print("\n".join(report.lines()))  # noqa: T201  shown with -s, and where it fails
    assert report.findings == []
    assert {stage for stage, _ in report.struck} >= {*STAGES, "rotate"}
    assert {target for _, target in report.struck} == set(TARGETS)
    *whole, back = report.walks
    assert whole
    assert all(events == [*STAGES, "retire"] for events in whole)
    assert (back[1], back[-1]) == ("canary", "rolled_back")
    check_the_check(tmp_path / "data" / "registry.db")


def check_the_check(path: Path) -> None:
    """What would be wrong is found: each kind of it is put into what was read."""
    histories, storage = Histories.read(path), Storage.read(path)

    def first(op: str, version: int) -> Row:
        return next(row for row in storage.rows if (row.op, row.version) == (op, version))

    def found(changed: Histories | Row) -> str:
        rows, kept = list(storage.rows), histories
        if isinstance(changed, Row):
            rows[changed.seq] = changed
        else:
            kept = changed
        read = msgspec.structs.replace(storage, rows=rows)
        return " ".join(rollout_findings(kept, read, overlap_ms=PLAN.publish.overlap_ms))

    replace = msgspec.structs.replace
    published, new = first("rollout.publish", 2), first("jwt.sign", 2)
    promoted = first("rollout.promote", 2)
    again = next(
        row
        for row in storage.rows[new.seq + 1 : promoted.seq]
        if (row.op, row.version, row.body["context"]) == (new.op, 2, new.body["context"])
    )
    last = max(row.revision for row in histories.kept if row.id == published.key_id)
    altered = [
        replace(row, doc=row.doc + b"x") if (row.id, row.revision) == (published.key_id, 2) else row
        for row in histories.kept
    ]
    lost = [row for row in histories.kept if row.revision != 2]
    older = [row for row in histories.kept if (row.id, row.revision) != (published.key_id, last)]
    later = published.body | {"time_ms": published.body["time_ms"] + 1_000_000}
    assert found(published) == ""
    assert "I12" in found(replace(published, body=later))
    assert "I3" in found(replace(new, version=3))
    assert "I3" in found(replace(first("rollout.canary", 2), op="other"))
    assert "is of drain, after ramp" in found(replace(promoted, op="other"))
    assert "went back" in found(replace(again, version=1))
    assert "does not commit" in found(replace(histories, kept=altered))
    assert "has the revisions" in found(replace(histories, kept=lost))
    assert "not its last revision" in found(replace(histories, kept=older))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_a_steward_nothing_moves(tmp_path: Path) -> None:
    """Not the stage whose length is over, nor any other; it goes on once there are rounds again."""
    assert max(PLAN.publish.overlap_ms, PLAN.canary.length_ms) < AWAY_S * 1_000
    siege = RollingSiege(tmp_path, SEED)
    try:
        siege.begin()
        with siege.without_steward():
            siege.rotate()
            time.sleep(AWAY_S)
            status = siege.status()
            assert (status.stage, status.waits) == ("publish", ())
        siege.reach(lambda status: status.stage == "canary")
        with siege.without_steward():
            time.sleep(AWAY_S)
            status = siege.status()
            assert (status.stage, status.waits) == ("canary", ())
        siege.reach(lambda status: status.stage == "ramp")
        report = siege.end()
        assert report.findings == []
    finally:
        siege.node.stop()
