"""Handles: where their tokens go, and what a holder can do alone."""

import time
from pathlib import Path

import pytest

from keystead.encoding import b64u_encode
from keystead.keys.caveats import (
    Algorithms,
    BoundTo,
    Caveat,
    ContextPrefix,
    NotAfter,
    Operations,
    Rate,
    Uses,
    Versions,
)
from keystead.keys.handles import Body, issue, parse, verify
from keystead.keys.purposes import Purpose
from unit.cli.conftest import Run
from unit.cli.node import KEY, REVOKED, FakeNode, handle_of, token_of

ROOT = b"\x01" * 32
CAVEATS: tuple[Caveat, ...] = (
    Operations(("wrap",)),
    ContextPrefix("web/eu"),
    Algorithms(("aes-256-gcm-siv",)),
    Versions((1, 2)),
    NotAfter(1_000),
    Rate(100, 60),
    Uses(5),
    BoundTo("ed25519", b"\x02" * 32),
    BoundTo("unix", b"front:33"),
)


def keep(token: str, name: str = "my.handle") -> str:
    Path(name).write_text(f"{token}\n", encoding="utf-8")
    return name


def issued(token: str) -> dict[str, object]:
    return {"token": token, "handle_id": "h-jwt", "link": "l-1", "key": "shop"} | {
        "purpose": "jwt",
        "operations": ["sign"],
        "principal": "ci",
    }


def test_issue_writes_a_file_for_its_owner_alone(run: Run, node: FakeNode) -> None:
    token = token_of(Purpose.JWT)
    node.on("POST /v1/handles", issued(token))
    narrow = ["--ttl", "15m", "--context-prefix", "web", "--rate", "100/60s", "--uses", "3"]
    ran = run("handle", "issue", "shop", "--principal", "ci", *narrow, "--out", "ci.handle")
    assert (ran.status, ran.out) == (0, "")
    assert Path("ci.handle").read_text() == f"{token}\n"
    assert Path("ci.handle").stat().st_mode & 0o777 == 0o600
    assert token not in ran.err
    [seen] = node.seen
    assert seen.headers["authorization"] == "Bearer kso1.operator"
    assert seen.body["ttl_s"] == 900
    assert seen.body["narrowing"]["rate"] == {"count": 100, "per_s": 60}
    assert seen.body["narrowing"]["uses"] == 3


def test_issue_shows_a_token_once(run: Run, node: FakeNode) -> None:
    token = token_of(Purpose.JWT)
    node.on("POST /v1/handles", issued(token))
    ran = run("handle", "issue", "shop", "--principal", "ci")
    assert ran.out == f"{token}\n"
    assert run("handle", "issue", "shop", "--principal", "ci", "--json").json["token"] == token
    told = run("handle", "issue", "shop", "--principal", "ci", "--json", "--out", "f").json
    assert (told["out"], "token" in told) == ("f", False)


def test_a_handle_may_be_for_what_relying_parties_tell(run: Run, node: FakeNode) -> None:
    body = Body("k-1", Purpose.JWT, ("acknowledge", "report"), "h-jwt", 1)
    node.on("POST /v1/handles", issued(issue(ROOT, body).reveal()))
    words = ["--operation", "report", "--operation", "acknowledge", "--out", "gateway.handle"]
    assert run("handle", "issue", "shop", "--principal", "gateway", *words).status == 0
    assert node.seen[0].body["operations"] == ["report", "acknowledge"]
    told = run("handle", "inspect", "--handle-file", "gateway.handle", "--json").json
    assert told["operations"] == ["acknowledge", "report"]


def test_nothing_is_issued_that_could_not_be_kept(run: Run, node: FakeNode) -> None:
    ran = run("handle", "issue", "shop", "--principal", "ci", "--out", "absent/ci.handle")
    assert ran.status == 2
    assert node.seen == []


def test_a_refused_issue_leaves_no_file(run: Run, node: FakeNode) -> None:
    del node
    assert run("handle", "issue", "shop", "--principal", "ci", "--out", "f").status == 1
    assert list(Path().iterdir()) == []


def test_attenuate_narrows_offline(run: Run) -> None:
    parent = keep(token_of(Purpose.DATA))
    narrow = ["--operation", "wrap", "--ttl", "15m", "--context-prefix", "web/eu"]
    narrow += ["--algorithm", "aes-256-gcm-siv", "--version", "2", "--version", "1"]
    narrow += ["--rate", "7", "--uses", "2", "--bind", "unix:front:33"]
    ran = run("handle", "attenuate", "--handle-file", parent, *narrow, "--out", "child")
    assert ran.status == 0
    child = parse(Path("child").read_text().strip())
    grant = verify(ROOT, child)
    limit_ms = (time.time() + 900) * 1000
    assert grant.caveats[:4] == (
        Operations(("wrap",)),
        ContextPrefix("web/eu"),
        Algorithms(("aes-256-gcm-siv",)),
        Versions((1, 2)),
    )
    assert isinstance(grant.caveats[4], NotAfter)
    assert limit_ms - 60_000 < grant.caveats[4].not_after_ms <= limit_ms
    assert grant.caveats[5:] == (Rate(7, 1), Uses(2), BoundTo("unix", b"front:33"))


def test_attenuate_wants_something_to_narrow(run: Run) -> None:
    ran = run("handle", "attenuate", "--handle-file", keep(token_of(Purpose.DATA)))
    assert ran.status == 2


@pytest.mark.parametrize("caveat", CAVEATS, ids=lambda caveat: type(caveat).__name__)
def test_inspect_says_what_a_handle_allows_and_never_shows_it(caveat: Caveat, run: Run) -> None:
    handle = handle_of(Purpose.DATA, caveat)
    path = keep(handle.reveal())
    secrets = (handle.reveal(), b64u_encode(handle.chain_tag), handle.chain_tag.hex())
    shown = run("handle", "inspect", "--handle-file", path)
    ran = run("handle", "inspect", "--handle-file", path, "--json")
    for text in (shown.out + shown.err, ran.out + ran.err):
        assert handle.chain_id in text
        assert "ks1." not in text
        assert not any(secret in text for secret in secrets)
    [told] = ran.json["caveats"]
    assert told["type"] == caveat.__struct_config__.tag
    assert told["words"].split()[0] in {"only", "not", "at"}


def test_inspect_gives_what_is_left_of_the_operations(run: Run) -> None:
    path = keep(token_of(Purpose.DATA, Operations(("mac", "wrap")), Operations(("wrap",))))
    assert run("handle", "inspect", "--handle-file", path, "--json").json["operations"] == ["wrap"]


def test_a_handle_comes_from_a_file_stdin_or_the_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_of(Purpose.DATA)
    ran = run("handle", "inspect", "--handle-file", "-", "--json", stdin=token.encode())
    assert ran.json["handle_id"] == "h-data"
    monkeypatch.setenv("KEYSTEAD_HANDLE", token)
    assert run("handle", "inspect", "--json").json["handle_id"] == "h-data"
    other = keep(token_of(Purpose.JWT))
    ran = run("handle", "inspect", "--handle-file", other, "--json")
    assert ran.json["handle_id"] == "h-jwt"


def test_no_error_tells_a_token(run: Run) -> None:
    token = token_of(Purpose.DATA)
    ran = run("handle", "inspect", "--handle-file", keep(token[:-3] + "!!!"))
    assert ran.status == 1
    assert token[4:40] not in ran.out + ran.err


def test_revoke_by_link_or_by_file(run: Run, node: FakeNode) -> None:
    node.on("POST /v1/revocations", REVOKED | {"what": "handles", "revoked": "l-1", "keys": []})
    handle = handle_of(Purpose.JWT, Uses(1))
    assert run("handle", "revoke", "l-1", "--reason", "lost").status == 0
    path = keep(handle.reveal())
    ran = run("handle", "revoke", "--handle-file", path, "--reason", "lost", "--json")
    assert ran.json["revoked"] == "l-1"
    assert [seen.body["handle"] for seen in node.seen] == ["l-1", handle.chain_id]
    assert run("handle", "revoke", "l-1", "--handle-file", path, "--reason", "x").status == 2


def test_revoke_never_takes_the_environments_handle(
    run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYSTEAD_HANDLE", token_of(Purpose.JWT))
    assert run("handle", "revoke", "--reason", "x").status == 2
    assert node.seen == []


def test_revoke_all_and_show(run: Run, node: FakeNode) -> None:
    node.on("POST /v1/keys/shop/handles/revoke", KEY | {"generation": 2})
    assert "generation is 2" in run("handle", "revoke-all", "shop", "--reason", "x").out
    info = {"handle_id": "h-1", "key": "shop", "tenant": "t", "principal": "ci", "issued_ms": 1}
    node.on("GET /v1/handles/h-1", info)
    assert run("handle", "show", "h-1", "--json").json == info
    assert "1970-01-01" in run("handle", "show", "h-1").out
