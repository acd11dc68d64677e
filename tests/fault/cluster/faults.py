"""The faults, one context manager a kind: inside it the fault holds, at its end it is healed.

Each gives what shows that it struck, and fails where it did not: a fault that only was meant to be
injected proves nothing. What has to come back by itself is waited for after all faults are healed,
by :meth:`Struck.come_back`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from random import Random

from fault.cluster.deployment import NODES, Deployment, Machine, faketime_library
from fault.cluster.network import MACHINES, Cut, missing_tun
from fault.cluster.processes import resume, runs, suspend, wait_until

__all__ = ["FAULTS", "Fault", "NotStruckError", "Struck", "impossible"]

_DELAYS_S = (0.02, 0.25)
_SHIFTS_S = (-3600.0, -90.0, -5.0, 5.0, 90.0, 3600.0)
_ENDS_WITHIN_S = 20.0


class Struck(dict[str, object]):
    """What shows that a fault struck; filled in while it holds and at its end."""

    afterwards: Callable[[], None] | None = None

    def come_back(self) -> None:
        """Start, or wait for, what does not come back by the healing alone."""
        if self.afterwards is not None:
            self.afterwards()


class NotStruckError(AssertionError):
    """A fault left no trace: it proves nothing."""


Fault = Callable[[Deployment, Random], AbstractContextManager[Struck]]


def _demand(struck: object, what: str) -> None:
    if not struck:
        raise NotStruckError(f"the fault did not strike: {what}")


def _watch(seen: Callable[[], bool], what: str) -> None:
    """Hold the fault on until it is seen to have struck."""
    try:
        wait_until(seen, 3 * _ENDS_WITHIN_S)
    except AssertionError:
        raise NotStruckError(f"the fault did not strike: {what}") from None


def _any(deployment: Deployment, random: Random) -> Machine:
    return deployment.nodes[random.choice(NODES)]


# --- processes -----------------------------------------------------------------------------------


def _kill(role: str) -> Fault:
    @contextmanager
    def fault(deployment: Deployment, random: Random) -> Iterator[Struck]:
        node = _any(deployment, random)
        pid = node.children().get(role, 0)
        _demand(pid, f"node {node.name} has no {role} now")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not runs(pid), _ENDS_WITHIN_S)
        struck = Struck(node=node.name, pid=pid)

        def afterwards() -> None:
            wait_until(lambda: node.children().get(role, pid) != pid, 3 * _ENDS_WITHIN_S)

        struck.afterwards = afterwards
        yield struck

    return fault


@contextmanager
def _kill_node(deployment: Deployment, random: Random) -> Iterator[Struck]:
    node = _any(deployment, random)
    pids = node.pids()
    node.kill()
    _demand(pids, f"node {node.name} did not run")
    struck = Struck(node=node.name, processes=len(pids))
    struck.afterwards = node.start_again
    yield struck


def _suspend(role: str) -> Fault:
    @contextmanager
    def fault(deployment: Deployment, random: Random) -> Iterator[Struck]:
        node = _any(deployment, random)
        children = node.children()
        pids = node.pids() if role == "node" else [children[role]] if role in children else []
        count = suspend(pids)
        _demand(count, f"node {node.name} has no {role} now")
        try:
            yield Struck(node=node.name, processes=count)
        finally:
            resume(pids)

    return fault


# --- the network ---------------------------------------------------------------------------------


def _cut(*, out: bool, into: bool, peer: str = "db") -> Fault:
    @contextmanager
    def fault(deployment: Deployment, random: Random) -> Iterator[Struck]:
        node, network, struck = random.choice(NODES), deployment.network, Struck()
        with ExitStack() as stack:
            cuts = []
            for wanted, way in ((out, (node, peer)), (into, (peer, node))):
                if wanted:
                    cut = network.cut(*way)
                    stack.callback(_healed, cut, struck)
                    cuts.append(cut)
            struck["node"] = node
            struck["dropped"] = 0
            yield struck
        _demand(struck["dropped"], f"no packet between {node} and {peer} was dropped")

    return fault


def _healed(cut: Cut, struck: Struck) -> None:
    dropped = cut.heal()
    struck["dropped"] = int(str(struck["dropped"])) + dropped


def _delay(peer: str) -> Fault:
    @contextmanager
    def fault(deployment: Deployment, random: Random) -> Iterator[Struck]:
        node, delay_s = random.choice(NODES), random.uniform(*_DELAYS_S)
        struck = Struck(node=node, delay_s=round(delay_s, 3))
        with deployment.network.delayed(node, peer, delay_s) as relayed:
            yield struck
        struck["relayed"] = relayed[0]
        _demand(relayed[0], f"no packet between {node} and {peer} came by the relay")

    return fault


# --- the database --------------------------------------------------------------------------------


def _stop_database(number: int) -> Fault:
    @contextmanager
    def fault(deployment: Deployment, _random: Random) -> Iterator[Struck]:
        before = _started(deployment)
        deployment.database.stop(number)
        try:
            yield (struck := Struck(signal=signal.Signals(number).name))
        finally:
            deployment.database.start()
        struck["started"] = after = _started(deployment)
        _demand(before != after, "the server is the same as before")

    return fault


def _started(deployment: Deployment) -> str:
    with deployment.database.session() as session:
        row = session.execute("SELECT pg_postmaster_start_time()").fetchone()
    return str(row and row[0])


@contextmanager
def _freeze_database(deployment: Deployment, _random: Random) -> Iterator[Struck]:
    count = deployment.database.freeze()
    _demand(count, "the server has no process")
    try:
        yield Struck(processes=count)
    finally:
        deployment.database.thaw()


@contextmanager
def _end_sessions(deployment: Deployment, random: Random) -> Iterator[Struck]:
    node, ended = "", 0
    until_s = time.monotonic() + _ENDS_WITHIN_S
    while not ended and time.monotonic() < until_s:
        node = random.choice(NODES)
        ended = deployment.database.end_sessions(MACHINES[node])
        time.sleep(0.05)
    _demand(ended, "no node has a session")
    yield Struck(node=node, sessions=ended)


@contextmanager
def _fill_tablespace(deployment: Deployment, _random: Random) -> Iterator[Struck]:
    """What fits into pages that there are goes on; it is held until the server has refused."""
    database = deployment.database
    before = database.refusals_for_room()
    struck = Struck()
    try:
        struck["taken"] = database.fill()
        yield struck
        _watch(
            lambda: database.refusals_for_room() > before, "nothing was refused for want of room"
        )
    finally:
        database.make_room()
    struck["refused"] = database.refusals_for_room() - before


# --- clocks --------------------------------------------------------------------------------------


@contextmanager
def _shift_clock(deployment: Deployment, random: Random) -> Iterator[Struck]:
    """A node's wall clock jumps, and back at the end; its records tell that they bore it."""
    node, shift_s = _any(deployment, random), random.choice(_SHIFTS_S)
    struck = Struck(node=node.name, shift_s=shift_s)
    begun_s = time.time()
    node.shift_clock(shift_s)
    try:
        yield struck
        _watch(lambda: _bears(deployment, node.name, begun_s, shift_s), "no record has that time")
    finally:
        node.shift_clock(0)


def _bears(deployment: Deployment, node: str, begun_s: float, shift_s: float) -> bool:
    """Whether one of the newest records of a node has the shifted time."""
    with deployment.database.session() as session:
        rows = session.execute(
            f'SELECT time_ms FROM "keystead_log_{node}".records ORDER BY seq DESC LIMIT 50'.encode()  # noqa: S608  a name of ours
        ).fetchall()
    expected_s = begun_s + shift_s
    return any(abs(ms / 1000 - expected_s) < abs(shift_s) / 2 + 0.5 for (ms,) in rows)


FAULTS: dict[str, Fault] = {
    "kill vault": _kill("vault"),
    "kill front": _kill("front"),
    "kill steward": _kill("steward"),
    "kill node": _kill_node,
    "suspend vault": _suspend("vault"),
    "suspend front": _suspend("front"),
    "suspend node": _suspend("node"),
    "cut database": _cut(out=True, into=True),
    "cut to database": _cut(out=True, into=False),
    "cut from database": _cut(out=False, into=True),
    "cut clients": _cut(out=True, into=True, peer="clients"),
    "cut answers": _cut(out=True, into=False, peer="clients"),
    "delay database": _delay("db"),
    "delay clients": _delay("clients"),
    "restart database": _stop_database(signal.SIGINT),
    "crash database": _stop_database(signal.SIGKILL),
    "suspend database": _freeze_database,
    "end sessions": _end_sessions,
    "full tablespace": _fill_tablespace,
    "shift clock": _shift_clock,
}


def impossible(kind: str) -> str:
    """Why a kind of fault cannot be injected here, empty if it can."""
    if kind.startswith("delay"):
        return missing_tun()
    if kind == "shift clock" and not faketime_library():
        return "not installed: faketime; tools/apt_needs.sh names the packages"
    return ""
