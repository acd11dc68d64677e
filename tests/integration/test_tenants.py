"""Budgets of tenants on a real node: one tenant's flood is refused, the others never notice."""

from __future__ import annotations

import pytest

from integration.node import Node
from keystead import limits
from keystead.client import Client, Retry, operations
from keystead.errors import LimitExceeded, MalformedRequest


def test_a_tenant_over_its_budget_is_refused_and_the_others_are_not(
    node: Node, operator: Client
) -> None:
    for tenant in ("greedy", "modest"):
        operator.create_key(f"{tenant}-key", "tls", tenant=tenant)
    told = operator.limit_tenant("greedy", 5, per_s=3600, reason="shares the node")
    assert (told.count, told.per_s, told.own, told.keys) == (5, 3600, True, 1)
    greedy = operator.issue_handle("greedy-key", "web").handle
    modest = operator.issue_handle("modest-key", "web").handle
    with Client(node.url, retry=Retry(tries_max=1)) as client:
        calls = [operations.sign_tls(greedy, bytes(32), context="web") for _ in range(9)]
        refused = [answer for answer in client.batch(calls) if isinstance(answer, LimitExceeded)]
        assert len(refused) == 4
        with pytest.raises(LimitExceeded, match="tenant greedy allows 5 uses in 3600 s") as caught:
            client.sign_tls(greedy, bytes(32), context="web")
        assert (caught.value.retry_after_s or 0) > 60
        client.sign_tls(modest, bytes(32), context="web")
    denied = operator.log(key="greedy-key", outcome="limit_exceeded")
    assert len(denied) == 5


def test_a_change_of_a_budget_is_recorded_with_its_direction(operator: Client) -> None:
    operator.limit_tenant("changing", 10, reason="first")
    operator.limit_tenant("changing", 20, reason="more")
    operator.limit_tenant("changing", 20, per_s=10, reason="less")
    records = operator.log(operation="tenant.limit", limit=3)
    found = [str(record.body["detail"]) for record in reversed(records)]
    default = f"{limits.TENANT_USES_PER_S} in 1 s"
    assert found == [
        f"{default} -> 10 in 1 s",
        "10 in 1 s -> 20 in 1 s (weaker)",
        "20 in 1 s -> 20 in 10 s",
    ]
    assert {record.body["tenant"] for record in records} == {"changing"}


def test_tenants_are_listed_in_pages(operator: Client) -> None:
    operator.create_key("listed-key", "tls", tenant="listed-a")
    operator.limit_tenant("listed-b", 3, reason="test")
    rows = {row.tenant: row for row in operator.list_tenants(after="listed", limit=2)}
    assert (rows["listed-a"].own, rows["listed-a"].keys) == (False, 1)
    assert rows["listed-a"].count == limits.TENANT_USES_PER_S
    assert (rows["listed-b"].own, rows["listed-b"].keys, rows["listed-b"].count) == (True, 0, 3)


def test_what_is_no_budget_is_refused(operator: Client) -> None:
    with pytest.raises(MalformedRequest, match="rate count"):
        operator.limit_tenant("shop", 0, reason="test")
    with pytest.raises(MalformedRequest, match="reason"):
        operator.limit_tenant("shop", 1, reason="")


def test_budgets_outlive_a_restart(tmp_path_factory: pytest.TempPathFactory) -> None:
    node = Node(tmp_path_factory.mktemp("tenants") / "data")
    with node, node.client() as operator:
        operator.limit_tenant("shop", 7, per_s=60, reason="test")
    with node, node.client() as operator:
        [row] = operator.list_tenants(after="keystead")  # whose own is the key of its log
        assert (row.tenant, row.count, row.per_s) == ("shop", 7, 60)
