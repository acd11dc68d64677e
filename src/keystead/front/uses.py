"""JSON of the data plane to frames and back: two passes over a request, none of them untyped.

The first pass reads the envelope and leaves the facts as they are; the second reads the facts as
the type of their operation. Facts with free-form parts (JWT claims) take the strict parser instead,
which refuses duplicate members and deep nesting.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from keystead import limits
from keystead.encoding import b64u_decode, strict_json
from keystead.errors import LimitExceeded, MalformedRequest
from keystead.frames.messages import Done, Proof, Receipt, Refused
from keystead.front.problems import Problem, malformed, problem_of_refused
from keystead.keys.operations import FACTS, facts_type

__all__ = [
    "AnsweredItem",
    "Batch",
    "BatchAnswer",
    "BatchItem",
    "Envelope",
    "FailedItem",
    "ProofFields",
    "ProvenItem",
    "ReceiptInfo",
    "answer_of",
    "decode_batch",
    "decode_proof",
    "decode_use",
    "encode_answer",
    "item_of",
    "proof_frame",
    "recode_facts",
]

_Context = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.CONTEXT_BYTES_MAX)]
_Reason = Annotated[str, msgspec.Meta(max_length=limits.REASON_BYTES_MAX)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_Instant = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_Token = Annotated[str, msgspec.Meta(max_length=limits.HANDLE_BYTES_MAX)]
_Once = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.IDEMPOTENCY_KEY_BYTES_MAX)]


class ProofFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Proof of possession as JSON: ``signature`` and ``certificate`` (DER) in standard base64."""

    time_ms: _Instant
    signature: bytes
    certificate: bytes | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of one use; ``version`` 0 is the primary one."""

    context: _Context
    facts: msgspec.Raw
    version: _Number = 0
    reason: _Reason | None = None


class BatchItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One use of a batch; ``handle`` left out is that of the batch's own header."""

    purpose: str
    operation: str
    context: _Context
    facts: msgspec.Raw
    version: _Number = 0
    reason: _Reason | None = None
    handle: _Token | None = None
    idempotency_key: _Once | None = None
    proof: ProofFields | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Uses that travel together; each stands or falls alone."""

    items: list[BatchItem]


class ReceiptInfo(msgspec.Struct, frozen=True):
    """``frames.Receipt`` with names: where the use stands in the log, and what did it."""

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


class AnsweredItem(msgspec.Struct, frozen=True):
    """What came of one use: the operation's result, with byte strings in standard base64."""

    result: Any
    receipt: ReceiptInfo | None


class ProvenItem(msgspec.Struct, frozen=True):
    """:class:`AnsweredItem` with the tlog-proof that the log holds the use."""

    result: Any
    receipt: ReceiptInfo | None
    proof: str


class FailedItem(msgspec.Struct, frozen=True):
    """One item of a batch that was refused."""

    problem: Problem


class BatchAnswer(msgspec.Struct, frozen=True):
    """One answer an item, in their order."""

    results: list[AnsweredItem | FailedItem]


def _is_free_form(node: Any) -> bool:  # noqa: ANN401  a tree of msgspec's own node types
    """Whether a type holds values or member names that no type describes."""
    if isinstance(node, msgspec.inspect.AnyType | msgspec.inspect.DictType):
        return True
    if isinstance(node, msgspec.inspect.StructType):
        return any(_is_free_form(field.type) for field in node.fields)
    if isinstance(node, msgspec.inspect.UnionType):
        return any(map(_is_free_form, node.types))
    return _is_free_form(getattr(node, "item_type", None)) if hasattr(node, "item_type") else False


_ENVELOPE = msgspec.json.Decoder(Envelope)
_BATCH = msgspec.json.Decoder(Batch)
_PROOF = msgspec.json.Decoder(ProofFields)
_TYPED = {pair: msgspec.json.Decoder(kind) for pair, kind in FACTS.items()}
_FREE_FORM = {
    pair: kind for pair, kind in FACTS.items() if _is_free_form(msgspec.inspect.type_info(kind))
}
_RESULT = msgspec.msgpack.Decoder()
_MSGPACK = msgspec.msgpack.Encoder()
_JSON = msgspec.json.Encoder()
_UNREADABLE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


def decode_use(body: bytes) -> Envelope:
    """The envelope of one use; its facts are not read yet.

    Raises:
        MalformedRequest: not JSON, or not the fields of an envelope.
    """
    try:
        return _ENVELOPE.decode(body)
    except _UNREADABLE as exc:
        raise malformed(exc) from None


def decode_batch(body: bytes) -> Batch:
    """The envelope of a batch; the facts of its items are not read yet.

    Raises:
        MalformedRequest: not JSON, not the fields of a batch, or no items.
        LimitExceeded: more than ``limits.BATCH_ITEMS_MAX`` items.
    """
    try:
        batch = _BATCH.decode(body)
    except _UNREADABLE as exc:
        raise malformed(exc) from None
    if not batch.items:
        raise MalformedRequest("expected items in the batch, met none")
    if len(batch.items) > limits.BATCH_ITEMS_MAX:
        raise LimitExceeded(
            f"expected at most {limits.BATCH_ITEMS_MAX} items, met {len(batch.items)}"
        )
    return batch


def recode_facts(purpose: str, operation: str, raw: msgspec.Raw) -> bytes:
    """The facts of an operation, checked against their type, as msgpack for the frame.

    Raises:
        MalformedRequest: no such operation, or not its facts.
    """
    facts_type(purpose, operation)
    pair = (purpose, operation)
    free_form = _FREE_FORM.get(pair)
    try:
        if free_form is not None:
            value = strict_json(bytes(raw), depth_max=limits.JSON_DEPTH_MAX)
            return _MSGPACK.encode(msgspec.convert(value, free_form))
        return _MSGPACK.encode(_TYPED[pair].decode(raw))
    except _UNREADABLE as exc:
        raise malformed(exc, "facts") from None


def decode_proof(header: bytes) -> Proof:
    """The ``Keystead-Proof`` header: base64url of the JSON of :class:`ProofFields`.

    Raises:
        MalformedRequest: not base64url, or not the fields of a proof.
    """
    try:
        return proof_frame(_PROOF.decode(b64u_decode(header.decode("ascii"))))
    except _UNREADABLE as exc:
        raise malformed(exc, "keystead-proof") from None


def proof_frame(fields: ProofFields) -> Proof:
    """A proof as the frame has it."""
    return Proof(fields.time_ms, fields.signature, fields.certificate)


def encode_answer(done: Done, proof: str | None = None) -> bytes:
    """The JSON of what a use gave; with a proof, if it was waited for."""
    answer = answer_of(done)
    if proof is None:
        return _JSON.encode(answer)
    return _JSON.encode(ProvenItem(answer.result, answer.receipt, proof))


def answer_of(done: Done) -> AnsweredItem:
    """What a use gave, with the receipt's fields named."""
    return AnsweredItem(_RESULT.decode(done.result), _receipt(done.receipt))


def item_of(answer: Done | Refused) -> AnsweredItem | FailedItem:
    """One answer of a batch."""
    if isinstance(answer, Done):
        return answer_of(answer)
    return FailedItem(problem_of_refused(answer))


def _receipt(receipt: Receipt | None) -> ReceiptInfo | None:
    if receipt is None:
        return None
    return ReceiptInfo(*msgspec.structs.astuple(receipt))
