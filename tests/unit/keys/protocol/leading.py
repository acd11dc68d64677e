"""Who leads, on several nodes: the lease, those who look at it, and what they do under its fence.

Real: ``keys.leases`` (``claim``, ``sighted``, ``check_leads``). The model is what surrounds them,
as in ``vault/leading.py``: a round samples the clock, its commit comes any time after, and the node
hears of it any time after that; what a leader does was decided some time before its own commit.
Each clock goes as it likes: nothing may hang on two of them.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

from keystead.errors import KeysteadError
from keystead.keys import leases
from keystead.keys.leases import Lease, Sighting
from unit.keys.protocol.exploring import Step

LIFE = 1


class Rules(NamedTuple):
    """What is explored: the functions as they are, or a mutant of one.

    ``locks``: the store keeps a lease that was read as it is until the commit ends.
    """

    claim: Callable[..., Lease | None] = leases.claim
    sighted: Callable[..., Sighting] = leases.sighted
    check_leads: Callable[..., None] = leases.check_leads
    locks: bool = True


class Bounds(NamedTuple):
    """How far it goes: until so many fences were given. Nothing else is bounded."""

    nodes: int = 2
    fences: int = 2


class Node(NamedTuple):
    """``seen``: which lease, and for how many ticks; while a round is under way, until that began.

    ``fence``: under which it leads. ``asked``: how many ticks ago its round began, -1: none is
    under way. ``read``: its commit is open, and what it read. ``told``: what its loop will hear.
    ``act``: the fence of what it has begun.
    """

    seen: tuple[Lease, int] | None = None
    asked: int = -1
    read: tuple[Lease | None] | None = None
    told: Lease | None = None
    fence: int = 0
    act: int = 0


class World(NamedTuple):
    """``holders``: who was ever given which fence, the first one first."""

    lease: Lease | None
    holders: tuple[str, ...]
    nodes: tuple[Node, ...]


class Leading:
    """The model; see the module."""

    def __init__(self, bounds: Bounds, rules: Rules | None = None) -> None:
        self.bounds = bounds
        self.rules = rules or Rules()

    def first(self) -> World:
        return World(lease=None, holders=(), nodes=(Node(),) * self.bounds.nodes)

    def canonical(self, state: World) -> Hashable:
        """Of beats only counts which are the same."""
        met = {lease.beat for node in state.nodes for lease in _leases(node) if lease}
        if state.lease is not None:
            met.add(state.lease.beat)
        rank = {beat: number for number, beat in enumerate(sorted(met))}

        def ranked(lease: Lease | None) -> object:
            return lease and (lease.holder, lease.fence, rank[lease.beat])

        return (
            ranked(state.lease),
            state.holders,
            *(
                (
                    node.seen and (ranked(node.seen[0]), node.seen[1]),
                    node.asked,
                    node.read and (ranked(node.read[0]),),
                    ranked(node.told),
                    node.fence,
                    node.act,
                )
                for node in state.nodes
            ),
        )

    def broken(self, state: World) -> str:
        if state.lease is not None and state.lease.fence < len(state.holders):
            return "leader: the fence went back"
        return ""

    def steps(self, state: World) -> Iterator[Step[World]]:
        for at, node in enumerate(state.nodes):
            later = _later(node)
            if later != node:
                yield Step("tick", f"a tick of node {at}", _put(state, at, later))
            if node.asked < 0:
                asks = node._replace(asked=0)
                yield Step("round", f"node {at} begins a round", _put(state, at, asks))
            elif node.told is None:
                yield from self._claims(state, at, node)
            if node.told is not None:
                yield self._hears(state, at, node, node.told)
            if node.act:
                yield from self._acts(state, at, node)
            elif node.fence:
                after = _put(state, at, node._replace(act=node.fence))
                yield Step("begin", f"node {at} begins something under fence {node.fence}", after)
            if node != Node():
                after = _put(state, at, Node())
                yield Step("crash", f"node {at} crashes and starts anew", after)

    def _claims(self, state: World, at: int, node: Node) -> Iterator[Step[World]]:
        if self.rules.locks:
            yield from self._decides(state, at, node, state.lease)
        elif node.read is None:
            reads = node._replace(read=(state.lease,))
            yield Step("read", f"node {at} reads the lease in its commit", _put(state, at, reads))
        else:
            yield from self._decides(state, at, node._replace(read=None), node.read[0])

    def _decides(
        self, state: World, at: int, node: Node, lease: Lease | None
    ) -> Iterator[Step[World]]:
        sighting = None if node.seen is None else Sighting(node.seen[0], -node.seen[1])
        wanted = self.rules.claim(lease, sighting, node=str(at), now_boot_ms=0)
        told = wanted or lease
        if told is None:
            raise LookupError("a lease that nobody holds is taken")
        heard = _put(state, at, node._replace(told=told))
        failed = _put(state, at, node._replace(asked=-1))
        if wanted is None:
            yield Step("looks", f"node {at} finds that {told.holder} leads", heard)
            return
        if wanted.fence > self.bounds.fences:
            return
        yield Step("not applied", f"the round of node {at} fails", failed)
        broken, holders = "", state.holders
        if wanted.fence > len(holders):
            holders = (*holders, wanted.holder)
        elif holders[wanted.fence - 1] != wanted.holder:
            broken = f"leader: two nodes were given fence {wanted.fence}"
        kind = "renews" if lease is not None and wanted.fence == lease.fence else "takes"
        name = f"node {at} {kind} the lease under fence {wanted.fence}"
        yield Step(kind, name, heard._replace(lease=wanted, holders=holders), broken)
        lost = failed._replace(lease=wanted, holders=holders)
        yield Step("outcome lost", f"{name}, and is told that it failed", lost, broken)

    def _hears(self, state: World, at: int, node: Node, lease: Lease) -> Step[World]:
        before = None if node.seen is None else Sighting(node.seen[0], -node.seen[1])
        seen = self.rules.sighted(before, lease, 0)
        fence = lease.fence if lease.holder == str(at) else 0
        age = min(node.asked - seen.since_boot_ms, LIFE)
        after = node._replace(seen=(seen.lease, age), asked=-1, told=None, fence=fence)
        return Step("hear", f"node {at} hears what came of its round", _put(state, at, after))

    def _acts(self, state: World, at: int, node: Node) -> Iterator[Step[World]]:
        if any(other.read for other in state.nodes):
            return  # it changes authority, so it waits for commits that are open
        done = _put(state, at, node._replace(act=0))
        try:
            self.rules.check_leads(state.lease, node=str(at), fence=node.act)
        except KeysteadError:
            yield Step("refused", f"what node {at} began under fence {node.act} is refused", done)
            return
        broken = ""
        if node.act < len(state.holders):
            broken = f"leader: an act under fence {node.act} after fence {len(state.holders)}"
        yield Step("act", f"node {at} acts under fence {node.act}", done, broken)


def _later(node: Node) -> Node:
    """A node a tick of its clock later; past a lease's life no more ticks count."""
    if node.asked >= 0:
        return node._replace(asked=min(node.asked + 1, LIFE))
    if node.seen is not None:
        return node._replace(seen=(node.seen[0], min(node.seen[1] + 1, LIFE)))
    return node


def _leases(node: Node) -> tuple[Lease | None, ...]:
    return (
        node.seen[0] if node.seen else None,
        node.read[0] if node.read else None,
        node.told,
    )


def _put(state: World, at: int, node: Node) -> World:
    return state._replace(nodes=(*state.nodes[:at], node, *state.nodes[at + 1 :]))
