"""One real node, used over HTTP as any client does."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest

from integration.node import Node
from keystead.client import Client, Narrowing, Used, attenuate, operations
from keystead.errors import (
    ContextMismatch,
    HandleRevoked,
    KeyStateError,
    LimitExceeded,
    PermissionDenied,
    PurposeMismatch,
    ReplayConflict,
    Unauthenticated,
)
from keystead.keys.model import FirmwarePolicy, JwtPolicy, Policy


def test_every_use_has_one_record(operator: Client) -> None:
    operator.create_key("records", "tls")
    issued = operator.issue_handle("records", "web")
    used = [operator.sign_tls(issued.handle, bytes(32), context="web/eu") for _ in range(5)]
    records = operator.log(handle_id=issued.handle_id, operation="tls.sign")
    assert sorted(record.seq for record in records) == sorted(u.receipt.seq or 0 for u in used)
    assert {record.body["principal"] for record in records} == {"web"}


def test_idempotency_key_has_one_effect(operator: Client) -> None:
    operator.create_key("once", "ledger")
    handle = operator.issue_handle("once", "books").handle
    first = operator.append_ledger(handle, b"entry", context="books", idempotency_key="k1")
    again = operator.append_ledger(handle, b"entry", context="books", idempotency_key="k1")
    assert again.result == first.result
    assert again.receipt.replayed
    assert again.receipt.seq == first.receipt.seq
    with pytest.raises(ReplayConflict):
        operator.append_ledger(handle, b"other", context="books", idempotency_key="k1")
    assert operator.append_ledger(handle, b"next", context="books").result.sequence == 2


def test_ledger_is_one_chain_under_a_batch(operator: Client) -> None:
    operator.create_key("chain", "ledger")
    handle = operator.issue_handle("chain", "books").handle
    calls = [operations.append_ledger(handle, b"%d" % n, context="books") for n in range(200)]
    results = [answer.result for answer in operator.batch(calls) if isinstance(answer, Used)]
    documents = [json.loads(result.document) for result in results]
    heads = {result.sequence: result.head.hex() for result in results}
    assert sorted(heads) == list(range(1, 201))
    for document in documents:
        if document["sequence"] > 1:
            assert document["previous"] == heads[document["sequence"] - 1]


def test_child_spends_its_parents_budget(operator: Client) -> None:
    operator.create_key("budget", "tls")
    parent = operator.issue_handle("budget", "web", narrowing=Narrowing(uses=3)).handle
    children = [attenuate(parent, Narrowing(context_prefix=f"web/{name}")) for name in "ab"]
    operator.sign_tls(children[0], bytes(32), context="web/a")
    operator.sign_tls(children[1], bytes(32), context="web/b")
    operator.sign_tls(parent, bytes(32), context="web")
    for handle, context in ((parent, "web"), (children[0], "web/a")):
        with pytest.raises(LimitExceeded):
            operator.sign_tls(handle, bytes(32), context=context)


def test_revoking_a_link_stops_its_children_only(operator: Client) -> None:
    operator.create_key("links", "tls")
    parent = operator.issue_handle("links", "web").handle
    child = attenuate(parent, Narrowing(context_prefix="web/a"))
    grandchild = attenuate(child, Narrowing(uses=5))
    operator.revoke_handle(child.chain_id, reason="lost laptop")
    for handle in (child, grandchild):
        with pytest.raises(HandleRevoked):
            operator.sign_tls(handle, bytes(32), context="web/a")
    assert operator.sign_tls(parent, bytes(32), context="web/a").receipt.seq


def test_all_handles_of_a_key_end_with_its_generation(operator: Client) -> None:
    operator.create_key("generation", "tls")
    handle = operator.issue_handle("generation", "web").handle
    operator.revoke_key_handles("generation", reason="leaked")
    with pytest.raises(HandleRevoked):
        operator.sign_tls(handle, bytes(32), context="web")
    fresh = operator.issue_handle("generation", "web").handle
    assert operator.sign_tls(fresh, bytes(32), context="web").receipt.epoch > 0


def test_suspended_key_stops_and_resumes(operator: Client) -> None:
    operator.create_key("stops", "jwt", policy=Policy(jwt=JwtPolicy(issuer="https://i.example")))
    handle = operator.issue_handle("stops", "issuer").handle
    operator.move_version("stops", "suspend", reason="an incident")
    with pytest.raises(KeyStateError):
        operator.sign_jwt(handle, {"sub": "a"}, context="auth")
    operator.move_version("stops", "resume", reason="all clear")
    assert operator.sign_jwt(handle, {"sub": "a"}, context="auth").result.token.count(".") == 2


def test_purpose_and_context_at_the_boundary(operator: Client) -> None:
    operator.create_key("bounds", "tls")
    narrow = operator.issue_handle("bounds", "web", narrowing=Narrowing(context_prefix="web/eu"))
    with pytest.raises(PurposeMismatch):
        operator.wrap(narrow.handle, b"secret", context="web/eu")
    with pytest.raises(ContextMismatch):
        operator.sign_tls(narrow.handle, bytes(32), context="web/us")


def test_wrapped_data_opens_in_its_context_only(operator: Client) -> None:
    operator.create_key("data", "data")
    handle = operator.issue_handle("data", "app").handle
    wrapped = operator.wrap(handle, b"secret", context="db/eu").result.wrapped
    assert operator.unwrap(handle, wrapped, context="db/eu").result.plaintext == b"secret"
    with pytest.raises(ContextMismatch):
        operator.unwrap(handle, wrapped, context="db/us")


def test_replayed_unwrap_runs_again_without_a_second_record(operator: Client) -> None:
    operator.create_key("unwrap", "data", algorithm="hpke-mlkem768-x25519")
    issued = operator.issue_handle("unwrap", "app")
    wrapped = operator.wrap(issued.handle, b"secret", context="db").result.wrapped
    calls = [
        operator.unwrap(issued.handle, wrapped, context="db", idempotency_key="same")
        for _ in range(2)
    ]
    assert [call.result.plaintext for call in calls] == [b"secret", b"secret"]
    assert [call.receipt.replayed for call in calls] == [False, True]
    records = operator.log(handle_id=issued.handle_id, operation="data.unwrap")
    assert len(records) == 1


def test_firmware_counter_only_grows(operator: Client) -> None:
    policy = Policy(firmware=FirmwarePolicy(names=("app",), step_max=10))
    operator.create_key("fw", "firmware", policy=policy, algorithm="dual-ecdsa-p256-ml-dsa-65")
    handle = operator.issue_handle("fw", "pipeline").handle
    sign = operator.sign_firmware
    sign(handle, "app", 5, sha256=b"a" * 32, size=1, context="ci")
    sign(handle, "app", 5, sha256=b"a" * 32, size=1, context="ci")  # the identical image, again
    for version, digest, refusal in (
        (5, b"b", "does not come after"),
        (4, b"a", "does not come after"),
        (16, b"a", "may grow by 10"),
    ):
        with pytest.raises(Exception, match=refusal):
            sign(handle, "app", version, sha256=digest * 32, size=1, context="ci")


def test_denials_are_recorded_with_their_code(operator: Client) -> None:
    operator.create_key("denied", "tls")
    issued = operator.issue_handle("denied", "web", narrowing=Narrowing(context_prefix="web"))
    with pytest.raises(ContextMismatch):
        operator.sign_tls(issued.handle, bytes(32), context="db")
    records = operator.log(handle_id=issued.handle_id, outcome="context_mismatch")
    assert [record.body["op"] for record in records] == ["tls.sign"]


def test_only_the_operator_administers(node: Node) -> None:
    with (
        Client(node.url, operator="kso1.not-a-token") as stranger,
        pytest.raises(Unauthenticated),
    ):
        stranger.list_keys()


def test_prehashed_keys_sign_for_sockets_only(operator: Client) -> None:
    operator.create_key("prehashed", "tls", prehashed=True)
    handle = operator.issue_handle("prehashed", "web").handle
    with pytest.raises(PermissionDenied):
        operator.sign_tls(handle, bytes(32), context="web")


def test_metrics_count_what_happened(node: Node, operator: Client) -> None:
    operator.create_key("metrics", "tls")
    handle = operator.issue_handle("metrics", "web").handle
    operator.sign_tls(handle, bytes(32), context="web")
    with urllib.request.urlopen(f"{node.url}/metrics") as response:  # noqa: S310  the node under test
        text = response.read().decode()
    assert 'keystead_vault_uses_total{purpose="tls"}' in text
    for number in range(1, 13):
        assert f'keystead_invariant_violations_total{{invariant="I{number}"}} 0.0' in text


def test_unix_socket_serves_too(node: Node) -> None:
    with Client(f"unix:{node.data / 'front.sock'}", operator=node.token) as client:
        assert isinstance(client.list_keys(), list)


def test_nothing_secret_in_the_folder_or_logs(node: Node, operator: Client) -> None:
    """The token, handles and plaintext of a use are in no file of the node."""
    operator.create_key("leaks", "data")
    handle = operator.issue_handle("leaks", "app").handle
    operator.wrap(handle, b"CANARY-plaintext", context="db")
    secrets = (node.token.encode(), handle.reveal().encode(), b"CANARY-plaintext")
    for path in Path(node.data).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret in data for secret in secrets), path


def test_vault_forbids_dumps(node: Node) -> None:
    """The vault's memory is closed to other processes of its own user, and it has no privileges."""
    vault = node.children()["vault"]
    status = Path(f"/proc/{vault}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    cores = subprocess.run(
        ["prlimit", "--core", "--raw", "--noheadings", "--output=HARD", "--pid", str(vault)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert cores.stdout.strip() == "0"
