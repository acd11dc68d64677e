"""Clients of both nodes: they use, repeat at the other node, and write down what they saw."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import threading
import time
from collections import deque
from random import Random
from typing import Any

import msgspec

from fault.cluster.deployment import NODES, Deployment
from fault.cluster.history import Attempt, History, Outcome
from fault.cluster.network import MACHINES
from fault.cluster.rig import Held, Pool, Rig, Spenders
from fault.crash.held import signed_message
from keystead.client import Client, Receipt, Retry, Use, operations
from keystead.errors import CallerError, KeysteadError

__all__ = ["BOTH", "EdgeLoad", "Load", "Probe", "UsesLoad", "outcome_of"]

ONCE = Retry(deadline_s=2.5, try_s=2.5, tries_max=1)
PATIENT = Retry(deadline_s=8, try_s=2.5, tries_max=100, cap_s=0.3, aside_s=2)
GIVE_UP_S = 45.0
BOTH = "both"
"""In place of a front: the client that fails over from one to the other by itself."""
_PAUSE_S = 0.02
_EDGE_PAUSE_S = 0.15
_AFTER_FAILURE_S = 0.15
_REPEATS = 0.2
"""Share of answered uses that are sent again, to the other node."""
_ANSWERED_MAX = 24
_KINDS = {"jwt": 3, "ledger": 4, "firmware": 2, "wrap": 2, "unwrap": 1, "budget": 2, "pool": 12}
_EXPECTED = {
    "budget": {"limit_exceeded"},
    "pool": {"key_state", "handle_revoked", "not_found", "handle_invalid"},
    "ledger": {"conflict"},
    "firmware": {"conflict"},
}
"""Refusals that a kind of use may meet; any other is a finding.

A key that was made through one node is ``not_found`` at the other one for a moment; so is a handle
of a new generation ``handle_invalid``. How often, the report counts.
"""


def outcome_of(error: KeysteadError) -> Outcome:
    """A refusal after several tries says nothing of the tries before it."""
    notes = getattr(error, "__notes__", [])
    if isinstance(error, CallerError) and not any(" tries in " in note for note in notes):
        return Outcome.REFUSED
    return Outcome.UNKNOWN


class Load(threading.Thread):
    """A client on the clients' machine, until it is told to end."""

    def __init__(self, name: str, deployment: Deployment, history: History, seed: str) -> None:
        super().__init__(name=name, daemon=True)
        self.deployment = deployment
        self.history = history
        self.random = Random(f"{seed}/{name}")  # noqa: S311  a schedule, no secret
        self.ending = threading.Event()
        self.resting = threading.Event()
        self._goes_on = threading.Event()
        self._goes_on.set()
        self.clients: dict[str, Client] = {}
        self._count = 0

    def end(self) -> None:
        """Have it end after what it is at."""
        self.ending.set()
        self._goes_on.set()

    def rest(self) -> None:
        """Have it pause after what it is at; ``resting`` is set when it does."""
        self._goes_on.clear()

    def go_on(self) -> None:
        """Have it work again."""
        self._goes_on.set()

    def run(self) -> None:
        """Take turns."""
        self.deployment.network.enter("clients")
        self.clients = {name: self.deployment.client(name, retry=ONCE) for name in NODES}
        self.clients[BOTH] = self.deployment.client(*NODES, retry=PATIENT)
        try:
            while not self.ending.is_set():
                self.turn()
                self.ending.wait(_PAUSE_S * self.random.random())
                if not self._goes_on.is_set():
                    self.resting.set()
                    self._goes_on.wait()
                    self.resting.clear()
        except Exception as exc:  # noqa: BLE001  whatever ends a client is a finding
            self.history.surprise(f"{self.name} ended: {type(exc).__name__}: {exc}")
        finally:
            self.resting.set()
            for client in self.clients.values():
                client.close()

    def turn(self) -> None:
        """One thing to do."""
        raise NotImplementedError

    def next_key(self) -> str:
        """An idempotency key of this client's own."""
        self._count += 1
        return f"{self.name}-{self._count}"

    def other(self, front: str) -> str:
        """Another front than this one."""
        return self.random.choice([name for name in NODES if name != front])


class Probe:
    """A use of a key that nobody stops, through one node: whether it serves, in full."""

    def __init__(self, deployment: Deployment, history: History, steady: Held) -> None:
        self._deployment = deployment
        self._history = history
        self._steady = steady
        self._count = 0

    def answers(self, front: str) -> bool:
        """Whether a node has committed a use and answered it."""
        self._count += 1
        key = f"probe-{self._count}"
        use = operations.sign_jwt(
            self._steady.handle, {"sub": key}, context="cluster/x", idempotency_key=key
        )
        with (
            self._deployment.network.inside("clients"),
            self._deployment.client(front, retry=ONCE) as client,
        ):
            attempt = attempted("probe", front, client, self._steady, use)
        self._history.used(attempt)
        return attempt.outcome is Outcome.OK


def attempted(name: str, front: str, client: Client, holder: Held, use: Use[Any]) -> Attempt:
    """Run a use once, and give what came of it."""
    begun_ns = time.monotonic_ns()
    outcome, code, receipt, result = Outcome.OK, "", None, None
    try:
        used = client.run(use)
        receipt, result = used.receipt, used.result
    except KeysteadError as exc:
        outcome, code = outcome_of(exc), exc.code or type(exc).__name__
    return Attempt(
        client=name,
        front=front,
        operation=f"{use.purpose}.{use.operation}",
        target=holder.target,
        key=use.idempotency_key,
        invoked_ns=begun_ns,
        completed_ns=time.monotonic_ns(),
        outcome=outcome,
        code=code,
        receipt=receipt,
        result=result,
        message=None if result is None else signed_message(result),
    )


class UsesLoad(Load):
    """Tokens, images, entries, data, budgets, and whatever is in the pool."""

    def __init__(
        self,
        number: int,
        deployment: Deployment,
        history: History,
        seed: str,
        *,
        rig: Rig,
        pool: Pool,
        spenders: Spenders,
    ) -> None:
        super().__init__(f"uses{number}", deployment, history, seed)
        self._rig = rig
        self._pool = pool
        self._spenders = spenders
        self._image = f"image{number}"
        self._image_version = 0
        self._wrapped: list[str] = []
        self._answered: deque[tuple[Held, Use[Any]]] = deque(maxlen=_ANSWERED_MAX)

    def turn(self) -> None:
        """One use, until it is answered for good; some are repeated at the other node."""
        (kind,) = self.random.choices(list(_KINDS), list(_KINDS.values()))
        if kind == "pool" and self._answered and self.random.random() < _REPEATS:
            # Long ago, perhaps: what it stands on may be stopped by now.
            holder, use = self.random.choice(self._answered)
            self._attempt(kind, self.random.choice(NODES), holder, use)
            return
        made = self._make(kind)
        if made is None:
            return
        holder, use = made
        front = self.random.choice((*NODES, BOTH))
        until_s = time.monotonic() + GIVE_UP_S
        while True:
            attempt = self._attempt(kind, front, holder, use)
            if attempt.outcome is not Outcome.UNKNOWN or time.monotonic() > until_s:
                break
            front = self.other(front)
            if self.ending.wait(_AFTER_FAILURE_S * self.random.random()):
                break
        if kind == "pool" and attempt.outcome is Outcome.OK:
            self._answered.append((holder, use))
        if attempt.outcome is Outcome.OK and self.random.random() < _REPEATS:
            self._attempt(kind, self.other(front), holder, use)

    def _attempt(self, kind: str, front: str, holder: Held, use: Use[Any]) -> Attempt:
        attempt = attempted(self.name, front, self.clients[front], holder, use)
        if attempt.outcome is Outcome.REFUSED and attempt.code not in _EXPECTED.get(kind, set()):
            self.history.surprise(f"{self.name} {kind} was refused by {front}: {attempt.code}")
        self.history.used(attempt)
        if attempt.operation == "data.wrap" and attempt.result is not None:
            self._wrapped.append(attempt.result.wrapped)
        return attempt

    def _holder(self, kind: str) -> Held | None:
        if kind == "pool":
            return self._pool.pick(self.random)
        return self._rig.jwt if kind == "jwt" else self._spenders.pick(self.random)

    def _make(self, kind: str) -> tuple[Held, Use[Any]] | None:
        rig, key = self._rig, self.next_key()
        context, text = "cluster/x", key.encode()
        match kind:
            case "jwt" | "budget" | "pool":
                holder = self._holder(kind)
                if holder is None:
                    return None
                use: Use[Any] = operations.sign_jwt(
                    holder.handle, {"sub": key}, context=context, idempotency_key=key
                )
                return holder, use
            case "firmware":
                self._image_version += self.random.randint(1, 3)
                return rig.firmware, operations.sign_firmware(
                    rig.firmware.handle,
                    self._image,
                    self._image_version,
                    sha256=hashlib.sha256(text).digest(),
                    size=len(text),
                    context=context,
                    idempotency_key=key,
                )
            case "ledger":
                return rig.ledger, operations.append_ledger(
                    rig.ledger.handle, text, context=context, idempotency_key=key
                )
            case "unwrap" if self._wrapped:
                wrapped = self.random.choice(self._wrapped)
                return rig.data, operations.unwrap(
                    rig.data.handle, wrapped, context=context, idempotency_key=key
                )
            case _:
                return rig.data, operations.wrap(
                    rig.data.handle, text, context=context, idempotency_key=key
                )


class EdgeLoad(Load):
    """Handshakes of a ``best_effort`` key: raw requests without a key, each sent once."""

    def __init__(self, deployment: Deployment, history: History, seed: str, *, edge: Held) -> None:
        super().__init__("edge", deployment, history, seed)
        self._edge = edge

    def turn(self) -> None:
        """A few over one connection, as a server does that holds one open."""
        front = self.random.choice(NODES)
        connection = http.client.HTTPSConnection(
            MACHINES[front], 7410, timeout=2.0, context=self.deployment.trust
        )
        try:
            for _ in range(self.random.randint(1, 12)):
                if self._send(front, connection) is Outcome.UNKNOWN:
                    self.ending.wait(_AFTER_FAILURE_S)
                    return
        finally:
            connection.close()
        self.ending.wait(_EDGE_PAUSE_S)

    def _send(self, front: str, connection: http.client.HTTPSConnection) -> Outcome:
        facts = {"role": "server", "transcript_hash": "A" * 43 + "="}
        body = json.dumps({"context": "cluster/x", "facts": facts}).encode()
        headers = {
            "authorization": f"Bearer {self._edge.handle.reveal()}",
            "content-type": "application/json",
        }
        begun_ns = time.monotonic_ns()
        outcome, code, receipt = Outcome.UNKNOWN, "", None
        try:
            connection.request("POST", "/v1/tls/sign", body, headers)
            answer = connection.getresponse()
            told = json.loads(answer.read())
            if "receipt" in told:
                outcome, receipt = Outcome.OK, msgspec.convert(told["receipt"], Receipt)
            else:
                code = str(told.get("code"))
        except (OSError, http.client.HTTPException, ValueError, ssl.SSLError) as exc:
            code = type(exc).__name__
        self.history.used(
            Attempt(
                client=self.name,
                front=front,
                operation="tls.sign",
                target=self._edge.target,
                key="",
                invoked_ns=begun_ns,
                completed_ns=time.monotonic_ns(),
                outcome=outcome,
                code=code,
                receipt=receipt,
            )
        )
        return outcome
