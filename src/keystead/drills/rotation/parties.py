"""Relying parties: they hold a key set, verify every token twice, and report what they reject."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import msgspec

from keystead.client import AsyncClient, Issued, Used
from keystead.drills.rotation.keyset import FetchKeySet, KeySet
from keystead.drills.rotation.trace import Signed, Told, Trace
from keystead.errors import KeysteadError
from keystead.keys.commands import VersionInfo
from keystead.keys.framing.jwt import JwtResult
from keystead.keys.lifecycle import State
from keystead.keys.purposes import Purpose
from keystead.keys.verify import PublicKey, VerifiedJwt, verify_jwt

__all__ = ["ISSUER", "Desk", "now_ms"]

ISSUER = "https://drill.keystead.invalid"
"""A name of nobody's (RFC 2606 section 2)."""

_MARGIN_MS = 300
"""So long before its end a token is verified again."""
_LOOK_S = 0.1
_SECOND_MS = 1_000
_LEEWAY_S = 1
"""How far the node's clock may be from this machine's, as verifiers commonly allow."""


def now_ms() -> int:
    """This machine's clock, in Unix milliseconds."""
    return time.time_ns() // 1_000_000


class _Kept(msgspec.Struct, frozen=True):
    """A token until the end of its life."""

    due_ms: int
    token: str
    kid: str
    signed: Signed
    party: int


class _Party:
    """One relying party, a principal of its own."""

    def __init__(self, client: AsyncClient, key: str, issued: Issued, trace: Trace) -> None:
        self.issued = issued
        self.may_report = False
        self.reported: set[int] = set()
        self._client = client
        self._key = key
        self._trace = trace
        self._held: KeySet | None = None
        self._until_s = 0.0
        self._versions: dict[str, VersionInfo] = {}
        self._lock = asyncio.Lock()

    async def refresh(self, kid: str) -> None:
        """Fetch the key set if its time is over; and again, and count it, if it lacks a key id."""
        async with self._lock:
            if self._held is None or time.monotonic() >= self._until_s:
                await self._fetch()
            if self._held is None or kid not in self._held.kids:
                self._trace.unknown += 1
                await self._fetch()

    async def _fetch(self) -> None:
        asked_s = time.monotonic()
        got = await self._client.run(FetchKeySet(key=self._key, held=self._held))
        self._trace.fetches += 1
        self._trace.unchanged += not got.fresh
        self._held, self._until_s = got, asked_s + got.age_s
        if not got.kids <= self._versions.keys():
            told = await self._client.public_key(self._key)
            self._versions = {version.kid: version for version in told.versions}

    def verify(self, token: str, at_ms: int) -> VerifiedJwt:
        """Verify a token by the key set that is held now.

        A key set has no states of versions: what is in it counts.

        Raises:
            SignatureInvalid, MalformedRequest: it does not verify.
        """
        kids = self._held.kids if self._held is not None else frozenset()
        known = tuple(
            msgspec.structs.replace(version, state=str(State.ACTIVE), compromised_epoch=0)
            for kid, version in self._versions.items()
            if kid in kids
        )
        key = PublicKey(name=self._key, purpose=str(Purpose.JWT), versions=known)
        return verify_jwt(
            token, key, audience=None, issuer=ISSUER, now_ms=at_ms, leeway_s=_LEEWAY_S
        )


class Desk:
    """Where tokens come in: each goes to a relying party, in turn.

    ``rejects``: the version whose tokens the parties act as if they could not use; 0: none.
    ``news``: set when one of them reported. ``stop``: no more tokens are wanted.
    """

    def __init__(
        self, client: AsyncClient, key: str, reporters: list[Issued], trace: Trace
    ) -> None:
        self.rejects = 0
        self.news = asyncio.Event()
        self.stop = asyncio.Event()
        self._client = client
        self._key = key
        self._trace = trace
        self._parties = [_Party(client, key, issued, trace) for issued in reporters]
        self._kept: deque[_Kept] = deque()
        self._turn = 0

    def reject(self, version: int) -> None:
        """From now on the parties reject what this version signs, and the first one says so."""
        self.rejects = version
        for party in self._parties:
            party.may_report = party is self._parties[0]

    def let_report(self) -> None:
        """The other parties may say so, too."""
        for party in self._parties:
            party.may_report = True

    async def take(self, used: Used[JwtResult], context: int) -> None:
        """One token came: verify it at once, keep it for later, and report it if it is rejected."""
        receipt = used.receipt
        signed = Signed(
            at_ms=now_ms(),
            seq=-1 if receipt.seq is None else receipt.seq,
            epoch=receipt.epoch,
            context=context,
            version=receipt.version,
        )
        self._trace.signed.append(signed)
        number = self._turn % len(self._parties)
        self._turn += 1
        token = used.result.token
        facts = await self._verified(number, token, receipt.kid, now_ms(), "at once")
        signed.early = facts is not None
        if facts is not None:
            due_ms = facts.expires_s * _SECOND_MS - _MARGIN_MS
            self._kept.append(_Kept(due_ms, token, receipt.kid, signed, number))
        if self.rejects and signed.version == self.rejects:
            self._trace.rejected += 1
            await self._report(self._parties[number], signed)

    async def verify_again(self) -> None:
        """Verify each token at the end of its life, until there are no more to come."""
        while self._kept or not self.stop.is_set():
            while self._kept and self._kept[0].due_ms <= now_ms():
                kept = self._kept.popleft()
                # By the time that it was due: a machine that is busy does not make a token expire.
                facts = await self._verified(
                    kept.party, kept.token, kept.kid, kept.due_ms, "at the end of its life"
                )
                kept.signed.late = facts is not None
            await asyncio.sleep(_LOOK_S)

    async def _verified(
        self, number: int, token: str, kid: str, at_ms: int, when: str
    ) -> VerifiedJwt | None:
        party = self._parties[number]
        try:
            await party.refresh(kid)
            facts = party.verify(token, at_ms)
        except KeysteadError as exc:
            self._trace.unverified.append(f"{when}: {exc.message}")
            return None
        if facts.signer.kid != kid:
            self._trace.unverified.append(
                f"{when}: expected the key id {kid} of the receipt, met {facts.signer.kid}"
            )
            return None
        return facts

    async def _report(self, party: _Party, signed: Signed) -> None:
        if not party.may_report or signed.version in party.reported:
            return
        party.reported.add(signed.version)
        try:
            told = await self._client.report_failure(
                self._key, party.issued.handle, signed.seq, "signature", reason="a drill"
            )
        except KeysteadError as exc:
            self._trace.failures.append(f"a report: {exc.message}")
            return
        self._trace.acts[-1].told.append(
            Told(
                principal=party.issued.principal,
                cited=signed.seq,
                seq=-1 if told.receipt.seq is None else told.receipt.seq,
                version=told.result.version,
                counted=told.result.counted,
                at_ms=now_ms(),
            )
        )
        self.news.set()
