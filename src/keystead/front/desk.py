"""What each route of the admin API needs: whose request it is, its body, the way to the vault."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.datastructures import State
from litestar.di import NamedDependency

from keystead.errors import MalformedRequest, Unauthenticated
from keystead.frames.messages import Admin, Refused
from keystead.front.bodies import bearer_of, check_json, idempotency_key_of
from keystead.front.problems import JSON_HEADERS, HeaderList, Reply, malformed, reply_of_refused
from keystead.keys.commands import Command
from keystead.keys.model import check_name
from keystead.net.link import VaultLink

__all__ = ["CODE_KEY", "AnyRequest", "Desk", "TheDesk", "respond"]

CODE_KEY = "keystead_code"
"""Where the ASGI scope holds code and reason of an admin answer, for the counters."""

_T = TypeVar("_T")
AnyRequest = Request[Any, Any, State]


class Desk:
    """What a route needs of a request: whose it is, its body, and the way to the vault."""

    def __init__(self, link: VaultLink, request: AnyRequest) -> None:
        self._link = link
        self._request = request
        self._headers = dict(request.scope["headers"])
        self._token = bearer_of(self._headers)
        if not self._token:
            raise Unauthenticated(
                "expected an operator's token", hint="Send it as 'Authorization: Bearer kso1...'"
            )
        for what, name in request.path_params.items():
            # Refused here, because a refusal further on quotes it: it may be a token, put in place
            # of a name by mistake.
            check_name(name, what.replace("_", " "))
        _check_query(request)

    async def body(self, kind: type[_T]) -> _T:
        """The body as this type, strictly: Litestar's own reading takes "1" for 1."""
        check_json(self._headers)
        try:
            return msgspec.json.decode(await self._request.body(), type=kind)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as exc:
            raise malformed(exc) from None

    async def ask(self, command: Command, status: int = 200) -> Response[Any]:
        """Have the vault carry out the command; its answer is handed on as it is."""
        try:
            encoded = msgspec.msgpack.encode(command)
        except (OverflowError, UnicodeEncodeError) as exc:  # JSON's numbers have no end
            raise malformed(exc) from None
        answer = await self._link.call(
            Admin(self._link.take_id(), self._token, encoded, idempotency_key_of(self._headers))
        )
        if isinstance(answer, Refused):
            return respond(self._request, reply_of_refused(answer))
        body = msgspec.json.encode(msgspec.msgpack.decode(answer.result))
        headers: HeaderList = list(JSON_HEADERS)
        if answer.receipt is not None:  # a change: where it stands in the log
            for name in ("seq", "epoch", "request_id", "node"):
                text = str(getattr(answer.receipt, name)).encode()
                headers.append((f"keystead-{name.replace('_', '-')}".encode(), text))
        return respond(self._request, Reply(status, headers, body))


def _check_query(request: AnyRequest) -> None:
    """A filter with a slip of the pen in its name would show everything, and look as if it held."""
    names = set(request.route_handler.parsed_fn_signature.parameters)
    taken = names - request.path_params.keys() - {"desk"}
    if not request.query_params.keys() <= taken:
        raise MalformedRequest(
            "expected other query parameters",
            hint="Known here: " + (", ".join(sorted(taken)) or "none"),
        )


TheDesk = NamedDependency[Desk]


def respond(request: AnyRequest, reply: Reply) -> Response[Any]:
    """The reply as Litestar sends it."""
    request.scope[CODE_KEY] = (reply.code, reply.refused)  # type: ignore[literal-required]  # ASGI allows own keys
    headers = {name.decode(): value.decode() for name, value in reply.headers}
    media_type = headers.pop("content-type")
    return Response(reply.body, status_code=reply.status, headers=headers, media_type=media_type)
