"""Uses of keys: one request a use, what comes of it, and many uses in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from keystead import limits
from keystead.client.core import (
    Call,
    Flow,
    Problem,
    Reply,
    Request,
    Session,
    Turn,
    decode,
    exchange,
    is_success,
    problem_error,
)
from keystead.client.origins import is_of_node
from keystead.client.proof import Bound, Proof, is_bound, proof_header, prove
from keystead.errors import KeysteadError, ServiceError
from keystead.keys.framing.base import Facts
from keystead.keys.handles import Handle
from keystead.keys.use import Asked

__all__ = ["Batch", "Receipt", "Use", "Used"]

T = TypeVar("T")

_ITEM_BYTES = 1024
"""Room for an item's members beside its facts, its handle and its certificate."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Where a use stands in the log, and what did it.

    ``seq``: index in the log of ``node``, ``None`` only for ``ack`` ``best_effort``, whose record
    follows.
    ``replayed``: the use was done before, under the same idempotency key, and not done again.
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


class Used(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A use that was done and recorded: its ``result``, which may be a secret, and its receipt.

    ``log_proof``: the tlog-proof of its record, if it was waited for and came in time.
    """

    result: T
    receipt: Receipt
    log_proof: bytes | None = None

    def __repr__(self) -> str:
        """The receipt only: a result may be plaintext, a derived secret or a token."""
        return f"<Used {self.result.__class__.__name__}, {self.receipt!r}>"


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One use's answer, or one item of a batch's."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    receipt: Receipt | None = None
    proof: str | None = None
    problem: Problem | None = None


class _Answers(msgspec.Struct, frozen=True):
    results: list[_Answer]


class _Ready(msgspec.Struct, frozen=True):
    deployment: Annotated[str, msgspec.Meta(min_length=1)]


class _Secret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of request bodies: no repr of theirs shows what they hold."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _Body(_Secret, frozen=True, kw_only=True, omit_defaults=True):
    context: str
    facts: msgspec.Raw
    version: int = 0
    reason: str | None = None


class _Item(_Body, frozen=True, kw_only=True, omit_defaults=True):
    purpose: str
    operation: str
    handle: str | None = None
    idempotency_key: str
    proof: Proof | None = None


class _Items(_Secret, frozen=True, kw_only=True):
    items: list[_Item]


class Use(Call[Used[T]], Generic[T], frozen=True, kw_only=True):
    """One use of a key. It is one use however often it is run: its idempotency key stays.

    ``facts``: JSON of ``facts_type``; ``result``: the type of what comes back.
    """

    purpose: str
    operation: str
    handle: Handle
    context: str
    facts: bytes
    facts_type: type[Facts]
    result: type[T]
    version: int
    idempotency_key: str
    reason: str | None = None
    wait_proof: bool = False

    def __repr__(self) -> str:
        """Without the facts, which may be plaintext."""
        return f"<Use {self.purpose}.{self.operation} in {self.context} by {self.handle!r}>"

    def flow(self, session: Session, turn: Turn) -> Flow[Used[T]]:
        """Send it under its idempotency key, with a proof if the handle is bound."""
        until_s = turn.monotonic_s + session.retry.deadline_s
        if needs_proof(session, self):
            turn = yield from _learn_deployment(session, turn, until_s)
        body = msgspec.json.encode(
            _Body(
                context=self.context,
                facts=msgspec.Raw(self.facts),
                version=self.version,
                reason=self.reason,
            )
        )
        reply, _ = yield from exchange(
            session, lambda now_ms: self._request(session, body, now_ms), turn, until_s
        )
        return _used(decode(reply.body, _Answer), self.result)

    def _request(self, session: Session, body: bytes, now_ms: int) -> Request:
        headers = {
            "authorization": f"Bearer {self.handle.reveal()}",
            "content-type": "application/json",
            "idempotency-key": self.idempotency_key,
        }
        proof = _proof(session, self, now_ms)
        if proof is not None:
            headers["keystead-proof"] = proof_header(proof)
        path = f"/v1/{self.purpose}/{self.operation}" + "?wait=proof" * self.wait_proof
        return Request(method="POST", path=path, headers=headers, body=body)


class Batch(Call[list[Used[Any] | KeysteadError]], frozen=True, kw_only=True):
    """Many uses in few requests, each under its own idempotency key.

    One list item comes back a use, in order: what it gave, or why not. A request that fails as a
    whole gives its error to each of its uses, and the others go on. Nothing is sent again because
    one item of it was refused: run the refused :class:`Use` objects again, they stay the same uses.
    """

    uses: tuple[Use[Any], ...]

    def flow(self, session: Session, turn: Turn) -> Flow[list[Used[Any] | KeysteadError]]:
        """Send chunk after chunk, all before one deadline."""
        until_s = turn.monotonic_s + session.retry.deadline_s
        found: list[Used[Any] | KeysteadError] = []
        for chunk in _chunks(self.uses, session.bound):
            try:
                if any(needs_proof(session, use) for use in chunk):
                    turn = yield from _learn_deployment(session, turn, until_s)
                reply, turn = yield from exchange(session, _maker(session, chunk), turn, until_s)
                found.extend(_read(reply, chunk))
            except KeysteadError as exc:
                found.extend(exc for _ in chunk)
        return found


def _maker(session: Session, chunk: Sequence[Use[Any]]) -> Callable[[int], Request]:
    # The first handle travels once, as the batch's own; most batches have no other.
    common = chunk[0].handle.reveal()

    def make(now_ms: int) -> Request:
        items = [
            _Item(
                purpose=use.purpose,
                operation=use.operation,
                context=use.context,
                facts=msgspec.Raw(use.facts),
                version=use.version,
                reason=use.reason,
                handle=None if (token := use.handle.reveal()) == common else token,
                idempotency_key=use.idempotency_key,
                proof=_proof(session, use, now_ms),
            )
            for use in chunk
        ]
        return Request(
            method="POST",
            path="/v1/batch",
            headers={
                "authorization": f"Bearer {common}",
                "content-type": "application/json",
            },
            body=msgspec.json.encode(_Items(items=items)),
        )

    return make


def _chunks(uses: Sequence[Use[Any]], bound: Bound | None) -> Iterator[Sequence[Use[Any]]]:
    """Cut by number of items and by bytes; a use too big for any goes alone, to be refused."""
    proof_bytes = 2 * len(bound.certificate or b"") if bound else 0
    start, held = 0, 0
    for at, use in enumerate(uses):
        size = len(use.facts) + len(use.handle.reveal()) + proof_bytes + _ITEM_BYTES
        full = at - start >= limits.BATCH_ITEMS_MAX or held + size > limits.BODY_BYTES_MAX
        if full and at > start:
            yield uses[start:at]
            start, held = at, 0
        held += size
    if start < len(uses):
        yield uses[start:]


def _read(reply: Reply, chunk: Sequence[Use[Any]]) -> list[Used[Any] | KeysteadError]:
    answers = decode(reply.body, _Answers).results
    if len(answers) != len(chunk):
        raise ServiceError(f"expected {len(chunk)} results of a batch, met {len(answers)}")
    return [_item(answer, use.result) for answer, use in zip(answers, chunk, strict=True)]


def _item(answer: _Answer, form: type[T]) -> Used[T] | KeysteadError:
    if answer.problem is not None:
        return problem_error(answer.problem)
    try:
        return _used(answer, form)
    except ServiceError as exc:
        return exc


def _used(answer: _Answer, form: type[T]) -> Used[T]:
    if answer.receipt is None:
        raise ServiceError("expected a receipt with the result, met none")
    proof, node = None if answer.proof is None else answer.proof.encode(), answer.receipt.node
    if proof is not None and node and not is_of_node(proof, node):
        proof = None  # of another log: the node that answers a repeated use is not its record's
    return Used(result=decode(bytes(answer.result), form), receipt=answer.receipt, log_proof=proof)


def needs_proof(session: Session, use: Use[Any]) -> bool:
    """Whether the use's handle is bound, and this client can prove who it is."""
    return session.bound is not None and is_bound(use.handle)


def _proof(session: Session, use: Use[Any], now_ms: int) -> Proof | None:
    if session.bound is None or session.deployment is None or not is_bound(use.handle):
        return None
    # Read back from the JSON that is sent, because the vault hashes what it reads from there.
    facts = msgspec.json.decode(use.facts, type=use.facts_type)
    return prove(
        session.bound,
        use.handle,
        Asked(
            purpose=use.purpose,
            operation=use.operation,
            context=use.context,
            version=use.version,
        ),
        msgspec.msgpack.encode(facts),
        deployment=session.deployment,
        nonce=use.idempotency_key,
        now_ms=now_ms,
    )


def _learn_deployment(session: Session, turn: Turn, until_s: float) -> Flow[Turn]:
    """Ask once what the deployment is called, as a proof holds for one deployment only."""
    if session.deployment is None:
        request = Request(method="GET", path="/ready", accept=_names_deployment)
        reply, turn = yield from exchange(session, lambda _: request, turn, until_s)
        session.deployment = decode(reply.body, _Ready).deployment
    return turn


def _names_deployment(reply: Reply) -> bool:
    """A node that is not ready, for want of a checkpoint for example, may still do this use."""
    try:
        return is_success(reply) or bool(decode(reply.body, _Ready).deployment)
    except ServiceError:
        return False
