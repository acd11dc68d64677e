"""A node for the SDK's tests: it answers by a script, and keeps what it was sent."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from keystead.client import Client, Handle, Retry
from keystead.keys.caveats import Caveat
from keystead.keys.handles import Body, issue
from keystead.keys.purposes import PURPOSES, Purpose

RECEIPT = {
    "seq": 7,
    "epoch": 3,
    "key": "shop",
    "version": 1,
    "kid": "kid-1",
    "algorithm": "ed25519",
    "ack": "durable",
    "request_id": "r-1",
    "replayed": False,
    "later": "a member of a later release",
}
QUICK = Retry(deadline_s=5.0, tries_max=4, base_s=0.0, cap_s=0.0)

Answer = httpx.Response | Exception
Script = Callable[[httpx.Request], Answer]


class FakeNode:
    """Gives one answer of the script a request; an answer may be an error that httpx raises."""

    def __init__(self, *answers: Answer | Script) -> None:
        self._answers: Iterator[Answer | Script] = iter(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = next(self._answers)
        if not isinstance(answer, httpx.Response | Exception):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content or b"null") for request in self.requests]

    def sent(self, header: str) -> list[str | None]:
        return [request.headers.get(header) for request in self.requests]

    def client(self, **options: Any) -> Client:  # noqa: ANN401  whatever a client takes
        given: dict[str, Any] = {"retry": QUICK, "transport": httpx.MockTransport(self)} | options
        return Client("https://node.example", **given)


def answered(result: object, **receipt: object) -> httpx.Response:
    return httpx.Response(200, json={"result": result, "receipt": RECEIPT | receipt})


def problem(
    code: str, *, status: int = 503, detail: str = "why", retry_after: str | None = None
) -> httpx.Response:
    document = {"type": "about:blank", "title": code, "status": status, "code": code} | {
        "detail": detail,
        "hint": "what to do",
        "request_id": "r-9",
    }
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return httpx.Response(status, json=document, headers=headers)


def handle_for(purpose: Purpose, *caveats: Caveat) -> Handle:
    body = Body("k-1", purpose, PURPOSES[purpose].operations, f"h-{purpose}", 1)
    return issue(b"\x01" * 32, body, caveats)
