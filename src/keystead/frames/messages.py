"""What fronts and vault say to each other. Facts, commands and results travel as msgpack inside.

A frame is a list of requests, or a list of answers; each answer carries its request's id. The order
of answers is the vault's own.
"""

from __future__ import annotations

import msgspec

__all__ = [
    "Admin",
    "Answer",
    "Checkpoint",
    "Done",
    "Metric",
    "NodeView",
    "Proof",
    "Public",
    "Receipt",
    "Refused",
    "Request",
    "SignedHead",
    "Status",
    "StatusInfo",
    "Tend",
    "Use",
    "WitnessView",
]


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Proof(_Message, frozen=True):
    """Proof of possession of what a handle is bound to; see ``keys.use.proof_message``.

    ``certificate``: DER, for handles bound to one. ``time_ms``: the signer's clock.
    """

    time_ms: int
    signature: bytes
    certificate: bytes | None = None


class WitnessView(_Message, frozen=True):
    """How a witness stands to the log: what it cosigned last and when, or why it does not."""

    name: str
    size: int
    time_s: int
    trouble: str = ""


class Use(_Message, tag="use", frozen=True):
    """One use of a key under a handle; ``facts`` is the msgpack of the operation's facts."""

    id: int
    handle: str
    purpose: str
    operation: str
    context: str
    facts: bytes
    version: int = 0
    idempotency_key: str | None = None
    reason: str | None = None
    proof: Proof | None = None
    unix_peer: bytes | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


class Admin(_Message, tag="admin", frozen=True):
    """One command: msgpack of ``keys.commands.Command``; ``token`` says whose it is."""

    id: int
    token: str
    command: bytes
    idempotency_key: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


class Public(_Message, tag="public", frozen=True):
    """What anyone may read of a key; the result is (seconds it may be kept, the document).

    ``what``: ``keys``, ``jwks``, ``certificate``; or a list, ``krl``, ``revoked_hosts`` or
    ``deny``, each also with ``.note``.
    """

    id: int
    what: str
    name: str


class Status(_Message, tag="status", frozen=True):
    """How the vault is: readiness and counters."""

    id: int


class Tend(_Message, tag="tend", frozen=True):
    """The steward's round: prune what has expired; ``findings`` are what it found wrong.

    ``cosigned``: the latest checkpoint with the cosignatures that it got. ``behind``: witnesses
    that have cosigned a size which this log has not.
    """

    id: int
    findings: tuple[str, ...] = ()
    cosigned: bytes = b""
    witnesses: tuple[WitnessView, ...] = ()
    behind: tuple[tuple[str, int], ...] = ()


class Checkpoint(_Message, tag="checkpoint", frozen=True):
    """The steward asks for the tree head of all that is committed; see :class:`SignedHead`."""

    id: int


Request = Use | Admin | Public | Status | Tend | Checkpoint


class Receipt(_Message, frozen=True):
    """Where a use stands in the log, and what did it.

    ``seq``: index in the log of ``node``; ``None`` only for ``best_effort``, whose record follows.
    """

    seq: int | None
    epoch: int
    key: str
    version: int
    kid: str
    algorithm: str
    ack: str
    request_id: str
    replayed: bool = False
    node: str = ""


class Done(_Message, tag="done", frozen=True):
    """``result``: msgpack; the receipt is there for uses and changes."""

    id: int
    result: bytes
    receipt: Receipt | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


class Refused(_Message, tag="refused", frozen=True):
    """A problem, by its stable code (design section 9)."""

    id: int
    code: str
    message: str
    hint: str = ""
    retry_after_s: float | None = None
    request_id: str = ""


Answer = Done | Refused


class Metric(msgspec.Struct, frozen=True, array_like=True):
    """One sample of the vault's; ``kind``: ``counter`` or ``gauge``; names as in Prometheus."""

    name: str
    kind: str
    help: str
    labels: dict[str, str]
    value: float


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One node of the deployment, as it last said itself.

    ``epoch``: whatever it releases is held to the state of this epoch or a later one. ``leads``: it
    drives rollouts on, as far as the node that was asked knows.
    """

    node: str
    epoch: int
    leads: bool
    url: str = ""


class StatusInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The result of :class:`Status`, in msgpack.

    ``reasons``: why it is not ready, empty if it is. ``protections``: each protection that can be
    off, and how it stands (``seal: file``, ``anchor: off``, ``memory: locked``).
    """

    ready: bool
    reasons: tuple[str, ...]
    deployment: str
    node: str
    epoch: int
    last_seq: int
    keys: int
    protections: dict[str, str]
    metrics: tuple[Metric, ...]
    nodes: tuple[NodeView, ...] = ()


class SignedHead(msgspec.Struct, frozen=True, kw_only=True):
    """The result of :class:`Checkpoint`, in msgpack: a tree head that the vault computed itself.

    ``vkey``: the log's verifier key as text. ``note``: the signed note, without cosignatures.
    """

    vkey: str
    size: int
    root: bytes
    note: bytes
    time_ms: int
