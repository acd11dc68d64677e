"""The machines themselves, with PostgreSQL alone: cuts cut, delays delay, and all of it heals."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest

from fault.cluster.database import Database
from fault.cluster.needs import need_machines
from fault.cluster.network import MACHINES, Network, missing_tun

pytestmark = [pytest.mark.root, pytest.mark.slow]

NAMESPACES = Path("/run/netns")
Session = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    need_machines()
    with Network() as made:
        yield made


@pytest.fixture(scope="module")
def database(network: Network) -> Iterator[Database]:
    with Database(network) as made:
        with made.session() as session:
            session.execute("CREATE TABLE told (what text, filling text)")
        yield made


def tell(session: Session, what: str) -> None:
    session.execute("INSERT INTO told VALUES (%s)", [what])


def was_told(database: Database, what: str) -> bool:
    with database.session() as session:
        row = session.execute("SELECT count(*) FROM told WHERE what = %s", [what]).fetchone()
    return row == (1,)


def test_a_cut_request_never_arrives(network: Network, database: Database) -> None:
    with database.session(machine="a") as session:
        cut = network.cut("a", "db")
        check_unanswered(session, "cut request")
        assert not was_told(database, "cut request")
        assert cut.heal() > 0


def test_a_cut_answer_leaves_the_effect(network: Network, database: Database) -> None:
    """One way only: what was asked arrives and is done; that it was, nobody hears."""
    with database.session(machine="a") as session:
        cut = network.cut("db", "a")
        check_unanswered(session, "cut answer")
        assert was_told(database, "cut answer")
        assert cut.heal() > 0


def test_a_cut_is_of_one_pair_and_heals(network: Network, database: Database) -> None:
    with database.session(machine="a") as cut_off, database.session(machine="b") as other:
        cuts = [network.cut("a", "db"), network.cut("db", "a")]
        tell(other, "other")
        for cut in cuts:
            cut.heal()
        tell(cut_off, "healed")
    assert was_told(database, "other")
    assert was_told(database, "healed")


def check_unanswered(session: Session, what: str) -> None:
    """It is sent, and nothing comes back."""
    command = f"INSERT INTO told VALUES ('{what}')"  # noqa: S608  a constant of the test
    session.pgconn.send_query(command.encode())
    while session.pgconn.flush():
        time.sleep(0.01)
    time.sleep(0.5)
    session.pgconn.consume_input()
    assert session.pgconn.is_busy()


def test_a_delay_is_felt_by_a_session_that_is_up(network: Network, database: Database) -> None:
    if why := missing_tun():
        pytest.skip(why)
    with database.session(machine="a") as session:
        undelayed_s = seconds_of(session)
        with network.delayed("a", "db", 0.1) as relayed:
            assert seconds_of(session) >= 0.2
        assert relayed[0] >= 2
        assert seconds_of(session) < 0.2
    assert undelayed_s < 0.2


def seconds_of(session: Session) -> float:
    """The fastest of some round trips."""
    taken = []
    for _ in range(3):
        begun_s = time.monotonic()
        session.execute("SELECT 1")
        taken.append(time.monotonic() - begun_s)
    return min(taken)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
def test_a_server_that_ends_keeps_what_it_answered(database: Database, number: int) -> None:
    what = f"before {number}"
    with database.session(machine="b") as session:
        session.execute("SET synchronous_commit = on")
        tell(session, what)
        database.stop(number)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        database.start()
    assert was_told(database, what)


def test_a_suspended_server_answers_when_it_goes_on(database: Database) -> None:
    with database.session(machine="a") as session:
        assert database.freeze() > 1
        check_unanswered(session, "suspended")
        database.thaw()
        session.pgconn.get_result()
    assert was_told(database, "suspended")


def test_a_full_tablespace_refuses_until_there_is_room(database: Database) -> None:
    filling = "INSERT INTO told SELECT 'room', repeat('x', 1000) FROM generate_series(1, 10000)"
    with database.session(machine="a") as session:
        before = database.refusals_for_room()
        assert database.fill() > 0
        with pytest.raises(psycopg.errors.DiskFull):
            session.execute(filling)
        assert database.refusals_for_room() > before
        database.make_room()
        session.execute(filling)


def test_ended_sessions(database: Database) -> None:
    with database.session(machine="b") as session:
        assert database.end_sessions(MACHINES["b"]) == 1
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


def test_nothing_is_left_behind() -> None:
    """Not after a failure, either."""
    need_machines()
    before = NAMESPACES.iterdir() if NAMESPACES.exists() else ()
    known = {path.name for path in before}
    with pytest.raises(ZeroDivisionError):
        fail_with_machines()
    assert {path.name for path in NAMESPACES.iterdir()} == known
    rules = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert "keystead" not in rules.stdout


def fail_with_machines() -> None:
    with Network() as network, Database(network) as database:
        assert all((NAMESPACES / network.name(machine)).exists() for machine in MACHINES)
        assert own_network() != own_network(network)
        assert os.path.ismount(database.log.parent / "small")
        left = database.log.parent
        try:
            raise ZeroDivisionError
        finally:
            database.close()
            assert not left.exists()


def own_network(network: Network | None = None) -> Path:
    """Which network this thread is in, or is in while it is on a machine."""
    with network.inside("a") if network else nullcontext():
        return Path("/proc/thread-self/ns/net").readlink()
