"""A seed is the whole run: the same events in the same order, in any process."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from sim.profiles import scenario_of
from sim.scenario import Fault
from sim.world import run

TESTS = Path(__file__).resolve().parents[1]
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from sim.batch import ran
print(ran(int(sys.argv[2]), sys.argv[3]).digest)
"""
PROFILES = ("crash", "mixed", "slow_custody")


def elsewhere(seed: int, profile: str, hash_seed: str) -> str:
    """The digest of a run in a process of its own, in which sets are in another order."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(TESTS), str(seed), profile],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return ended.stdout.strip()


def test_the_same_seed_gives_the_same_trace() -> None:
    for profile in PROFILES:
        first, second = run(scenario_of(7, profile)), run(scenario_of(7, profile))
        assert first.trace == second.trace
        assert first.digest == second.digest


def test_it_does_so_in_another_process_whose_sets_are_in_another_order() -> None:
    here = run(scenario_of(8, "mixed")).digest
    assert [elsewhere(8, "mixed", hash_seed) for hash_seed in ("1", "2")] == [here, here]


def test_another_seed_gives_another_trace() -> None:
    digests = {run(scenario_of(seed, "mixed")).digest for seed in range(1, 5)}
    assert len(digests) == 4


def test_a_fault_that_is_left_out_moves_nothing_before_it() -> None:
    whole = scenario_of(9, "suspend")
    last = whole.faults[-1]
    without = msgspec.structs.replace(whole, faults=whole.faults[:-1])
    first, second = run(whole).trace, run(without).trace
    before = [line for line in first if int(line[:9]) < last.at_us]
    assert before == [line for line in second if int(line[:9]) < last.at_us]
    assert first != second


def test_nothing_but_the_seed_decides_which_faults_there_are() -> None:
    assert scenario_of(3) == scenario_of(3)
    assert all(isinstance(fault, Fault) for fault in scenario_of(3, "crash").faults)
