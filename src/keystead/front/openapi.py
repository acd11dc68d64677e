"""The OpenAPI document: Litestar's of the admin API, and the data plane's made from its types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from litestar.openapi.config import OpenAPIConfig

from keystead import __version__, limits
from keystead.front.admin import BODIES, build_admin
from keystead.front.inspection import PUBLIC_PARTS, Readiness
from keystead.front.problems import Problem
from keystead.front.uses import ProofFields, ReceiptInfo
from keystead.keys.framing.data import DeriveResult, MacResult, UnwrapResult, WrapResult
from keystead.keys.operations import FACTS, FRAMINGS
from keystead.keys.purposes import SIGNALS
from keystead.keys.rollout.reports import (
    Acknowledge,
    AcknowledgeResult,
    ReportFailure,
    ReportResult,
)

__all__ = ["RESULTS", "document"]

RESULTS: dict[tuple[str, str], type[msgspec.Struct]] = {
    **{(str(purpose), operation): row.result for (purpose, operation), row in FRAMINGS.items()},
    ("data", "wrap"): WrapResult,
    ("data", "unwrap"): UnwrapResult,
    ("data", "derive"): DeriveResult,
    ("data", "mac"): MacResult,
}
"""(purpose, operation) as on the wire to the type of its result."""

_SIGNALS: dict[str, tuple[str, type[msgspec.Struct], type[msgspec.Struct]]] = {
    "reports": ("Report a failed verification", ReportFailure, ReportResult),
    "acknowledgements": (
        "Say that a version's public part is known",
        Acknowledge,
        AcknowledgeResult,
    ),
}
"""Last part of the path under a key, to what it is for, its facts and its result."""

_Json = dict[str, Any]
_REF = "#/components/schemas/{name}"
_TAG_FIELD = "do"  # commands carry their tag in frames; over HTTP the path says it
_PROBLEMS = {
    "description": "A problem document (RFC 9457); `code` is stable",
    "content": {
        "application/problem+json": {"schema": {"$ref": _REF.format(name=Problem.__name__)}}
    },
}
_IDEMPOTENCY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Under one key, one effect and one record",
    "schema": {"type": "string", "minLength": 1, "maxLength": limits.IDEMPOTENCY_KEY_BYTES_MAX},
}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "Entity tags of what the reader has (RFC 9110 section 13.1.2)",
    "schema": {"type": "string"},
}
_PROOF_HEADER = {
    "name": "Keystead-Proof",
    "in": "header",
    "description": "base64url of the JSON of ProofFields, for handles that are bound",
    "schema": {"type": "string"},
}


def document() -> bytes:
    """The whole document, as JSON."""
    config = OpenAPIConfig(
        title="Keystead", version=__version__, description="Use keys through handles."
    )
    api = build_admin(None, config).openapi_schema.to_schema()
    uses = {pair: _envelope_types(_stem(*pair), FACTS[pair], RESULTS[pair]) for pair in _offered()}
    signals = {
        part: _envelope_types(part.capitalize(), facts, result)
        for part, (_, facts, result) in _SIGNALS.items()
    }
    schemas = _schemas([kind for pair in (*uses.values(), *signals.values()) for kind in pair])
    components = api.setdefault("components", {})
    components["schemas"] = {**components.get("schemas", {}), **schemas}
    components["securitySchemes"] = {
        "handle": {"type": "http", "scheme": "bearer", "description": "A handle: ks1...."},
        "operator": {"type": "http", "scheme": "bearer", "description": "An operator's: kso1...."},
    }
    paths = api["paths"]
    for path, item in paths.items():
        for method, operation in item.items():
            _finish_admin(path, method, operation)
    for (purpose, operation), (body, answer) in uses.items():
        summary = f"{operation} with a {purpose} key"
        path = f"/v1/{purpose}/{operation}"
        paths[path] = {"post": _use(f"use_{purpose}_{operation}", summary, body, answer)}
    for part, (body, answer) in signals.items():
        told = _use(f"tell_{part}", _SIGNALS[part][0], body, answer)
        told["parameters"] = [_NAME, *told["parameters"]]
        paths[f"/v1/keys/{{name}}/{part}"] = {"post": told}
    paths["/v1/batch"] = {"post": _batch()}
    paths.update(_open_paths())
    return msgspec.json.encode(api)


def _offered() -> list[tuple[str, str]]:
    """Operations that have a path of their own; what is told of a key has another."""
    return [pair for pair in FACTS if pair[1] not in SIGNALS]


def _envelope_types(
    stem: str, facts: type[msgspec.Struct], result: type[msgspec.Struct]
) -> tuple[type[msgspec.Struct], type[msgspec.Struct]]:
    """Request and answer of one operation, as types of their own."""
    body = msgspec.defstruct(
        f"{stem}Use",
        [
            ("context", str),
            ("facts", facts),
            ("version", int, 0),
            ("reason", str | None, None),
        ],
        kw_only=True,
        forbid_unknown_fields=True,
    )
    answer = msgspec.defstruct(f"{stem}Answer", [("result", result), ("receipt", ReceiptInfo)])
    return body, answer


def _stem(purpose: str, operation: str) -> str:
    return "".join(part.capitalize() for part in f"{purpose}_{operation}".split("_"))


def _schemas(uses: list[type[msgspec.Struct]]) -> _Json:
    kinds = [*uses, *BODIES.values(), Problem, ProofFields, Readiness]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    for schema in schemas.values():
        if _TAG_FIELD in schema.get("properties", {}):
            del schema["properties"][_TAG_FIELD]
            schema["required"] = [name for name in schema["required"] if name != _TAG_FIELD]
    return schemas


def _finish_admin(path: str, method: str, operation: _Json) -> None:
    operation["tags"] = ["admin"]
    operation["security"] = [{"operator": []}]
    operation["responses"].pop("400", None)  # Litestar's own shape, which is never sent
    operation["responses"]["default"] = _PROBLEMS
    if method == "post":
        operation["requestBody"] = _body(BODIES[path].__name__)
        operation["parameters"] = [*operation.get("parameters", ()), _IDEMPOTENCY_HEADER]


def _use(
    operation_id: str, summary: str, body: type[msgspec.Struct], answer: type[msgspec.Struct]
) -> _Json:
    return {
        "tags": ["uses"],
        "operationId": operation_id,
        "summary": summary,
        "security": [{"handle": []}],
        "parameters": [_IDEMPOTENCY_HEADER, _PROOF_HEADER],
        "requestBody": _body(body.__name__),
        "responses": {"200": _json("Done and recorded", _ref(answer)), "default": _PROBLEMS},
    }


def _batch() -> _Json:
    item = {
        "type": "object",
        "required": ["purpose", "operation", "context", "facts"],
        "additionalProperties": False,
        "properties": {
            "purpose": {"enum": sorted({purpose for purpose, _ in _offered()})},
            "operation": {"enum": sorted({operation for _, operation in _offered()})},
            "context": {"type": "string"},
            "facts": {"anyOf": [_ref(FACTS[pair]) for pair in _offered()]},
            "version": {"type": "integer", "default": 0},
            "reason": {"type": ["string", "null"]},
            "handle": {"type": ["string", "null"]},
            "idempotency_key": {"type": ["string", "null"]},
            "proof": {"anyOf": [_ref(ProofFields), {"type": "null"}]},
        },
    }
    answer = {
        "anyOf": [
            *({"$ref": _REF.format(name=f"{_stem(*pair)}Answer")} for pair in _offered()),
            {
                "type": "object",
                "required": ["problem"],
                "properties": {"problem": _ref(Problem)},
            },
        ]
    }
    return {
        "tags": ["uses"],
        "operationId": "use_batch",
        "summary": "Many uses at once; each stands or falls alone",
        "security": [{"handle": []}, {}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _items(item)}},
        },
        "responses": {
            "200": _json("One answer an item, in their order", _items(answer, "results")),
            "default": _PROBLEMS,
        },
    }


def _open_paths() -> Iterator[tuple[str, _Json]]:
    for part, (what, content_type) in PUBLIC_PARTS.items():
        yield (
            f"/v1/keys/{{name}}/{part}",
            _open(
                f"public_{what.replace('.', '_')}",
                f"The public {what} of a key",
                {content_type.decode(): {}},
                {"304": {"description": "As it was under that entity tag"}, "default": _PROBLEMS},
                [_NAME, _IF_NONE_MATCH],
            ),
        )
    ready = {"application/json": {"schema": _ref(Readiness)}}
    yield "/health", _open("health", "Whether this front lives", {"application/json": {}})
    not_ready = {"503": {"description": "Not ready; `reasons` says why", "content": ready}}
    yield "/ready", _open("ready", "Whether the node does work", ready, not_ready)
    yield "/metrics", _open("metrics", "Counters as Prometheus reads them", {"text/plain": {}})


def _open(
    operation_id: str,
    summary: str,
    content: _Json,
    more: _Json | None = None,
    parameters: list[_Json] | None = None,
) -> _Json:
    operation: _Json = {
        "tags": ["open"],
        "operationId": operation_id,
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": "As asked", "content": content}, **(more or {})},
    }
    if parameters:
        operation["parameters"] = parameters
    return {"get": operation}


def _items(item: _Json, name: str = "items") -> _Json:
    return {
        "type": "object",
        "required": [name],
        "properties": {name: {"type": "array", "items": item}},
    }


def _body(name: str) -> _Json:
    schema = {"$ref": _REF.format(name=name)}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _json(description: str, schema: _Json) -> _Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(kind: type) -> _Json:
    return {"$ref": _REF.format(name=kind.__name__)}
