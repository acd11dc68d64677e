"""Two real nodes on PostgreSQL under load: each kind of fault strikes, heals, and lost nothing.

The long form, which mixes them, is ``fuzz/cluster_soak.py``; what is checked is in
``fault.cluster.checker``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fault.cluster.faults import FAULTS, impossible
from fault.cluster.needs import need_machines
from fault.cluster.trial import Trial, work_missed

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

HOLDS_S = 1.2


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """One deployment for all of them; each leaves it serving."""
    need_machines()
    with Trial(tmp_path_factory.mktemp("nodes"), seed=5) as running:
        yield running


IN_SHORT = frozenset(
    {
        *("kill vault", "kill node", "suspend vault", "cut database", "cut answers"),
        *("restart database", "full tablespace", "shift clock"),
    }
)
"""One of each sort; the others are for ``make long`` and the soak."""


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[] if kind in IN_SHORT else pytest.mark.long) for kind in FAULTS],
)
def test_nothing_is_lost_or_done_twice(trial: Trial, kind: str) -> None:
    if why := impossible(kind):
        pytest.skip(why)
    trial.round([kind], holds_s=HOLDS_S)
    report = trial.judge()
    assert report.findings == []
    assert report.struck[kind] == 1


def test_there_was_something_to_find(trial: Trial) -> None:
    """Uses through both nodes, repeats answered by the other one, stops that refused."""
    trial.round([], holds_s=1.0)
    report = trial.judge()
    assert report.findings == []
    assert work_missed(report) == []
