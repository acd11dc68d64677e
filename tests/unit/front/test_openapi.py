from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from keystead.frames.messages import Receipt
from keystead.front.http import SIGNAL_PARTS
from keystead.front.inspection import PUBLIC_PARTS
from keystead.front.openapi import RESULTS, document
from keystead.front.uses import ReceiptInfo
from keystead.keys.commands import CountRecords, ListRecords
from keystead.keys.operations import FACTS
from keystead.keys.purposes import SIGNALS


@pytest.fixture(scope="module")
def api() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(document())
    return parsed


def operations(api: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in api["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


@pytest.mark.anyio
async def test_it_is_served(client: httpx.AsyncClient) -> None:
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json()["openapi"].startswith("3.1")


def test_every_reference_leads_somewhere(api: dict[str, Any]) -> None:
    found = set(references(api))
    names = {f"#/components/schemas/{name}" for name in api["components"]["schemas"]}
    assert found <= names


def test_every_operation_says_who_may_and_what_goes_wrong(api: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(api)]
    assert len(ids) == len(set(ids))
    schemes = set(api["components"]["securitySchemes"])
    for path, _, operation in operations(api):
        assert set().union(*operation["security"]) <= schemes, path
        if path.startswith("/v1/"):
            problem = operation["responses"]["default"]["content"]
            assert set(problem) == {"application/problem+json"}, path
        assert "400" not in operation["responses"], path


def test_path_parameters_are_declared(api: dict[str, Any]) -> None:
    for path, _, operation in operations(api):
        wanted = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        declared = operation.get("parameters", [])
        assert {p["name"] for p in declared if p["in"] == "path"} == wanted, path


def check_use(api: dict[str, Any], path: str, facts: str, result: str) -> None:
    schemas = api["components"]["schemas"]
    post = api["paths"][path]["post"]
    body = post["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    envelope = schemas[body.rpartition("/")[2]]
    assert envelope["properties"]["facts"]["$ref"].endswith(f"/{facts}")
    assert envelope["required"] == ["context", "facts"]
    answer = post["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    shown = schemas[answer.rpartition("/")[2]]["properties"]["result"]["$ref"]
    assert shown.endswith(f"/{result}")


def test_every_operation_of_the_data_plane_is_there(api: dict[str, Any]) -> None:
    uses = {pair: facts for pair, facts in FACTS.items() if pair[1] not in SIGNALS}
    assert RESULTS.keys() == uses.keys()
    for (purpose, operation), facts in uses.items():
        result = RESULTS[purpose, operation].__name__
        check_use(api, f"/v1/{purpose}/{operation}", facts.__name__, result)


def test_what_relying_parties_tell_is_there_once(api: dict[str, Any]) -> None:
    check_use(api, "/v1/keys/{name}/reports", "ReportFailure", "ReportResult")
    check_use(api, "/v1/keys/{name}/acknowledgements", "Acknowledge", "AcknowledgeResult")
    assert set(SIGNAL_PARTS.values()) == set(SIGNALS)
    assert not [path for path in api["paths"] if path.endswith(SIGNALS)]


@pytest.mark.parametrize("part", PUBLIC_PARTS)
def test_every_public_part_is_there(api: dict[str, Any], part: str) -> None:
    get = api["paths"][f"/v1/keys/{{name}}/{part}"]["get"]
    assert set(get["responses"]) == {"200", "304", "default"}
    assert get["security"] == []


def test_commands_show_no_tag(api: dict[str, Any]) -> None:
    create = api["components"]["schemas"]["CreateKey"]
    assert "do" not in create["properties"]
    assert create["required"] == ["name", "purpose"]


def test_changes_have_a_body_and_queries_their_parameters(api: dict[str, Any]) -> None:
    for path, method, operation in operations(api):
        assert ("requestBody" in operation) == (method == "post"), path
    names = {p["name"] for p in api["paths"]["/v1/log"]["get"]["parameters"]}
    assert names == {*ListRecords.__struct_fields__}
    names = {p["name"] for p in api["paths"]["/v1/log/counts"]["get"]["parameters"]}
    assert names == {*CountRecords.__struct_fields__}


def test_a_receipt_has_the_fields_of_the_frame() -> None:
    assert ReceiptInfo.__struct_fields__ == Receipt.__struct_fields__
    assert ReceiptInfo.__struct_defaults__ == Receipt.__struct_defaults__
