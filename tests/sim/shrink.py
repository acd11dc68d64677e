"""Makes a failing run small: leaves out operations and faults as long as it still fails alike.

Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002),
over the list of both. What is left keeps its numbers and times, so nothing else moves.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sim.scenario import Fault, Op, Scenario

__all__ = ["shrunk", "sort_of"]

_RUNS_MAX = 250
Item = Op | Fault


def sort_of(findings: tuple[str, ...]) -> frozenset[str]:
    """Which invariants are broken."""
    return frozenset(finding.partition(" ")[0] for finding in findings)


def shrunk(
    scenario: Scenario, fails: Callable[[Scenario], bool], *, runs_max: int = _RUNS_MAX
) -> Scenario:
    """The smallest scenario that was found to fail still, within a number of runs.

    ``fails``: whether a scenario shows what the whole one shows; it does for ``scenario`` itself.
    """
    items: list[Item] = [*scenario.faults, *scenario.ops]
    parts, runs = 2, 0
    while len(items) > 1 and runs < runs_max:
        size = max(1, len(items) // parts)
        cuts = range(0, len(items), size)
        for at in cuts:
            rest = items[:at] + items[at + size :]
            runs += 1
            if fails(_with(scenario, rest)):
                items, parts = rest, max(2, parts - 1)
                break
            if runs >= runs_max:
                break
        else:
            if size == 1:
                break
            parts = min(len(items), parts * 2)
    return _with(scenario, items)


def _with(scenario: Scenario, items: list[Item]) -> Scenario:
    return msgspec.structs.replace(
        scenario,
        ops=tuple(item for item in items if isinstance(item, Op)),
        faults=tuple(item for item in items if isinstance(item, Fault)),
    )
