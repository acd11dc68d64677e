"""The node as a client sees it: each use goes through here, and its record is looked up at once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from keystead.cli.tour.foreign import Tools
from keystead.cli.tour.inputs import KeyPlan
from keystead.cli.tour.records import Expected, judge
from keystead.cli.tour.report import CheckFailed, RecordRow, RefusalRow
from keystead.client import Client, Handle, Issued, Narrowing, Use, Used, attenuate
from keystead.client.core import Call
from keystead.errors import KeysteadError
from keystead.keys.commands import KeyInfo
from keystead.keys.verify import PublicKey

__all__ = ["Stage"]

T = TypeVar("T")

_TENANT = "tour"
_HANDLE_LIFE_S = 900


class Stage:
    """The node as a client sees it, and what the tour has made on it so far.

    ``artefacts``: bytes that one step made and a later one enters into the ledger.
    """

    def __init__(
        self,
        client: Client,
        tools: Tools,
        plans: tuple[KeyPlan, ...],
        *,
        url: str,
        image: Path,
        run: str,
    ) -> None:
        self.url = url
        self.client = client
        self.tools = tools
        self.plans = plans
        self.image = image
        self.run = run
        self.artefacts: dict[str, bytes] = {}
        self.records: list[RecordRow] = []
        self._issued: dict[str, Issued] = {}
        self._narrowed: dict[str, Handle] = {}
        self._uses: Counter[str] = Counter()

    def name(self, role: str) -> str:
        """The name of a key on the node; a run's own, so that the tour can run again."""
        return f"tour-{self.run}-{role}"

    @cached_property
    def image_facts(self) -> tuple[bytes, int]:
        """SHA-256 and size in bytes of the image."""
        with self.image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return digest.digest(), file.tell()

    def public(self, role: str) -> PublicKey:
        """The public part of a key, as whoever verifies fetches it."""
        return self.client.public_key(self.name(role))

    def issued(self, role: str) -> Issued:
        """The handle of a key as the operator issued it.

        Raises:
            CheckFailed: an earlier step could not make it.
        """
        if role not in self._issued:
            raise CheckFailed(f"there is no handle of {self.name(role)}: see above")
        return self._issued[role]

    def handle(self, role: str) -> Handle:
        """The handle that uses of a key go by: the narrowed one, where the holder narrowed it."""
        return self._narrowed.get(role) or self.issued(role).handle

    def handles(self) -> Iterator[tuple[Issued, int]]:
        """Every issued handle, with how many requests were made under it and its children."""
        for issued in self._issued.values():
            yield issued, self._uses[issued.handle_id]

    # --- making ------------------------------------------------------------------------------

    def create(self, plan: KeyPlan) -> KeyInfo:
        """Make a key."""
        return self.client.create_key(
            self.name(plan.role),
            plan.purpose,
            policy=plan.policy,
            algorithm=plan.algorithm,
            tenant=_TENANT,
            labels={"run": self.run, "service": plan.principal, "region": "eu"},
        )

    def issue(self, plan: KeyPlan) -> Issued:
        """Have a handle of a key issued to its principal."""
        issued = self.client.issue_handle(
            self.name(plan.role), plan.principal, ttl_s=_HANDLE_LIFE_S
        )
        self._issued[plan.role] = issued
        return issued

    def narrow(self, role: str, narrowing: Narrowing) -> Handle:
        """Narrow a handle as its holder does, alone; uses of the key go by it from now on."""
        child = attenuate(self.issued(role).handle, narrowing)
        self._narrowed[role] = child
        return child

    # --- using -------------------------------------------------------------------------------

    def use(self, use: Use[T]) -> Used[T]:
        """Use a key, and find the record of it."""
        used = self.client.run(use)
        self._find(
            Expected(
                op=f"{use.purpose}.{use.operation}",
                outcome="ok",
                principal=self._principal(use.handle),
                handle=use.handle.body.handle_id,
                seq=used.receipt.seq,
            ),
            used.receipt.request_id,
            counts=not used.receipt.replayed,
        )
        return used

    def refused(self, what: str, expected: str, use: Use[Any], *, known: bool = True) -> RefusalRow:
        """Ask for what must be refused; ``known``: the vault can tell whose handle it is."""
        handle = use.handle.body.handle_id if known else ""
        record = Expected(
            op=f"{use.purpose}.{use.operation}",
            outcome=expected,
            principal=self._principal(use.handle),
            handle=handle,
        )
        return self._refused(what, expected, use, record)

    def refused_operator(
        self, what: str, expected: str, ask: Call[Any], op: str, *, client: Client | None = None
    ) -> RefusalRow:
        """As :meth:`refused`, for what is no use. Another ``client`` is a stranger: no record."""
        record = Expected(op=op, outcome=expected) if client is None else None
        return self._refused(what, expected, ask, record, client)

    def _refused(
        self,
        what: str,
        expected: str,
        call: Call[Any],
        record: Expected | None,
        client: Client | None = None,
    ) -> RefusalRow:
        met, message, request_id = "ok", "it was done", ""
        try:
            (client or self.client).run(call)
        except KeysteadError as refusal:
            met, message = refusal.code or type(refusal).__name__, refusal.message
            request_id = refusal.request_id
        held, seq = met == expected, None
        if record is None:  # nobody is known to have asked: such a refusal is counted only
            held = held and bool(request_id) and not self.client.log(request_id=request_id)
        elif held:
            seq = self._find(record, request_id).seq
        return RefusalRow(
            what=what,
            expected=expected,
            met=met,
            message=message,
            status="ok" if held else "failed",
            seq=seq,
        )

    def _find(self, expected: Expected, request_id: str, *, counts: bool = True) -> RecordRow:
        """The record of a request, which becomes a row of the report if it is a new one."""
        found = self.client.log(request_id=request_id) if request_id else []
        row = judge(expected, found)
        if counts:
            self._uses[expected.handle] += 1
            self.records.append(row)
        return row

    def _principal(self, handle: Handle) -> str:
        for issued in self._issued.values():
            if issued.handle_id == handle.body.handle_id:
                return issued.principal
        return ""
