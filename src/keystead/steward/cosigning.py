"""Asks a log's witnesses to cosign its checkpoints; the log goes on without those that are away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog

from keystead import limits
from keystead.frames.messages import WitnessView
from keystead.net.witnesses import Behind, Cosigned, Refused, Unreachable, Witness
from keystead.translog.checkpoints import Checkpoint, parse_checkpoint
from keystead.translog.notes import Note, Signature, VerifierKey, encode_note, parse_note
from keystead.translog.policy import PolicyWitness, WitnessPolicy, policy_of
from keystead.translog.tiles import TileNodes
from keystead.translog.tree import consistency_proof

__all__ = ["Cosigners"]

_RETRY_FIRST_S = 1.0
_TRIES = 3
_NOT_AHEAD = -1


class _Asked:
    """One witness, and what is known of it. ``ahead``: a size it has seen and the log has not."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness
        self.state = WitnessView(witness.vkey.name, 0, 0)
        self.retry_at_s = 0.0
        self.pause_s = _RETRY_FIRST_S
        self.ahead = _NOT_AHEAD
        self.asking: asyncio.Task[Signature | None] | None = None


class Cosigners:
    """The witnesses of one log. ``now_s``: a clock that does not go back.

    ``quorum``: how many a proof needs, by the policy that is published beside the log.
    """

    def __init__(
        self, witnesses: Sequence[Witness], now_s: Callable[[], float], *, quorum: int = 0
    ) -> None:
        self._quorum = quorum
        self._asked = [_Asked(witness) for witness in witnesses]
        self._now_s = now_s
        self._log = structlog.get_logger("steward")

    def policy(self, log: VerifierKey) -> WitnessPolicy:
        """What a proof of this log needs (C2SP tlog-policy)."""
        keys = [item.witness.vkey for item in self._asked]
        return policy_of(log, [PolicyWitness(key.name, key) for key in keys], self._quorum)

    def states(self) -> tuple[WitnessView, ...]:
        """How each witness stands."""
        return tuple(asked.state for asked in self._asked)

    def wanting(self, size: int) -> bool:
        """Whether a witness that can be asked now has not cosigned this size."""
        now_s = self._now_s()
        return any(item.state.size != size and now_s >= item.retry_at_s for item in self._asked)

    def behind(self) -> tuple[tuple[str, int], ...]:
        """Witnesses that remember more of this log than there is, and how much (I10)."""
        return tuple(
            (item.state.name, item.ahead) for item in self._asked if item.ahead != _NOT_AHEAD
        )

    async def probe(self, note: bytes) -> None:
        """Show what was published last, before anything new is signed: is a witness ahead of it?"""
        size = parse_checkpoint(parse_note(note).text).size
        async with asyncio.TaskGroup() as group:
            for item in self._asked:
                group.create_task(self._probe(item, note, size))

    async def _probe(self, item: _Asked, note: bytes, size: int) -> None:
        outcome = await item.witness.submit(note, size, ())
        if isinstance(outcome, Behind) and outcome.size > size:
            item.ahead = outcome.size

    async def cosigned(self, note: bytes, nodes: TileNodes) -> bytes:
        """The note with the cosignatures that came in time; who is late is asked again later."""
        parsed = parse_note(note)
        head = parse_checkpoint(parsed.text)
        now_s = self._now_s()
        for item in self._asked:
            if item.asking is None and now_s >= item.retry_at_s:
                item.asking = asyncio.create_task(self._ask(item, note, head, nodes))
        tasks = {item.asking for item in self._asked if item.asking is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=limits.COSIGN_WAIT_S)
        signatures = list(parsed.signatures)
        for item in self._asked:
            if item.asking is None or not item.asking.done():
                continue
            signature = item.asking.result()
            item.asking = None
            if signature is not None and item.state.size == head.size:
                signatures.append(signature)
        return encode_note(Note(parsed.text, tuple(signatures)))

    async def _ask(
        self, item: _Asked, note: bytes, head: Checkpoint, nodes: TileNodes
    ) -> Signature | None:
        old = min(item.state.size, head.size)
        for _ in range(_TRIES):
            proof = consistency_proof(old, head.size, nodes.read)
            outcome = await item.witness.submit(note, old, proof)
            match outcome:
                case Cosigned(signature, time_s):
                    item.pause_s, item.retry_at_s, item.ahead = _RETRY_FIRST_S, 0.0, _NOT_AHEAD
                    item.state = WitnessView(item.state.name, head.size, time_s)
                    return signature
                case Behind(size) if size <= head.size and size != old:
                    old = size  # it forgot nothing: this process did, at its start
                case Behind(size):
                    item.ahead = size if size > head.size else item.ahead
                    self._wait(item, f"it stands at size {size}, this log at {head.size}")
                    return None
                case Refused(status, reason):
                    self._wait(item, f"it refuses with {status}: {reason}")
                    return None
                case Unreachable(reason):
                    self._wait(item, reason)
                    return None
        self._wait(item, "it names another size each time")
        return None

    def _wait(self, item: _Asked, trouble: str) -> None:
        item.retry_at_s = self._now_s() + item.pause_s
        item.pause_s = min(2 * item.pause_s, limits.COSIGN_RETRY_MAX_S)
        if trouble != item.state.trouble:
            self._log.warning("witness", name=item.state.name, trouble=trouble)
        item.state = msgspec.structs.replace(item.state, trouble=trouble)

    async def aclose(self) -> None:
        """End what is under way, and close the connections."""
        for item in self._asked:
            if item.asking is not None:
                item.asking.cancel()
                await asyncio.gather(item.asking, return_exceptions=True)
            await item.witness.aclose()
