"""What needs no handle: health, readiness, metrics, and the public parts of keys."""

from __future__ import annotations

import asyncio
import hashlib

import msgspec

from keystead import limits
from keystead.encoding import b64u_encode
from keystead.errors import ServiceError
from keystead.frames.messages import NodeView, Public, Refused, Status, StatusInfo
from keystead.front.admission import Admission
from keystead.front.bodies import Receive, Scope, read_head
from keystead.front.metrics import CONTENT_TYPE, FrontMetrics, render
from keystead.front.problems import JSON_HEADERS, HeaderList, Reply, json_reply, reply_of_refused
from keystead.keys.model import check_name
from keystead.net.link import VaultLink

__all__ = ["PUBLIC_PARTS", "Inspection", "Readiness", "has_current"]

_STATUS_TIMEOUT_S = 2.0
"""How long the vault may take to say how it is: a load balancer's probe gives up after a few."""
_ETAG_CHARS = 22
"""Of the base64url of a SHA-256: 132 bits."""
_TEXT = b"text/plain; charset=utf-8"
_PUBLIC = msgspec.msgpack.Decoder(tuple[int, bytes])
"""What the vault answers: how many seconds a reader may keep the document, and the document."""

PUBLIC_PARTS: dict[str, tuple[str, bytes]] = {
    "public": ("keys", b"application/json"),
    "jwks.json": ("jwks", b"application/jwk-set+json"),  # RFC 7517 section 8.5.2
    "certificate": ("certificate", b"application/x-pem-file"),
    "krl": ("krl", b"application/octet-stream"),
    "krl.note": ("krl.note", _TEXT),
    "revoked_hosts": ("revoked_hosts", _TEXT),
    "revoked_hosts.note": ("revoked_hosts.note", _TEXT),
    "deny.json": ("deny", b"application/json"),
    "deny.note": ("deny.note", _TEXT),
}
"""Last part of the path, to what the vault is asked and the type of the answer."""


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the node does work, and which protections are on.

    ``reasons``: why it is not ready. The vault's fields are missing if it did not answer.
    """

    ready: bool
    reasons: tuple[str, ...]
    protections: dict[str, str] = {}
    deployment: str = ""
    node: str = ""
    epoch: int | None = None
    last_seq: int | None = None
    keys: int | None = None
    nodes: tuple[NodeView, ...] = ()


class Inspection:
    """Answers for whoever asks; each costs the vault one small request at most."""

    def __init__(
        self,
        link: VaultLink,
        admission: Admission,
        metrics: FrontMetrics,
        protections: dict[str, str],
    ) -> None:
        self._link = link
        self._protections = protections
        self._admission = admission
        self._metrics = metrics
        self._asking: asyncio.Task[StatusInfo | str] | None = None

    async def health(self, scope: Scope, receive: Receive) -> Reply:
        """`GET /health`: this front lives. It asks nobody, and is never refused."""
        del scope, receive
        return json_reply({"status": "ok"})

    async def ready(self, scope: Scope, receive: Receive) -> Reply:
        """`GET /ready`: 200 if the vault says so, else 503 with its reasons."""
        del scope, receive
        status = await self._status()
        if isinstance(status, str):
            info = Readiness(ready=False, reasons=(status,))
        else:
            info = Readiness(
                ready=status.ready,
                reasons=status.reasons,
                protections=status.protections | self._protections,
                deployment=status.deployment,
                node=status.node,
                epoch=status.epoch,
                last_seq=status.last_seq,
                keys=status.keys,
                nodes=status.nodes,
            )
        reply = json_reply(info, status=200 if info.ready else 503)
        if info.ready:
            return reply
        return reply._replace(headers=[*JSON_HEADERS, (b"retry-after", b"1")], code="not_ready")

    async def metrics(self, scope: Scope, receive: Receive) -> Reply:
        """`GET /metrics`: the front's counters, and the vault's if it answers."""
        del scope, receive
        status = await self._status()
        families = self._metrics.families(self._admission, self._link)
        page = render(families, None if isinstance(status, str) else status)
        return Reply(200, _headers(CONTENT_TYPE), page)

    async def public(self, scope: Scope, receive: Receive, *, name: str, part: str) -> Reply:
        """`GET /v1/keys/{name}/` and one of :data:`PUBLIC_PARTS`; 304 to who has it already.

        Raises:
            MalformedRequest: not a key's name.
            Rejection: too much at a time.
            ServiceError: the vault's answer is none that this front knows.
        """
        del receive  # a body means nothing here (RFC 9110 section 9.3.1)
        head = read_head(scope, body_bytes_max=limits.ADMIN_BODY_BYTES_MAX)
        check_name(name, "key name")
        what, content_type = PUBLIC_PARTS[part]
        key = await self._admission.enter(b"", client=scope.get("client"))
        try:
            answer = await self._link.call(Public(self._link.take_id(), what, name))
        finally:
            self._admission.leave(key)
        if isinstance(answer, Refused):
            return reply_of_refused(answer)
        try:
            age_s, body = _PUBLIC.decode(answer.result)
        except msgspec.DecodeError as exc:
            raise ServiceError(
                "the vault's answer does not parse", hint="Are front and vault of one release?"
            ) from exc
        etag = f'"{b64u_encode(hashlib.sha256(body).digest())[:_ETAG_CHARS]}"'.encode("ascii")
        headers = [
            *((b"cache-control", b"public, max-age=%d" % age_s), (b"etag", etag)),
            *(item for item in JSON_HEADERS[1:] if item[0] != b"cache-control"),
        ]
        if has_current(head.headers.get(b"if-none-match", b""), etag):
            return Reply(304, headers, b"")  # RFC 9110 section 15.4.5
        return Reply(200, [(b"content-type", content_type), *headers], body)

    async def _status(self) -> StatusInfo | str:
        """How the vault is, or why that is not known; one question at a time, shared by all."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    def _asked(self, _task: asyncio.Task[StatusInfo | str]) -> None:
        self._asking = None

    async def _ask(self) -> StatusInfo | str:
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                answer = await self._link.call(Status(self._link.take_id()))
        except TimeoutError:
            return f"the vault did not answer within {_STATUS_TIMEOUT_S:g} s"
        if isinstance(answer, Refused):
            return answer.message
        try:
            return msgspec.msgpack.decode(answer.result, type=StatusInfo)
        except msgspec.DecodeError:
            return "the vault's status does not parse: are front and vault of one release?"


def _headers(content_type: bytes) -> HeaderList:
    return [(b"content-type", content_type), *JSON_HEADERS[1:]]


def has_current(if_none_match: bytes, etag: bytes) -> bool:
    """Whether a reader's ``If-None-Match`` (RFC 9110 section 13.1.2) names this entity tag.

    Tags compare weakly there: a cache on the way may have made them weak.
    """
    tags = {tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")}
    return b"*" in tags or etag in tags
