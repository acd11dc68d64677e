"""The uses of keys over HTTP, one at a time or in a batch: the hot path, which logs nothing."""

from __future__ import annotations

from typing import NamedTuple

from keystead import limits
from keystead.errors import HandleInvalid, KeysteadError, MalformedRequest, Unauthenticated
from keystead.frames.messages import Answer, Done, Refused, Use
from keystead.front.admission import Admission, OpenBody
from keystead.front.bodies import (
    Head,
    Receive,
    Scope,
    bearer_of,
    check_json,
    idempotency_key_of,
    read_body,
    read_head,
)
from keystead.front.metrics import FrontMetrics
from keystead.front.problems import JSON_HEADERS, Reply, json_reply, problem_of, reply_of_refused
from keystead.front.published import Published
from keystead.front.uses import (
    AnsweredItem,
    Batch,
    BatchAnswer,
    BatchItem,
    FailedItem,
    decode_batch,
    decode_proof,
    decode_use,
    encode_answer,
    item_of,
    proof_frame,
    recode_facts,
)
from keystead.front.watch import RequestWatch
from keystead.keys.handles import parse
from keystead.keys.model import check_name
from keystead.keys.rollout.reports import about_key
from keystead.net.link import VaultLink

__all__ = ["DataPlane", "Operation"]


class Operation(NamedTuple):
    """One row of the routes: whose operation it is."""

    purpose: str
    operation: str


class DataPlane:
    """Turns requests into `Use` frames, and answers into JSON."""

    def __init__(
        self,
        link: VaultLink,
        admission: Admission,
        watch: RequestWatch,
        metrics: FrontMetrics,
        published: Published | None = None,
    ) -> None:
        self._published = published
        self._link = link
        self._admission = admission
        self._watch = watch
        self._metrics = metrics

    async def use(self, asked: Operation, scope: Scope, receive: Receive) -> Reply:
        """`POST /v1/{purpose}/{operation}`: one use under the handle of the header.

        Raises:
            Rejection, KeysteadError: what is wrong with the request, or too much.
            Disconnected: nobody waits for the answer.
        """
        waits = bool(scope["query_string"]) and self._waits(scope["query_string"])
        answer = await self._send(scope, receive, asked)
        if isinstance(answer, Refused):
            return reply_of_refused(answer)
        if waits:
            return await self._proven(answer)
        return Reply(200, JSON_HEADERS, encode_answer(answer))

    async def signal(self, name: str, operation: str, scope: Scope, receive: Receive) -> Reply:
        """`POST /v1/keys/{name}/reports` and `.../acknowledgements`: what a relying party tells.

        They are uses like any other, of the purpose that the handle is for.

        Raises:
            MalformedRequest: the path names what no key is named.
            Rejection, KeysteadError: what is wrong with the request, or too much.
            Disconnected: nobody waits for the answer.
        """
        check_name(name, "key name")
        answer = await self._send(scope, receive, None, signal=(name, operation))
        if isinstance(answer, Refused):
            return reply_of_refused(answer)
        return Reply(200, JSON_HEADERS, encode_answer(answer))

    async def _send(
        self,
        scope: Scope,
        receive: Receive,
        asked: Operation | None,
        *,
        signal: tuple[str, str] | None = None,
    ) -> Answer:
        """Read one use, and have the vault do it; a signal's purpose is that of its handle."""
        head = read_head(scope, body_bytes_max=limits.BODY_BYTES_MAX)
        handle = _handle_of(bearer_of(head.headers))
        check_json(head.headers)
        if asked is None:
            asked = Operation(str(parse(handle).body.purpose), "" if signal is None else signal[1])
        held = OpenBody(self._admission)
        try:
            body = await self._body(receive, head, held)
            key = await self._admission.enter(handle.encode(), client=scope.get("client"))
            try:
                envelope = decode_use(body)
                facts = recode_facts(asked.purpose, asked.operation, envelope.facts)
                proof = head.headers.get(b"keystead-proof")
                return await self._link.call(
                    Use(
                        id=self._link.take_id(),
                        handle=handle,
                        purpose=asked.purpose,
                        operation=asked.operation,
                        context=envelope.context,
                        facts=facts if signal is None else about_key(facts, *signal),
                        version=envelope.version,
                        idempotency_key=idempotency_key_of(head.headers),
                        reason=envelope.reason,
                        proof=None if proof is None else decode_proof(proof),
                    )
                )
            finally:
                self._admission.leave(key)
        finally:
            held.gone()

    def _waits(self, query: bytes) -> bool:
        """Whether the caller waits for the proof of its use.

        Raises:
            MalformedRequest: another query.
        """
        if query != b"wait=proof":
            raise MalformedRequest("expected no query but wait=proof")
        if self._published is None:
            raise MalformedRequest("this front does not serve the log, so it has no proofs")
        return True

    async def _proven(self, done: Done) -> Reply:
        """The answer with its proof; it is past admission, so that who waits holds up nobody."""
        proof = None
        receipt = done.receipt
        if receipt is not None and receipt.seq is not None and self._published:
            proof = await self._published.proof_soon(receipt.node, receipt.seq)
        text = None if proof is None else proof.encode().decode()
        return Reply(200, JSON_HEADERS, encode_answer(done, text))

    async def batch(self, scope: Scope, receive: Receive) -> Reply:
        """`POST /v1/batch`: many uses in one frame, each answered by itself.

        Raises:
            Rejection, KeysteadError: what is wrong with the batch as a whole; nothing was done.
            Disconnected: nobody waits for the answer.
        """
        head = read_head(scope, body_bytes_max=limits.BODY_BYTES_MAX)
        bearer = bearer_of(head.headers)
        check_json(head.headers)
        if b"idempotency-key" in head.headers or b"keystead-proof" in head.headers:
            raise MalformedRequest(
                "a batch has no idempotency-key or keystead-proof of its own",
                hint="Give each item its idempotency_key and proof",
            )
        held = OpenBody(self._admission)
        try:
            body = await self._body(receive, head, held)
            key = await self._admission.enter(bearer.encode(), client=scope.get("client"))
            try:
                items = await self._do_batch(decode_batch(body), bearer)
            finally:
                self._admission.leave(key)
        finally:
            held.gone()
        for item in items:
            self._metrics.item(item.problem.code if isinstance(item, FailedItem) else "ok")
        return json_reply(BatchAnswer(items))

    async def _do_batch(self, batch: Batch, bearer: str) -> list[AnsweredItem | FailedItem]:
        self._admission.enter_items(len(batch.items))
        try:
            return await self._answer_items(batch.items, bearer)
        finally:
            self._admission.leave_items(len(batch.items))

    async def _body(self, receive: Receive, head: Head, held: OpenBody) -> bytes:
        body = await read_body(
            receive,
            head,
            self._watch,
            body_bytes_max=limits.BODY_BYTES_MAX,
            grown=held.grown,
        )
        self._metrics.received(len(body))
        return body

    async def _answer_items(
        self, items: list[BatchItem], bearer: str
    ) -> list[AnsweredItem | FailedItem]:
        """Send what is well formed; the rest is answered here, in its place."""
        answers: list[AnsweredItem | FailedItem | None] = []
        uses: list[Use] = []
        for item in items:
            try:
                uses.append(self._use_of(item, bearer))
                answers.append(None)
            except KeysteadError as exc:
                answers.append(FailedItem(problem_of(exc)))
        done: list[Answer] = await self._link.call_many(uses)
        given = iter(done)
        return [item_of(next(given)) if answer is None else answer for answer in answers]

    def _use_of(self, item: BatchItem, bearer: str) -> Use:
        return Use(
            id=self._link.take_id(),
            handle=_handle_of(bearer if item.handle is None else item.handle),
            purpose=item.purpose,
            operation=item.operation,
            context=item.context,
            facts=recode_facts(item.purpose, item.operation, item.facts),
            version=item.version,
            idempotency_key=item.idempotency_key,
            reason=item.reason,
            proof=None if item.proof is None else proof_frame(item.proof),
        )


def _handle_of(token: str) -> str:
    if not token:
        raise Unauthenticated("expected a handle", hint="Send it as 'Authorization: Bearer ks1...'")
    if len(token) > limits.HANDLE_BYTES_MAX:
        raise HandleInvalid(f"expected a handle of at most {limits.HANDLE_BYTES_MAX} bytes")
    return token
