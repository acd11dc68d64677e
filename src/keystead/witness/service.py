"""The witness's one shell: load, decide, commit, answer, in that order.

A cosignature is given out only after the checkpoint that it stands for has become durable, by a
compare-and-set: of two submissions that continue the same checkpoint one wins, in this process or
in another that shares the state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from keystead.ports import Clock
from keystead.translog.cosignatures import cosign
from keystead.translog.notes import Note, VerifierKey, encode_note, encode_signature
from keystead.witness.decision import Conflict, Refuse, Submission, admit, decide
from keystead.witness.state import State, Stored

__all__ = ["Answer", "Service"]

_TEXT = b"text/plain; charset=utf-8"
_SIZE = b"text/x.tlog.size"


class Answer(NamedTuple):
    """What goes out; ``outcome`` is the label that it is counted by, out of a closed set."""

    status: int
    body: bytes
    outcome: str
    content_type: bytes = _TEXT


class Service:
    """Answers submissions, one at a time: a timestamp is right only as long as nothing overtakes.

    ``key`` and ``sign``: the witness's own. ``logs``: origin to the keys that sign for it.
    """

    def __init__(
        self,
        key: VerifierKey,
        sign: Callable[[bytes], bytes],
        *,
        logs: Mapping[str, Sequence[VerifierKey]],
        state: State,
        clock: Clock,
    ) -> None:
        self._key = key
        self._sign = sign
        self._logs = logs
        self._state = state
        self._clock = clock
        self._origins = {hashlib.sha256(o.encode()).hexdigest(): o for o in logs}

    def add_checkpoint(self, body: bytes) -> Answer:
        """Cosign a checkpoint that continues what is remembered, or say why not.

        Raises:
            LogUnavailable: the state cannot be read or written; nothing was cosigned.
        """
        submission = admit(body, self._logs)
        if isinstance(submission, Refuse):
            return _refused(submission)
        origin = submission.checkpoint.origin
        stored = self._state.latest(origin)
        decision = decide(stored, submission)
        if isinstance(decision, Refuse):
            return _refused(decision)
        if isinstance(decision, Conflict):
            return _conflict(decision.size)
        return self._cosigned(origin, stored, submission)

    def _cosigned(self, origin: str, stored: Stored | None, submission: Submission) -> Answer:
        time_s = self._clock.now_ms() // 1000
        signed = cosign(submission.note.text, self._key, time_s, self._sign)
        note = Note(submission.note.text, (*submission.note.signatures, signed))
        new = submission.checkpoint
        if not self._state.advance(origin, stored, Stored(new.size, new.root, encode_note(note))):
            overtaken = self._state.latest(origin)
            return _conflict(0 if overtaken is None else overtaken.size)
        return Answer(200, encode_signature(signed).encode(), "cosigned")

    def checkpoint(self, origin_hash: str) -> Answer:
        """The latest checkpoint of a log, as the log and this witness signed it.

        ``origin_hash``: the SHA-256 of its origin, in lower-case hex.

        Raises:
            LogUnavailable: the state cannot be read.
        """
        origin = self._origins.get(origin_hash)
        stored = None if origin is None else self._state.latest(origin)
        if stored is None:
            return Answer(404, b"no checkpoint of such a log was ever cosigned here\n", "not_found")
        return Answer(200, stored.note, "checkpoint")

    def sizes(self) -> dict[str, int]:
        """Each log's origin, and the size of its latest checkpoint; those without one left out.

        Raises:
            LogUnavailable: the state cannot be read.
        """
        latest = {origin: self._state.latest(origin) for origin in self._logs}
        return {origin: stored.size for origin, stored in latest.items() if stored is not None}


def _refused(refused: Refuse) -> Answer:
    return Answer(refused.status, f"{refused.reason}\n".encode(), f"refused_{refused.status}")


def _conflict(size: int) -> Answer:
    return Answer(409, b"%d\n" % size, "conflict", _SIZE)
