"""The front as one ASGI application: data plane first, by the path alone; the rest to Litestar."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from keystead import limits
from keystead.errors import LogUnavailable, MalformedRequest, NotFound
from keystead.front.admin import LONG_BODIES, build_admin
from keystead.front.admission import Admission
from keystead.front.bodies import Disconnected, Message, Receive, Scope, Send, read_body, read_head
from keystead.front.dataplane import DataPlane, Operation
from keystead.front.desk import CODE_KEY
from keystead.front.inspection import PUBLIC_PARTS, Inspection
from keystead.front.metrics import FrontMetrics
from keystead.front.openapi import document
from keystead.front.problems import JSON_HEADERS, Rejection, Reply, reply_of_error
from keystead.front.published import LOG_PATH, Published
from keystead.front.watch import RequestWatch
from keystead.keys.operations import FACTS
from keystead.keys.purposes import SIGNALS
from keystead.net.link import VaultLink

__all__ = ["SIGNAL_PARTS", "Front"]

_Handler = Callable[[Scope, Receive], Awaitable[Reply]]
_READS = ("GET", "HEAD")
SIGNAL_PARTS = {"reports": "report", "acknowledgements": "acknowledge"}
"""Last part of the path under a key, to the operation of its handle."""
_KEY_PATH = "/v1/keys/"
_ADMIN_ROOTS = frozenset(
    {"keys", "handles", "log", "tenants", "history", "revocations", "emergency"}
)
_USE_PARTS = 4  # "", "v1", purpose, operation
_KEY_PARTS = 5  # "", "v1", "keys", name, part


class _Route(NamedTuple):
    methods: tuple[str, ...]
    handler: _Handler


class Front:
    """Routes, counts, and turns whatever goes wrong into a problem document."""

    def __init__(
        self,
        link: VaultLink,
        *,
        admission: Admission | None = None,
        timeout_s: float = limits.REQUEST_TIMEOUT_S,
        protections: dict[str, str] | None = None,
        published: Path | None = None,
        node: str = "",
    ) -> None:
        self.admission = admission or Admission()
        link.on_delay = self.admission.pressure.timed
        self.metrics = FrontMetrics()
        self._watch = RequestWatch(timeout_s)
        self._log = None if published is None else Published(published, self.admission, node)
        self._data = DataPlane(link, self.admission, self._watch, self.metrics, self._log)
        self._open = Inspection(link, self.admission, self.metrics, protections or {})
        self._admin = build_admin(link)
        self._openapi = b""
        self._operations = {
            f"/v1/{purpose}/{operation}": Operation(purpose, operation)
            for purpose, operation in FACTS
            if operation not in SIGNALS  # told of a key by its name, see SIGNAL_PARTS
        }
        self._fixed: dict[str, _Route] = {
            "/v1/batch": _Route(("POST",), self._data.batch),
            "/health": _Route(_READS, self._open.health),
            "/ready": _Route(_READS, self._open.ready),
            "/metrics": _Route(_READS, self._open.metrics),
            "/openapi.json": _Route(_READS, self._document),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        loop = asyncio.get_running_loop()
        task = cast("asyncio.Task[object]", asyncio.current_task())
        started = loop.time()
        route: str = scope["path"]
        self._watch.enter(task, started)
        try:
            asked = self._operations.get(route)
            if asked is not None and scope["method"] == "POST":
                reply = await self._data.use(asked, scope, receive)
            else:
                path, route = route, "unknown"
                route, handler = self._resolve(path, scope["method"])
                reply = await handler(scope, receive)
                route = scope.get("path_template", route)
        except Disconnected:
            reply = reply_of_error(_broken_off())
        except asyncio.CancelledError:
            if not self._watch.expired(task):
                raise
            reply = reply_of_error(_unanswered())
        except Exception as exc:  # noqa: BLE001  the edge: nothing goes further than this
            reply = reply_of_error(exc)
        finally:
            self._watch.leave(task)
        self.metrics.answered(route, reply.code, loop.time() - started, len(reply.body))
        if reply.refused:
            self.metrics.refused(reply.refused)
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": reply.headers}
        )
        await send({"type": "http.response.body", "body": reply.body})

    def _resolve(self, path: str, method: str) -> tuple[str, _Handler]:
        """The route's label, out of a closed set, and who answers it."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            if method not in fixed.methods:
                raise _wrong_method(fixed.methods)
            return path, fixed.handler
        if path in self._operations:
            raise _wrong_method(("POST",))
        if path.startswith(LOG_PATH) and self._log is not None:
            if method not in _READS:
                raise _wrong_method(_READS)
            return "/log", self._log.get
        parts = path.split("/")
        if path.startswith(_KEY_PATH) and len(parts) == _KEY_PARTS:
            of_key = self._of_key(parts[3], parts[4], method)
            if of_key is not None:
                return f"/v1/keys/{{name}}/{parts[4]}", of_key
        if len(parts) == _USE_PARTS and parts[1] == "v1" and parts[2] not in _ADMIN_ROOTS:
            raise NotFound(
                "there is no such operation",
                hint="There is: "
                + ", ".join(name.removeprefix("/v1/") for name in self._operations),
            )
        return "admin", self._administer

    def _of_key(self, name: str, part: str, method: str) -> _Handler | None:
        """What anyone may read of a key, and what relying parties tell of it; None: neither."""
        if part in PUBLIC_PARTS:
            if method not in _READS:
                raise _wrong_method(_READS)
            return partial(self._open.public, name=name, part=part)
        if part in SIGNAL_PARTS:
            if method != "POST":
                raise _wrong_method(("POST",))
            return partial(self._data.signal, name, SIGNAL_PARTS[part])
        return None

    async def _administer(self, scope: Scope, receive: Receive) -> Reply:
        """Hand a request to Litestar with its body read and bounded, and take its answer whole."""
        most = LONG_BODIES.get(scope["path"], limits.ADMIN_BODY_BYTES_MAX)
        head = read_head(scope, body_bytes_max=most)
        if not scope["query_string"].isascii():  # Litestar takes that for granted
            raise MalformedRequest("expected a query of ASCII characters (RFC 3986 section 2)")
        body = await read_body(receive, head, self._watch, body_bytes_max=most)
        self.metrics.received(len(body))
        answers: list[Message] = []

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def keep(message: Message) -> None:
            answers.append(message)

        await self._admin(cast("Any", scope), cast("Any", replay), cast("Any", keep))
        start, *chunks = answers
        return Reply(
            start["status"],
            list(start["headers"]),
            b"".join(chunk.get("body", b"") for chunk in chunks),
            *scope.get(CODE_KEY, ("ok", "")),
        )

    async def _document(self, scope: Scope, receive: Receive) -> Reply:
        """`GET /openapi.json`; made when it is first asked for."""
        del scope, receive
        if not self._openapi:
            self._openapi = document()
        return Reply(200, JSON_HEADERS, self._openapi)


def _wrong_method(allowed: tuple[str, ...]) -> Rejection:
    names = ", ".join(allowed)
    return Rejection(
        MalformedRequest(f"expected {names} at this path"),
        status=405,
        reason="method",
        headers=[(b"allow", names.encode())],  # RFC 9110 section 15.5.6 wants it
    )


def _broken_off() -> Rejection:
    """Mostly nobody is there to read it; but chunks that do not parse look the same from here.

    Granian says 500 for an application that says nothing.
    """
    return Rejection(
        MalformedRequest("the body broke off, or its chunks do not parse (RFC 9112 section 7.1)"),
        status=400,
        reason="disconnected",
    )


def _unanswered() -> LogUnavailable:
    return LogUnavailable(
        "the vault did not answer in time: the outcome is unknown",
        hint="Retry with the same idempotency key",
        retry_after_s=1.0,
    )
