"""One refusal of each kind that a client can bring about, and what goes on beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from keystead.cli.tour.inputs import AUDIENCE, image_name
from keystead.cli.tour.report import Finding, check, checked
from keystead.cli.tour.stage import Stage
from keystead.cli.tour.uses import FIRMWARE_VERSION
from keystead.client import (
    Client,
    Handle,
    Narrowing,
    Use,
    admin,
    attenuate,
    operations,
    parse_handle,
)
from keystead.encoding import b64u_decode, b64u_encode
from keystead.keys.framing.jwt import JwtResult

__all__ = ["refuse_changes", "refuse_handles", "refuse_replays", "refuse_requests"]

_CONTEXT = "shop/eu/orders"
_HOUR_MS = 3_600_000
_STRANGER = "kso1.tour-nobody-knows-this-token"


def _sign(
    handle: Handle, *, context: str = _CONTEXT, key: str | None = None, sub: str = "customer-4711"
) -> Use[JwtResult]:
    claims = {"sub": sub, "aud": AUDIENCE}
    return operations.sign_jwt(handle, claims, context=context, idempotency_key=key)


def refuse_requests(stage: Stage) -> Iterator[Finding]:
    """What is asked for is wrong, whoever asks."""
    tls, token = stage.handle("tls"), stage.handle("jwt")
    yield stage.refused(
        "a CertificateVerify over 31 bytes",
        "malformed_request",
        operations.sign_tls(tls, bytes(31), context="web/eu"),
    )
    digest, size = stage.image_facts
    image = image_name(stage.image)
    yield stage.refused(
        "a token handle asked to sign firmware",
        "purpose_mismatch",
        operations.sign_firmware(token, image, 3, sha256=digest, size=size, context="shop/eu"),
    )
    yield stage.refused(
        "firmware whose counter goes back",
        "conflict",
        operations.sign_firmware(
            stage.handle("firmware"),
            image,
            FIRMWARE_VERSION - 1,
            sha256=digest,
            size=size,
            context="build/release",
        ),
    )
    with Client(stage.url, operator=_STRANGER) as stranger:
        yield stage.refused_operator(
            "a stranger lists the keys",
            "unauthenticated",
            admin.list_keys(),
            "key.list",
            client=stranger,
        )
    yield stage.refused_operator(
        "a key that does not exist",
        "not_found",
        admin.show_key(stage.name("nothing")),
        "key.show",
    )


def refuse_handles(stage: Stage) -> Iterator[Finding]:
    """A handle that does not go so far, or no longer."""
    token, whole = stage.handle("jwt"), stage.issued("jwt").handle
    yield stage.refused(
        "mac, by the data handle narrowed to wrap, unwrap, derive",
        "permission_denied",
        operations.mac(stage.handle("data"), b"x", context="shop/db"),
    )
    yield stage.refused(
        "a token in shop/us, by the handle for shop/eu",
        "context_mismatch",
        _sign(token, context="shop/us"),
    )
    yield stage.refused(
        "ES256, by a handle narrowed to ed25519",
        "algorithm_forbidden",
        _sign(attenuate(whole, Narrowing(algorithms=("ed25519",)))),
    )
    yield stage.refused(
        "a handle with one bit of its tag changed",
        "handle_invalid",
        _sign(_forged(whole)),
        known=False,
    )
    past_ms = time.time_ns() // 1_000_000 - _HOUR_MS
    yield stage.refused(
        "a handle that ended an hour ago",
        "handle_expired",
        _sign(attenuate(whole, Narrowing(not_after_ms=past_ms))),
    )
    once = attenuate(whole, Narrowing(uses=1))
    spent = stage.use(_sign(once))
    yield stage.refused(
        f"a second use of a handle for one (its use is record {spent.receipt.seq})",
        "limit_exceeded",
        _sign(once),
    )


def refuse_replays(stage: Stage) -> Iterator[Finding]:
    """The same request again is the same use; another one under its idempotency key is refused."""
    token, key = stage.handle("jwt"), operations.new_idempotency_key()
    first = stage.use(_sign(token, key=key))
    again = stage.use(_sign(token, key=key))

    def same() -> str:
        check(again.receipt.replayed, "expected the second answer to be marked as a replay")
        check(again.result.token == first.result.token, "expected the same token")
        check(again.receipt.seq == first.receipt.seq, "expected no second record")
        return "one token, one record, one use spent"

    yield checked("a request sent twice", "own", same, first.receipt, foreign=False)
    yield stage.refused(
        "other claims under the same idempotency key",
        "replay_conflict",
        _sign(token, key=key, sub="other"),
    )


def refuse_changes(stage: Stage) -> Iterator[Finding]:
    """What an operator stops is stopped; what stands beside it goes on."""
    whole, name = stage.issued("jwt-ed").handle, stage.name("jwt-ed")
    child = attenuate(whole, Narrowing(context_prefix="shop/eu"))
    stage.client.revoke_handle(child.chain_id, reason="tour: a laptop was lost")
    yield stage.refused("a handle that was revoked", "handle_revoked", _sign(child))
    parent = stage.use(_sign(whole))
    yield checked(
        "the parent of the revoked handle",
        "own",
        lambda: "signs as before",
        parent.receipt,
        foreign=False,
    )
    stage.client.move_version(name, "suspend", version=1, reason="tour: looked into")
    yield stage.refused("a version that is suspended", "key_state", _sign(whole))
    stage.client.move_version(name, "resume", version=1, reason="tour: nothing found")
    resumed = stage.use(_sign(whole))
    yield checked(
        "the version once it is resumed",
        "own",
        lambda: "signs again",
        resumed.receipt,
        foreign=False,
    )


def _forged(handle: Handle) -> Handle:
    """The handle with the last bit of its token, which is its tag's, changed."""
    prefix, _, encoded = handle.reveal().partition(".")
    raw = b64u_decode(encoded)
    return parse_handle(f"{prefix}.{b64u_encode(raw[:-1] + bytes([raw[-1] ^ 1]))}")
