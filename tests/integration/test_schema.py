"""The served OpenAPI against the node that serves it: no fault, and every answer as documented."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from fuzz.served import STOPPING, World, confined, furnish
from integration.node import Node
from keystead.front.openapi import document

# Not imported by name: it is there after `make lock` and a new install only.
schemathesis: Any = pytest.importorskip("schemathesis", reason="requirements/dev.in names it")

SCHEMA = schemathesis.openapi.from_dict(json.loads(document()))
LEFT_OUT = ["allow_header_conformance", "ignored_auth", "positive_data_acceptance"]
"""Litestar answers OPTIONS by the methods of one handler of a path. The token is put in below, so
no case comes without. And types say less than the rules: a name is any string there."""
LEFT_OUT_OF_BATCHES = [*LEFT_OUT, "negative_data_rejection"]
"""An item of a batch is refused by itself, within an answer of 200."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, World]]:
    with Node(tmp_path_factory.mktemp("schema") / "data") as node:
        yield node, furnish(node)


def authorised(case: Any, node: Node, world: World) -> str:  # noqa: ANN401  schemathesis's own
    """Whose token gets the case furthest; the case also gets a context that is one."""
    purpose = case.path.split("/")[2] if case.path.count("/") == 3 else ""
    if isinstance(case.body, dict) and isinstance(case.body.get("context"), str):
        case.body["context"] = "web"
    if (
        case.path in STOPPING
        and isinstance(case.body, dict)
        and case.body.get("tenant", "") is None
    ):
        case.body |= confined(case.body)
    if (
        case.path_parameters
        and case.path_parameters.get("name")
        and case.path.startswith("/v1/keys")
    ):
        known = [*world.admin_hints["name"], *world.handles]
        name = str(case.path_parameters["name"])
        case.path_parameters["name"] = known[sum(name.encode(errors="replace")) % len(known)]
    if case.path.endswith(("/reports", "/acknowledgements")):
        return world.relying.get(str(case.path_parameters["name"]), world.relying["tls"])
    return world.handles[purpose][0] if purpose in world.handles else node.token


@SCHEMA.parametrize()  # type: ignore[untyped-decorator]  # schemathesis is Any here, see above
@settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.slow
def test_every_answer_is_as_documented(case: Any, world: tuple[Node, World]) -> None:  # noqa: ANN401  as above
    node, known = world
    token = authorised(case, node, known)
    response = case.call(
        base_url=node.url, headers={"authorization": f"Bearer {token}"}, timeout=20
    )
    assert response.status_code < 500
    names = LEFT_OUT_OF_BATCHES if case.path == "/v1/batch" else LEFT_OUT
    checks = schemathesis.checks.CHECKS.get_by_names(names)
    case.validate_response(response, excluded_checks=checks)
