"""The first steps: make keys, issue handles of them, narrow two of those without asking anyone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import msgspec

from keystead.cli.tour.inputs import KeyPlan
from keystead.cli.tour.report import Finding, check, checked
from keystead.cli.tour.stage import Stage
from keystead.client import Issued, Narrowing
from keystead.keys.commands import KeyInfo, RecordInfo

__all__ = ["issue_handles", "make_keys"]

_NARROWED_LIFE_MS = 600_000
_JWT_USES = 4


def make_keys(stage: Stage) -> Iterator[Finding]:
    """A key of every purpose; of each public part, what another tool takes it for."""
    for plan in stage.plans:
        made = stage.create(plan)
        row = checked(
            f"key {made.name}",
            stage.tools.openssl if plan.kind else "own",
            partial(_key_made, stage, plan, made),
            foreign=bool(plan.kind),
        )
        records = stage.client.log(key=made.name, operation="key.create")
        yield msgspec.structs.replace(row, seqs=tuple(record.seq for record in records))


def _key_made(stage: Stage, plan: KeyPlan, made: KeyInfo) -> str:
    version = made.versions[0]
    check(version.state == "active", f"expected an active version, met {version.state}")
    check(made.labels["run"] == stage.run, "expected the labels that were given")
    shown = f"{plan.purpose}, {version.algorithm}"
    if not plan.kind:
        check(not version.public_pem, "expected no public part of a secret")
        return f"{shown}, tenant {made.tenant}; nothing of it is public"
    kind = stage.tools.public_kind(version.public_pem[0])
    check(kind == plan.kind, f"expected a {plan.kind} public key, met {kind}")
    return f"{shown}, tenant {made.tenant}; public key: {kind}"


def issue_handles(stage: Stage) -> Iterator[Finding]:
    """A handle of each key; then those of the token and the data key, narrowed by their holder."""
    for plan in stage.plans:
        issued = stage.issue(plan)
        records = stage.client.log(handle_id=issued.handle_id)
        row = checked(
            f"handle of {plan.role} for {plan.principal}",
            "own",
            partial(_handle_issued, issued, records),
            foreign=False,
        )
        yield msgspec.structs.replace(row, seqs=tuple(record.seq for record in records))
    until_ms = time.time_ns() // 1_000_000 + _NARROWED_LIFE_MS
    token = Narrowing(
        operations=("sign",), context_prefix="shop/eu", not_after_ms=until_ms, uses=_JWT_USES
    )
    stage.narrow("jwt", token)
    stage.narrow("data", Narrowing(operations=("derive", "unwrap", "wrap")))
    yield checked(
        "the token handle, narrowed by its holder alone",
        "own",
        lambda: _narrowed(stage, "jwt", f"shop/eu and below, sign only, {_JWT_USES} uses, 10 min"),
        foreign=False,
    )
    yield checked(
        "the data handle, narrowed by its holder alone",
        "own",
        lambda: _narrowed(stage, "data", "wrap, unwrap and derive only"),
        foreign=False,
    )


def _handle_issued(issued: Issued, records: list[RecordInfo]) -> str:
    ops = [record.body.get("op") for record in records]
    check(ops == ["handle.issue"], f"expected one record of the issue, met {ops}")
    check(
        issued.handle.reveal() not in repr(issued.handle),
        "expected a handle to print without its token",
    )
    return f"{', '.join(issued.operations)}; its token is shown once, and in no repr"


def _narrowed(stage: Stage, role: str, shown: str) -> str:
    parent, child = stage.issued(role).handle, stage.handle(role)
    check(child.body == parent.body, "expected a child of the same handle")
    check(len(child.caveats) > len(parent.caveats), "expected more caveats than the parent's")
    return f"{shown}; no request was sent"
