"""Every error Keystead raises on purpose, split by whose fault it is and what to do next.

::

    KeysteadError
    ├── CallerError               the request cannot be served as it is: change it
    │   ├── MalformedRequest      malformed_request    400
    │   ├── Unauthenticated       unauthenticated      401
    │   ├── HandleInvalid         handle_invalid       401
    │   ├── PermissionDenied      permission_denied    403
    │   ├── PurposeMismatch       purpose_mismatch     403
    │   ├── ContextMismatch       context_mismatch     403
    │   ├── AlgorithmForbidden    algorithm_forbidden  403
    │   ├── HandleExpired         handle_expired       403
    │   ├── HandleRevoked         handle_revoked       403
    │   ├── ApprovalRequired      approval_required    403
    │   ├── NotFound              not_found            404
    │   ├── KeyStateError         key_state            409
    │   ├── ReplayConflict        replay_conflict      409
    │   ├── Conflict              conflict             409
    │   └── LimitExceeded         limit_exceeded       429
    ├── ServiceError              the service cannot serve it now: the same request may work later
    │   ├── Overloaded            overloaded           503
    │   ├── ReservationEnded      reservation_ended    503
    │   ├── CustodyUnavailable    custody_unavailable  503
    │   ├── LogUnavailable        log_unavailable      503
    │   │   └── CommitContended   another node came between, nothing was applied: do it again
    │   └── StateRolledBack       state_rolled_back    503
    ├── InvariantViolation        Keystead is wrong: report it      internal  500
    ├── SignatureInvalid          what was verified does not verify
    │   ├── SignedByCompromised   it verifies, and the key that made it is known to be lost
    │   ├── ProofInvalid          the log does not hold it, or is not what it was
    │   └── QuorumMissing         the log signed it, and too few of its witnesses have
    └── StartupError              the operator's machine or data folder: mend it and start again

A message says what was expected, what was met, and (``hint``) what to do next. It never holds a
secret. The wire form, RFC 9457 problem documents, exists only at the edge.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AlgorithmForbidden",
    "ApprovalRequired",
    "CallerError",
    "CommitContended",
    "Conflict",
    "ContextMismatch",
    "CustodyUnavailable",
    "HandleExpired",
    "HandleInvalid",
    "HandleRevoked",
    "InvariantViolation",
    "KeyStateError",
    "KeysteadError",
    "LimitExceeded",
    "LogUnavailable",
    "MalformedRequest",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "ProofInvalid",
    "PurposeMismatch",
    "QuorumMissing",
    "ReplayConflict",
    "ReservationEnded",
    "ServiceError",
    "SignatureInvalid",
    "SignedByCompromised",
    "StartupError",
    "StateRolledBack",
    "Unauthenticated",
    "error_for_code",
]


class KeysteadError(Exception):
    """Root of the tree; ``code`` is the stable name on the wire, empty where there is none."""

    code: ClassVar[str] = ""
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s
        self.request_id = ""  # the node's own, where a client met the error as an answer

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class CallerError(KeysteadError):
    """The request cannot be served as it is; sending it again will not help."""

    status = 400


class MalformedRequest(CallerError):
    """The bytes, fields or values of a request are not what the operation takes."""

    code = "malformed_request"


class Unauthenticated(CallerError):
    """No credential, or one that this deployment does not know."""

    code = "unauthenticated"
    status = 401


class HandleInvalid(CallerError):
    """The handle does not parse, is not this deployment's, or its chain of tags does not hold."""

    code = "handle_invalid"
    status = 401


class PermissionDenied(CallerError):
    """The principal or handle is known, and may not do this."""

    code = "permission_denied"
    status = 403


class PurposeMismatch(CallerError):
    """The operation belongs to another purpose than the key's (invariant I1)."""

    code = "purpose_mismatch"
    status = 403


class ContextMismatch(CallerError):
    """The context is outside what the handle allows, or not the one the data was wrapped in."""

    code = "context_mismatch"
    status = 403


class AlgorithmForbidden(CallerError):
    """The algorithm is not in the key's policy, or not in the handle's."""

    code = "algorithm_forbidden"
    status = 403


class HandleExpired(CallerError):
    """The handle's ``not_after`` has passed."""

    code = "handle_expired"
    status = 403


class HandleRevoked(CallerError):
    """The handle, a link of its chain, or its key's generation was revoked."""

    code = "handle_revoked"
    status = 403


class ApprovalRequired(CallerError):
    """The action is guarded and waits for other people's approval (invariant I8)."""

    code = "approval_required"
    status = 403


class NotFound(CallerError):
    """There is no such object."""

    code = "not_found"
    status = 404


class KeyStateError(CallerError):
    """The version's lifecycle state does not allow this (SP 800-57 Part 1 Rev. 5, section 7)."""

    code = "key_state"
    status = 409


class ReplayConflict(CallerError):
    """The idempotency key was used before for another payload (invariant I6)."""

    code = "replay_conflict"
    status = 409


class Conflict(CallerError):
    """The object has moved on since the request was made: read it again, then decide."""

    code = "conflict"
    status = 409


class LimitExceeded(CallerError):
    """A bound of ``limits.py``, of the handle or of the key would be passed."""

    code = "limit_exceeded"
    status = 429


class ServiceError(KeysteadError):
    """The service cannot serve the request now; the same request may be sent again."""

    status = 503


class Overloaded(ServiceError):
    """More work is waiting than the queue's named length."""

    code = "overloaded"


class ReservationEnded(ServiceError):
    """A best-effort reservation ended before this use could be spent from it."""

    code = "reservation_ended"


class CustodyUnavailable(ServiceError):
    """The custody that holds the key does not answer, or cannot open its material."""

    code = "custody_unavailable"


class LogUnavailable(ServiceError):
    """The record of the use could not be made durable, so the result was withheld (I2)."""

    code = "log_unavailable"


class CommitContended(LogUnavailable):
    """Another node's commit came between: nothing of this one was applied, so do it again."""


class StateRolledBack(ServiceError):
    """The registry is older than, or other than, what its seals and anchors remember (I10)."""

    code = "state_rolled_back"


class InvariantViolation(KeysteadError):
    """One of I1 to I12 does not hold: a fault of Keystead's, never of the caller's."""

    code = "internal"
    status = 500


class SignatureInvalid(KeysteadError):
    """The artefact does not verify under the key that it names."""


class SignedByCompromised(SignatureInvalid):
    """The signature is arithmetically right, but the version that made it is compromised (I3).

    ``version``: its number. ``compromised_epoch``: the epoch under which it was declared so: what
    the log committed under a lower one was signed before. 0: not known.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        retry_after_s: float | None = None,
        version: int = 0,
        compromised_epoch: int = 0,
    ) -> None:
        super().__init__(message, hint=hint, retry_after_s=retry_after_s)
        self.version = version
        self.compromised_epoch = compromised_epoch


class ProofInvalid(SignatureInvalid):
    """A Merkle proof does not hold: the entry is not in that tree, or the trees do not agree."""


class QuorumMissing(SignatureInvalid):
    """The log's signature holds, but too few of the policy's witnesses have cosigned it (yet)."""


class StartupError(KeysteadError):
    """The node cannot start on this machine or data folder; nothing was changed."""


def _wire_classes() -> dict[str, type[KeysteadError]]:
    found: dict[str, type[KeysteadError]] = {}
    waiting: list[type[KeysteadError]] = [KeysteadError]
    while waiting:
        cls = waiting.pop()
        waiting.extend(cls.__subclasses__())
        if "code" in vars(cls):  # one that only inherits its code does not stand for it
            found[cls.code] = cls
    return found


_BY_CODE = _wire_classes()


def error_for_code(
    code: str, message: str, *, hint: str = "", retry_after_s: float | None = None
) -> KeysteadError:
    """The error that a wire code stands for; an unknown code becomes :class:`KeysteadError`."""
    return _BY_CODE.get(code, KeysteadError)(message, hint=hint, retry_after_s=retry_after_s)
