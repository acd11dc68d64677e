"""The deployment that every run begins with: keys, handles and one wrapped secret, made once.

The committed state is a value that no run changes, so all runs of a process share it.
"""

from __future__ import annotations

from functools import cache

import msgspec

from keystead.custody.locked import LockedBuffer
from keystead.custody.root import RootKey
from keystead.custody.software import SoftwareCustody
from keystead.frames.messages import Admin, Answer, Done, Request, Use
from keystead.keys.caveats import ContextPrefix, Uses
from keystead.keys.commands import Command, CreateKey, IssuedHandle, IssueHandle, KeyInfo
from keystead.keys.framing.data import Wrap, WrapResult
from keystead.keys.handles import attenuate, parse
from keystead.keys.model import FirmwarePolicy, JwtPolicy, Policy
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.plan import (
    Canary,
    Drain,
    Gates,
    Plan,
    Promote,
    Publish,
    Ramp,
    Retire,
)
from keystead.ports import Random
from keystead.testing.clocks import SeededRandom
from keystead.testing.memory_store import Tables
from keystead.vault.macs import VaultSecrets
from keystead.vault.start import initialise
from sim.dice import Dice
from sim.nodes import Machine, Surroundings
from sim.scenario import NODES
from sim.timeline import NodeClock

__all__ = [
    "BUDGET",
    "CHILD_BUDGET",
    "DEPLOYMENT",
    "IMAGES",
    "LONG_AGO",
    "OVERLAP_MS",
    "PLAN",
    "PREFIX",
    "SECRET",
    "SHARED_CONTEXT",
    "TENANT",
    "Prepared",
    "Token",
    "custody_of",
    "prepare",
    "secrets_of",
    "token_of",
]

DEPLOYMENT = "d1"
BUDGET, CHILD_BUDGET = 9, 4
_BEFORE_MS = 24 * 3_600_000 + 60_000
"""So long before each run the deployment is made: what it keeps under an idempotency key is due."""
PREFIX = "inside"
LONG_AGO = "long-ago"
TENANT = "shop"
SHARED_CONTEXT = "shared"
IMAGES = ("image-a", "image-b")
SECRET = b"THE-PLAINTEXT-THAT-NOBODY-MAY-FIND"
OVERLAP_MS = 2_000
PLAN = Plan(
    publish=Publish(overlap_ms=OVERLAP_MS, cache_ms=1_000),
    canary=Canary(share_ppm=400_000, length_ms=1_000),
    ramp=Ramp(steps_ppm=(700_000,), step_ms=1_000),
    promote=Promote(length_ms=1_000),
    drain=Drain(length_ms=2_000),
    retire=Retire(unpublish=True),
    gates=Gates(window_ms=1_000, samples=1, p99_percent=0),
)
"""A rollout of seconds, so that one comes to its end within a run."""
_JWT = Policy(jwt=JwtPolicy(issuer="sim", lifetime_max_s=2))
_KEYS = (
    CreateKey(name="tokens", purpose=Purpose.JWT, policy=_JWT, plan=PLAN),
    CreateKey(name="slow", purpose=Purpose.JWT, policy=_JWT, plan=PLAN, algorithm="ml-dsa-65"),
    CreateKey(
        name="images",
        purpose=Purpose.FIRMWARE,
        policy=Policy(firmware=FirmwarePolicy(names=IMAGES)),
    ),
    CreateKey(name="books", purpose=Purpose.LEDGER),
    CreateKey(name="vault", purpose=Purpose.DATA),
    CreateKey(name="strict", purpose=Purpose.TLS, tenant=TENANT),
    CreateKey(name="edge", purpose=Purpose.TLS, tenant=TENANT, policy=Policy(ack="best_effort")),
)


class Token(msgspec.Struct, frozen=True):
    """A handle as its holder has it, and what the checks need to know of it.

    ``links``: the ids of its chain. ``budgets``: (link, most uses) of each that it spends.
    """

    token: str
    handle_id: str
    key_id: str
    generation: int
    links: tuple[str, ...]
    budgets: tuple[tuple[str, int], ...] = ()

    @property
    def chain_id(self) -> str:
        return self.links[-1]


class Prepared(msgspec.Struct, frozen=True):
    """``admin``: the operator's token. ``keys``: by name. ``wrapped``: under the key `vault`."""

    tables: Tables
    admin: str
    keys: dict[str, KeyInfo]
    tokens: dict[str, Token]
    wrapped: str


def secrets_of() -> VaultSecrets:
    """The deployment's own, which hang on no seed."""
    return VaultSecrets(b"\1" * 32, b"\2" * 32, b"\3" * 32)


def custody_of(random: Random) -> SoftwareCustody:
    """Software custody under the deployment's root key."""
    return SoftwareCustody(RootKey(LockedBuffer.take(bytearray(b"\4" * 32)), random), random)


def token_of(issued: IssuedHandle, parent: Token | None = None, child: str | None = None) -> Token:
    """What is known of a handle that was issued; or of one that its holder made of it."""
    handle = parse(child or issued.token)
    links = (*(parent.links if parent else ()), handle.chain_id)
    budgets = [*(parent.budgets if parent else ())]
    budgets += [(links[-1], c.count) for c in handle.caveats[-1:] if isinstance(c, Uses)]
    return Token(
        handle.reveal(),
        issued.handle_id,
        handle.body.key_id,
        handle.body.generation,
        links,
        tuple(budgets),
    )


@cache
def prepare() -> Prepared:
    """Make the deployment, on one node and without any fault."""
    around = Surroundings(Dice(0, "prepared"), DEPLOYMENT, secrets_of(), alone=True)
    clock = NodeClock(around.timeline, skew_ms=-_BEFORE_MS)
    random = SeededRandom(0)
    machine = Machine(NODES[0], around, custody_of(random), clock)
    admin = initialise(
        machine.store,
        around.secrets,
        deployment=DEPLOYMENT,
        sealed_root=b"sealed",
        node=NODES[0],
        clock=clock,
        random=random,
    )
    machine.boot()
    maker = _Maker(machine, admin)
    for command in _KEYS:
        maker.make(command)
    maker.narrow()
    wrapped = maker.wrap()
    left: list[str] = []
    machine.leave(lambda: left.append(machine.name))
    around.timeline.run(around.timeline.now_us + 1_000_000)
    if not left:
        raise AssertionError("the node that makes the deployment does not end")
    return Prepared(around.disk.tables, admin, maker.keys, maker.tokens, wrapped)


class _Maker:
    """Asks one node for one thing at a time."""

    def __init__(self, machine: Machine, admin: str) -> None:
        self._machine = machine
        self._admin = admin
        self._asked = 0
        self.keys: dict[str, KeyInfo] = {}
        self.tokens: dict[str, Token] = {}
        self._issued: dict[str, IssuedHandle] = {}

    def make(self, command: CreateKey) -> None:
        """A key, and a handle of it under its name."""
        self.keys[command.name] = msgspec.msgpack.decode(self._admin_for(command), type=KeyInfo)
        self.issue(command.name, command.name, Narrowing())

    def issue(self, name: str, key: str, narrowing: Narrowing) -> None:
        command = IssueHandle(key=key, principal="sim", narrowing=narrowing)
        self._issued[name] = msgspec.msgpack.decode(self._admin_for(command), type=IssuedHandle)
        self.tokens[name] = token_of(self._issued[name])

    def narrow(self) -> None:
        """A handle with a budget, a child of it with a smaller one, and one with a prefix."""
        issued = self._issued["tokens"]
        whole = parse(issued.token)
        parent = self.tokens["tokens"]
        budget = attenuate(whole, Uses(BUDGET))
        self.tokens["budget"] = token_of(issued, parent, budget.reveal())
        child = attenuate(budget, Uses(CHILD_BUDGET))
        self.tokens["child"] = token_of(issued, self.tokens["budget"], child.reveal())
        inside = attenuate(whole, ContextPrefix(PREFIX))
        self.tokens["narrow"] = token_of(issued, parent, inside.reveal())

    def wrap(self) -> str:
        facts = msgspec.msgpack.encode(Wrap(plaintext=SECRET))
        self._asked += 1
        use = Use(
            self._asked,
            self.tokens["vault"].token,
            "data",
            "wrap",
            SHARED_CONTEXT,
            facts,
            idempotency_key=LONG_AGO,
        )
        return msgspec.msgpack.decode(self._ask(use), type=WrapResult).wrapped

    def _admin_for(self, command: Command) -> bytes:
        self._asked += 1
        return self._ask(Admin(self._asked, self._admin, msgspec.msgpack.encode(command)))

    def _ask(self, request: Request) -> bytes:
        answers: list[Answer] = []
        self._machine.ask(request, answers.append)
        timeline = self._machine.around.timeline
        while not answers and timeline.step():
            pass
        answer = answers[0]
        if not isinstance(answer, Done):
            raise TypeError(f"expected the deployment to be made, met {answer}")
        return answer.result
