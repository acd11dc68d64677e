"""The benchmark's pure parts: its statistics, its targets, its order, and what it refuses."""

import os
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.cli.bench.load import Job, PythonLoad, _script, choose
from keystead.cli.bench.machine import Watch, busy_s
from keystead.cli.bench.report import (
    TARGETS,
    Sample,
    Start,
    ratios_of,
    rows_of,
    saturations_of,
    start_ratio,
)
from keystead.cli.bench.run import order_of
from keystead.cli.bench.stats import paired, percentile, spread
from keystead.cli.bench.subjects import Subject, postgres_subjects, unpublished_subjects
from unit.cli.conftest import Run


def sample(subject: str, number: int, rate: float, **more: Any) -> Sample:  # noqa: ANN401  its own fields
    return Sample(round=number, subject=subject, rate=rate, cpu_us=100.0, **more)


class Idle:
    """A server that nobody asks."""

    def roles(self) -> dict[int, str]:
        return {}

    def single(self, connections: int) -> Job:
        return Job(ports=(1,), path="/", headers={}, body="", connections=connections)

    batch = single


# --- statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "low", "high", "confidence"),
    [
        (1, 1, 1, 0.0),
        (2, 1, 2, 0.5),
        (5, 1, 5, 0.9375),
        (6, 1, 6, 0.96875),
        (9, 2, 8, 0.9609375),
        (20, 6, 15, 0.9586105346679688),
    ],
)
def test_the_interval_of_a_median_is_that_of_the_tables(
    count: int, low: int, high: int, confidence: float
) -> None:
    values = [float(each) for each in range(1, count + 1)]
    random.Random(count).shuffle(values)  # noqa: S311  an order, not a secret
    found = spread(values)
    assert (found.low, found.high, found.count) == (low, high, count)
    assert found.confidence == pytest.approx(confidence)


@given(st.lists(st.floats(min_value=0.1, max_value=1e6), min_size=1, max_size=60))
def test_the_interval_holds_its_median(values: list[float]) -> None:
    found = spread(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    source = random.Random(7)  # noqa: S311  figures, not secrets
    held = 0
    for _ in range(2000):
        found = spread([source.expovariate(1.0) for _ in range(9)])
        held += found.low <= 0.6931471805599453 <= found.high
    assert held / 2000 == pytest.approx(0.961, abs=0.015)


def test_no_values_have_no_median() -> None:
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_ratios_are_paired_within_a_round() -> None:
    """A machine that was slow in round 2 was so for both; rounds that one lacks are left out."""
    over, under = {1: 100.0, 2: 10.0, 3: 90.0, 4: 5.0}, {1: 50.0, 2: 5.0, 4: 0.0, 5: 1.0}
    assert paired(over, under) == [2.0, 2.0]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2.0), (0.99, 4.0), (1.0, 4.0), (0.0, 1.0)])
def test_percentiles_are_values_that_were_seen(share: float, expected: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], share) == expected


def test_percentiles_of_nothing() -> None:
    assert percentile([], 0.5) == 0.0
    with pytest.raises(ValueError, match="share"):
        percentile([1.0], 1.1)


# --- the report ----------------------------------------------------------------------------------


def test_targets_are_met_missed_or_not_measured() -> None:
    samples = [sample("alone", each, 1000.0) for each in (1, 2, 3)]
    samples += [sample("single-64", each, 210.0) for each in (1, 2, 3)]
    samples += [sample("pipeline", 1, 300.0), sample("batch", 1, 150.0)]
    verdicts = [ratio.verdict for ratio in ratios_of(samples)]
    assert len(verdicts) == len(TARGETS)
    assert verdicts[:3] == ["met", "not measured", "not measured"]
    assert verdicts[3] == "missed"  # 0.5 of the pipeline, and 0.6 are wanted
    assert verdicts[6] == "no target"


def test_what_the_published_log_costs_is_a_ratio_of_its_own() -> None:
    samples = [sample("single-64", each, 900.0 + each) for each in (1, 2, 3)]
    samples += [sample("unpublished-single-64", each, 1000.0) for each in (1, 2, 3)]
    [ratio] = [ratio for ratio in ratios_of(samples) if ratio.ratio is not None]
    assert (ratio.bound, ratio.verdict) == (0.9, "met")
    slower = [
        msgspec.structs.replace(each, rate=890.0) if each.subject == "single-64" else each
        for each in samples
    ]
    assert [ratio.verdict for ratio in ratios_of(slower)].count("missed") == 1


@pytest.mark.parametrize(
    ("connections", "measured"),
    [([1, 64], ["unpublished-single-64", "unpublished-batch"]), ([1], ["unpublished-batch"])],
)
def test_without_the_published_log_less_is_measured(
    tmp_path: Path, connections: list[int], measured: list[str]
) -> None:
    """A second node at every number of connections would double the time of a run."""
    subjects = unpublished_subjects(Idle(), choose("python", tmp_path), connections)
    assert [subject.id for subject in subjects] == measured


def test_a_row_sums_up_its_rounds() -> None:
    samples = [
        sample("batch", 1, 10.0, p50_ms=1.0, p99_ms=4.0, load_share=0.1, refused=2),
        sample("batch", 2, 30.0, p50_ms=3.0, p99_ms=6.0, load_share=0.9, refused=1),
    ]
    [row] = rows_of(samples, {"alone": "not measured", "batch": "batches"})
    assert (row.rate.median, row.p50_ms, row.p99_ms) == (20.0, 2.0, 5.0)
    assert (row.load_share, row.refused) == (0.9, 3)


def test_what_processes_cost_is_told_by_what_they_are_there_for() -> None:
    samples = [
        sample(
            "postgres1-single-64",
            number,
            10.0,
            parts={"vault": vault, "postgres": 50.0},
            busiest=busiest,
            busiest_share=share,
            cores=1.5 + share,
            others=1.0 - share,
        )
        for number, vault, busiest, share in (
            (1, 100.0, "vault", 0.5),
            (2, 120.0, "vault", 0.9),
            (3, 300.0, "postgres", 0.7),
        )
    ]
    [row] = rows_of(samples, {"postgres1-single-64": "a node, one a request, 64 connections"})
    assert row.parts == {"vault": 120.0, "postgres": 50.0}
    assert (row.busiest, row.busiest_share, row.cores) == ("vault", 0.7, 2.2)
    assert row.others == pytest.approx(0.3)


def test_a_server_saturates_where_more_connections_bring_no_more() -> None:
    rates = {"single-16": 500.0, "single-64": 970.0, "single-256": 1000.0}
    rates |= {"postgres2-single-16": 100.0, "postgres2-single-64": 400.0, "batch": 9000.0}
    titles = {subject: f"{subject}, one a request" for subject in rates}
    rows = rows_of([sample(name, 1, rate, cores=1.9) for name, rate in rates.items()], titles)
    found = saturations_of(rows)
    assert [(each.connections, each.rate, each.cores) for each in found] == [
        (64, 970.0, 1.9),
        (64, 400.0, 1.9),
    ]
    assert saturations_of(rows[:1]) == ()  # one number of connections shows no bend


def test_two_nodes_share_the_connections() -> None:
    """Where there are fewer connections than nodes, one node would be measured as two."""
    subjects = postgres_subjects(Idle(), PythonLoad(), [1, 16], nodes=2)
    assert [subject.id for subject in subjects] == ["postgres2-single-16", "postgres2-batch"]
    one = postgres_subjects(Idle(), PythonLoad(), [1, 16], nodes=1)
    assert "postgres1-single-1" in {subject.id for subject in one}


def test_nodes_on_postgres_are_compared_with_one_on_sqlite_and_two_with_one() -> None:
    rates = {"single-64": 1000.0, "postgres1-single-64": 800.0, "postgres2-single-64": 600.0}
    found = ratios_of([sample(name, 1, rate) for name, rate in rates.items()])
    medians = {each.title: each.ratio.median for each in found if each.ratio is not None}
    assert medians == {
        "one node on PostgreSQL / on SQLite, one a request, 64 connections": 0.8,
        "two nodes on PostgreSQL / one, one a request, 64 connections": 0.75,
    }


def test_what_a_process_spends_is_counted_from_when_it_was_watched() -> None:
    me = os.getpid()
    roles = {me: "me"}
    watch, before_s = Watch(lambda: roles), busy_s()
    while not watch.spent().total_s:  # the kernel counts in hundredths of a second
        sum(range(10_000))
    assert busy_s() > before_s
    roles[os.getppid()] = "parent"  # it came later: all that it has spent is new
    spent = watch.spent()
    assert spent.by_role["me"] > 0
    assert set(spent.by_role) == {"me", "parent"}
    assert spent.total_s >= spent.busiest_s > 0


def test_starts_are_compared_round_by_round() -> None:
    starts = [
        Start(round=number, keys=keys, seconds=seconds, vault_rss_bytes=1000 + 3 * keys)
        for number, keys, seconds in ((1, 10, 1.0), (1, 110, 1.2), (2, 10, 2.0), (2, 110, 2.4))
    ]
    found = start_ratio(starts)
    assert found is not None
    ratio, bytes_a_key = found
    assert ratio.ratio is not None
    assert ratio.ratio.median == pytest.approx(1.2)
    assert ratio.verdict == "met"
    assert bytes_a_key == pytest.approx(3.0)
    assert start_ratio(starts[:1]) is None


def test_each_round_has_its_own_order_and_the_same_one_for_a_seed() -> None:
    subjects = [
        Subject(str(each), "", lambda number, _s: sample("x", number, 1.0)) for each in range(9)
    ]
    orders = [[each.id for each in order_of(subjects, 5, number)] for number in (1, 2, 1)]
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == [str(each) for each in range(9)]


def test_a_job_does_not_show_its_token_and_its_script_is_lua() -> None:
    job = Job(
        ports=(1, 2),
        path="/p",
        headers={"authorization": "Bearer s3cret"},
        body="{}",
        connections=2,
    )
    assert "s3cret" not in repr(job)
    assert '{"1", "2"}' in _script(job)
    assert "wrk.headers[ [==[authorization]==] ] = [==[Bearer s3cret]==]" in _script(job)


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rounds", "0"], "--rounds"),
        (["--seconds", "0"], "--seconds"),
        (["--connections", "0"], "--connections"),
        (["--connections", "1,1"], "--connections"),
        (["--connections", "1,x"], "--connections"),
        (["--connections", "4096"], "--connections"),
        (["--connections", ""], "--connections"),
        (["--keys", "-1"], "--keys"),
        (["--load", "ab"], "--load"),
        (["--folder", "not-there"], "--folder"),
        (["--json-file", "not-there/bench.json"], "--json-file"),
        (["--plot", "not-there/bench.png"], "--plot"),
        (["--openbao", "bao", "--without-openbao"], "--without-openbao"),
        (["--database", "postgresql:///x", "--without-postgres"], "--without-postgres"),
        (["--database", "bench.db"], "--database"),
    ],
)
def test_what_is_typed_wrong_is_refused_before_anything_starts(
    run: Run, tmp_path: Path, arguments: list[str], named: str
) -> None:
    ran = run("bench", *arguments)
    assert ran.status == 2
    assert named in ran.err
    assert not list(tmp_path.iterdir())


def test_the_help_shows_what_bounds_a_run(run: Run) -> None:
    ran = run("bench", "--help")
    assert ran.status == 0
    assert "--rounds" in ran.out
    assert "--without-openbao" in ran.out
