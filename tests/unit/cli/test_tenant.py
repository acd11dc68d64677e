"""``keystead tenant``: what it sends, and what it shows."""

from unit.cli.conftest import Run
from unit.cli.node import FakeNode

TENANT = {"tenant": "shop", "count": 500, "per_s": 60, "own": True, "keys": 2}


def test_a_budget_is_sent_as_it_was_typed(run: Run, node: FakeNode) -> None:
    node.on("POST /v1/tenants/shop/budget", TENANT)
    ran = run("tenant", "limit", "shop", "--rate", "500/60s", "--reason", "shares the node")
    assert (ran.status, ran.out) == (0, "Tenant shop: at most 500 uses in 60 s a node.\n")
    [seen] = node.seen
    assert seen.body == {"count": 500, "per_s": 60, "reason": "shares the node"}


def test_a_rate_that_is_none_is_a_usage_error(run: Run, node: FakeNode) -> None:
    ran = run("tenant", "limit", "shop", "--rate", "often", "--reason", "x")
    assert ran.status == 2
    assert "500/1s" in ran.err or "100/60s" in ran.err
    assert not node.seen


def test_the_list_is_a_table_or_json(run: Run, node: FakeNode) -> None:
    node.on("GET /v1/tenants", [TENANT, TENANT | {"tenant": "web", "own": False}])
    shown = run("tenant", "list")
    assert shown.status == 0
    assert "500 in 60 s" in shown.out
    assert "default" in shown.out
    assert [row["tenant"] for row in run("tenant", "list", "--json").json] == ["shop", "web"]
