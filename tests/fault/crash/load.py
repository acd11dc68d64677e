"""Clients that never give up: mixed uses and changes, each repeated until it is answered."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any, TypeVar

import msgspec

from fault.crash.held import Created, Held, Moved
from keystead.client import Client, Issued, Narrowing, Retry, Use, Used, operations
from keystead.client.core import Call
from keystead.errors import (
    Conflict,
    KeyStateError,
    KeysteadError,
    LimitExceeded,
    NotFound,
    ServiceError,
    StateRolledBack,
)
from keystead.keys.commands import KeyInfo
from keystead.keys.model import FirmwarePolicy, JwtPolicy, Policy

__all__ = ["OperatorLoad", "Rig", "TokensLoad", "UsesLoad", "sign_once", "until_answered"]

T = TypeVar("T")

PATIENT = Retry(deadline_s=10, try_s=5, tries_max=100, cap_s=0.3)
ONCE = Retry(deadline_s=5, try_s=5, tries_max=1)
GIVE_UP_S = 90.0
"""A node that is killed again and again serves within this, or the harness reports it."""
PAUSE_S = 0.01
BUDGET_USES = 25
ISSUES_MAX = 20
CONTEXTS = 64
"""Of a fifth of them, that there is none has a chance of one in a million."""
TOKENS_A_BATCH = 6


class Rig(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that are used, by a handle each, and who reaches them where."""

    address: str
    operator: str
    jwt: Issued
    firmware: Issued
    ledger: Issued
    data: Issued
    budgets: tuple[Issued, ...]

    @staticmethod
    def make(client: Client, address: str, operator: str, workers: int) -> Rig:
        """Create the keys of a fresh deployment."""
        names = tuple(f"image{number}" for number in range(workers))
        client.create_key("jwt", "jwt", policy=Policy(jwt=JwtPolicy(issuer="siege")))
        client.create_key("fw", "firmware", policy=Policy(firmware=FirmwarePolicy(names=names)))
        client.create_key("ledger", "ledger")
        client.create_key("data", "data")
        budgets = [
            client.issue_handle("jwt", "spender", narrowing=Narrowing(uses=BUDGET_USES))
            for _ in range(3)
        ]
        return Rig(
            address=address,
            operator=operator,
            jwt=client.issue_handle("jwt", "app"),
            firmware=client.issue_handle("fw", "app"),
            ledger=client.issue_handle("ledger", "app"),
            data=client.issue_handle("data", "app"),
            budgets=tuple(budgets),
        )


def until_answered(attempt: Callable[[], T], stop_at_s: float | None = None) -> T:
    """Try again while the service cannot serve; anything else is an answer, and is raised."""
    until = stop_at_s or time.monotonic() + GIVE_UP_S
    while True:
        try:
            return attempt()
        except StateRolledBack:
            raise
        except ServiceError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def sign_once(address: str, issued: Issued, key: str) -> Used[Any]:
    """One JWT, or the error of the first try; what a fresh client finds."""
    with Client(address, retry=ONCE) as client:
        return client.sign_jwt(issued.handle, {"sub": key}, context="probe", idempotency_key=key)


class _Load(threading.Thread):
    """A client in a thread, until it is told to end; what goes wrong it says in ``held``."""

    def __init__(self, name: str, rig: Rig, held: Held, seed: str) -> None:
        super().__init__(name=name, daemon=True)
        self.rig = rig
        self.held = held
        self.random = Random(f"{seed}/{name}")  # noqa: S311  a schedule, no secret
        self.count = 0
        self._ending = threading.Event()

    def end(self) -> None:
        self._ending.set()

    def run(self) -> None:
        with Client(self.rig.address, operator=self.rig.operator, retry=PATIENT) as client:
            while not self._ending.is_set():
                try:
                    self.turn(client)
                except KeysteadError as exc:
                    self.held.surprise(f"{self.name}: {type(exc).__name__}: {exc}")
                    return
                self._ending.wait(PAUSE_S * self.random.random())

    def turn(self, client: Client) -> None:
        raise NotImplementedError

    def next_key(self) -> str:
        self.count += 1
        return f"{self.name}-{self.count}"


class UsesLoad(_Load):
    """Tokens, images, entries and data; one at a time and in batches."""

    def __init__(self, number: int, rig: Rig, held: Held, seed: str) -> None:
        super().__init__(f"uses{number}", rig, held, seed)
        self._image = f"image{number}"
        self._image_version = 0
        self._wrapped: list[tuple[str, bytes]] = []

    def turn(self, client: Client) -> None:
        kind = self.random.choices(
            ("jwt", "firmware", "ledger", "wrap", "unwrap", "budget", "batch"),
            (4, 3, 5, 3, 2, 2, 3),
        )[0]
        if kind == "batch":
            self._batch(client, [self._make(each) for each in ("jwt", "ledger", "wrap", "ledger")])
            return
        issued, use = self._make(kind)
        try:
            used = until_answered(lambda: client.run(use))
        except LimitExceeded:
            if kind != "budget":
                raise
            return
        self._keep(issued, use, used)

    def _make(self, kind: str) -> tuple[Issued, Use[Any]]:
        rig, key = self.rig, self.next_key()
        text = key.encode()
        match kind:
            case "jwt" | "budget":
                issued = rig.jwt if kind == "jwt" else self.random.choice(rig.budgets)
                return issued, operations.sign_jwt(
                    issued.handle, {"sub": key}, context="siege/jwt", idempotency_key=key
                )
            case "firmware":
                self._image_version += self.random.randint(1, 3)
                return rig.firmware, operations.sign_firmware(
                    rig.firmware.handle,
                    self._image,
                    self._image_version,
                    sha256=hashlib.sha256(text).digest(),
                    size=len(text),
                    context="siege/firmware",
                    idempotency_key=key,
                )
            case "ledger":
                return rig.ledger, operations.append_ledger(
                    rig.ledger.handle, text, context="siege/ledger", idempotency_key=key
                )
            case "unwrap" if self._wrapped:
                wrapped, _ = self.random.choice(self._wrapped)
                return rig.data, operations.unwrap(
                    rig.data.handle, wrapped, context="siege/data", idempotency_key=key
                )
            case _:
                return rig.data, operations.wrap(
                    rig.data.handle, text, context="siege/data", idempotency_key=key
                )

    def _batch(self, client: Client, uses: Sequence[tuple[Issued, Use[Any]]]) -> None:
        """Run what was refused again, as the SDK says to."""
        left = list(uses)
        until = time.monotonic() + GIVE_UP_S
        while left:
            found = client.run(operations.batch(use for _, use in left))
            again: list[tuple[Issued, Use[Any]]] = []
            for (issued, use), item in zip(left, found, strict=True):
                if isinstance(item, Used):
                    self._keep(issued, use, item)
                elif isinstance(item, ServiceError) and not isinstance(item, StateRolledBack):
                    again.append((issued, use))
                else:
                    raise item
            if again and time.monotonic() > until:
                raise ServiceError(f"{len(again)} uses of a batch were not answered")
            left = again

    def _keep(self, issued: Issued, use: Use[Any], used: Used[Any]) -> None:
        operation = f"{use.purpose}.{use.operation}"
        self.held.used(operation, issued.link, use.idempotency_key, used)
        if operation == "data.wrap":
            self._wrapped.append((used.result.wrapped, use.idempotency_key.encode()))
        if operation == "data.unwrap":
            known = {plain for _, plain in self._wrapped}
            if used.result.plaintext not in known:
                self.held.surprise(f"{use.idempotency_key} opened what nobody wrapped")


class TokensLoad(UsesLoad):
    """Tokens of one key in many contexts, some of them together."""

    def __init__(self, number: int, issued: Issued, rig: Rig, held: Held, seed: str) -> None:
        super().__init__(number, rig, held, seed)
        self._issued = issued

    def turn(self, client: Client) -> None:
        self._batch(client, [(self._issued, self._token()) for _ in range(TOKENS_A_BATCH)])

    def _token(self) -> Use[Any]:
        key = self.next_key()
        context = f"shop/{self.random.randrange(CONTEXTS)}"
        return operations.sign_jwt(
            self._issued.handle, {"sub": key}, context=context, idempotency_key=key
        )


class OperatorLoad(_Load):
    """Creates keys, issues handles, suspends and resumes; after a lost answer it looks first."""

    def __init__(self, rig: Rig, held: Held, seed: str) -> None:
        super().__init__("operator", rig, held, seed)
        self._own: list[Created] = []

    def turn(self, client: Client) -> None:
        if len(self._own) < 2 or self.random.random() < 0.2:
            self._own.append(self._create(client))
        else:
            self._stop_and_go(client, self.random.choice(self._own))
        self._ending.wait(0.05)

    def _create(self, client: Client) -> Created:
        name = f"key-{self.next_key()}"
        call = client.create_key
        key = self._changed(
            lambda: call(name, "jwt", policy=Policy(jwt=JwtPolicy(issuer=name))),
            lambda: client.show_key(name),
            lambda found: found is not None,
        )
        created = Created(key=key, issued=self._issue(client, name))
        self.held.created(created)
        self._use(client, created)
        return created

    def _issue(self, client: Client, name: str) -> Issued:
        """A token is told once: where its answer was lost, another handle is asked for."""
        for _ in range(ISSUES_MAX):
            with suppress(Conflict):
                return until_answered(lambda: client.issue_handle(name, "app"))
        raise Conflict(f"{ISSUES_MAX} answers with a token were lost one after another")

    def _stop_and_go(self, client: Client, created: Created) -> None:
        for move, state in (("suspend", "suspended"), ("resume", "active")):
            self._move(client, created.key.name, move, state)
            if state == "active":
                self._use(client, created)
                continue
            try:
                self._use(client, created)
            except KeyStateError:
                continue
            self.held.surprise(f"I3 {created.key.name} signed while it was suspended")

    def _move(self, client: Client, name: str, move: str, state: str) -> None:
        key = self._changed(
            lambda: client.move_version(name, move, reason="siege"),
            lambda: client.show_key(name),
            lambda found: found is not None and found.versions[0].state == state,
        )
        self.held.moved(Moved(key=key.id, state=state, revision=key.revision))

    def _use(self, client: Client, created: Created) -> None:
        key = self.next_key()
        use = operations.sign_jwt(
            created.issued.handle, {"sub": key}, context="own", idempotency_key=key
        )
        self.held.used("jwt.sign", created.issued.link, key, _run(client, use))

    def _changed(
        self,
        change: Callable[[], KeyInfo],
        look: Callable[[], KeyInfo],
        done: Callable[[KeyInfo | None], bool],
    ) -> KeyInfo:
        """A change is not repeated blindly: whether a lost one had its effect, a look tells."""
        until = time.monotonic() + GIVE_UP_S
        while True:
            try:
                return change()
            except (ServiceError, Conflict, KeyStateError) as exc:
                if isinstance(exc, StateRolledBack) or time.monotonic() > until:
                    raise
                lost = isinstance(exc, ServiceError)
            found = self._look(look)
            if found is not None and done(found):
                return found
            if not lost:
                raise Conflict("a change was refused that had not been made")
            time.sleep(0.05)

    def _look(self, look: Callable[[], KeyInfo]) -> KeyInfo | None:
        try:
            return until_answered(look)
        except NotFound:
            return None


def _run(client: Client, call: Call[T]) -> T:
    return until_answered(lambda: client.run(call))
