"""Targets that need no node: every parser and check that a stranger's bytes reach."""

from __future__ import annotations

import hashlib
import hmac
from functools import cache
from typing import Any

import msgspec

from fuzz import seeds
from fuzz.choices import Choices, mutate
from fuzz.judge import Target
from fuzz.shapes import Hints, as_json, as_msgpack, junk, shaped
from keystead import limits
from keystead.crypto.public import certificate_key, pem
from keystead.crypto.ssh import parse_public_key_line
from keystead.crypto.x509 import parse_certificate, parse_request
from keystead.encoding import b64u_encode, strict_json
from keystead.errors import HandleInvalid, KeysteadError
from keystead.frames.codec import FrameReader, decode_answers, decode_requests, encode_frame
from keystead.frames.messages import Answer, Request
from keystead.front.bodies import bearer_of, check_json, idempotency_key_of, read_head
from keystead.front.uses import decode_batch, decode_proof, decode_use, recode_facts
from keystead.keys.caveats import Caveat, decode_caveat
from keystead.keys.framing.base import Facts
from keystead.keys.framing.data import check_data, decode_wrapped
from keystead.keys.handles import attenuate, parse, verify
from keystead.keys.model import Key
from keystead.keys.narrowing import Narrowing, caveats_of
from keystead.keys.operations import FACTS, FRAMINGS
from keystead.keys.purposes import Purpose
from keystead.keys.use import Asked, Bearer, decide_use
from unit.keys.sample import NOW_MS, ROOT, handle_of, key_of, scene_of

__all__ = ["HINTS", "PURE"]

_CONTEXTS = ("web", "web/eu", "a/b/c")
HINTS: Hints = {
    "context": _CONTEXTS,
    "context_prefix": _CONTEXTS,
    "role": ("server", "client"),
    "transcript_hash": (b"h" * 32, b"h" * 48),
    "sha256": (b"s" * 32,),
    "name": ("router", "camera"),
    "principals": (["deploy"], ["deploy", "deploy"]),
    "key_id": ("build-1",),
    "lifetime_s": (1, 3600),
    "wrapped": seeds.wrapped_texts(),
    "csr": tuple(text.decode() for text in seeds.requests()[1::2]),
    "public_key": seeds.ssh_lines(),
    "dns": (None, ["www.shop.example"], ["a.shop.example", "*.shop.example"]),
    "ip": ([],),
    "claims": ({}, {"sub": "a"}, {"aud": "x", "exp": NOW_MS // 1000 + 60}),
}
_KEY = key_of(Purpose.DATA)
_TOKEN = handle_of(_KEY).reveal()
_PREFIX = "ks1."


def _bytes_size(given: object) -> int:
    return len(given) if isinstance(given, bytes | str) else len(repr(given))


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


# --- frames --------------------------------------------------------------------------------------


def _frame_body(choices: Choices) -> bytes:
    kind = choices.pick((Request, Answer))
    messages = [shaped(choices, kind, HINTS) for _ in range(choices.below(4))]
    return mutate(choices, as_msgpack(messages))


def _read_body(given: Any) -> None:  # noqa: ANN401  each target's own
    try:
        encode_frame(decode_requests(given))
    except KeysteadError:
        encode_frame(decode_answers(given))


def _chunks(choices: Choices) -> list[bytes]:
    bodies = [choices.blob() for _ in range(choices.below(5))]
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    stream = mutate(choices, stream)
    pieces: list[bytes] = []
    while stream and len(pieces) < 64:
        size = choices.below(40) + 1
        pieces.append(stream[:size])
        stream = stream[size:]
    return [*pieces, stream]


def _read_chunks(given: Any) -> None:  # noqa: ANN401  as above
    reader = FrameReader(bytes_max=4096)
    for piece in given:
        for body in reader.feed(piece):
            if len(body) > 4096:
                raise AssertionError("a frame past its bound")


# --- handles -------------------------------------------------------------------------------------


def _token(choices: Choices) -> str:
    """An issued token, bent as text or as bytes."""
    if choices.rarely(2):
        return _text(mutate(choices, _TOKEN.encode()))
    wire = msgspec.msgpack.encode([_body(choices), _caveats(choices), choices.take(32)])
    return _PREFIX + b64u_encode(mutate(choices, wire))


def _chain(choices: Choices) -> str:
    """What a holder can make without asking: any bytes as caveats, with tags that hold."""
    body = _body(choices)
    tag = hmac.digest(ROOT, body, hashlib.sha256)
    caveats = _caveats(choices)
    for caveat in caveats:
        tag = hmac.digest(tag, caveat, hashlib.sha256)
    return _PREFIX + b64u_encode(msgspec.msgpack.encode([body, caveats, tag]))


def _body(choices: Choices) -> bytes:
    body = [_KEY.id, "data", ["wrap", "unwrap", "derive", "mac"], "h-1", 1]
    if choices.rarely(4):
        body[choices.below(5)] = junk(choices, 2)
    return as_msgpack(body)


def _caveats(choices: Choices) -> list[bytes]:
    return [_caveat(choices) for _ in range(choices.below(20) if choices.rarely(4) else 1)]


def _caveat(choices: Choices) -> bytes:
    return mutate(choices, as_msgpack(shaped(choices, Caveat, HINTS)))


def _use_token(given: Any) -> None:  # noqa: ANN401  as above
    handle = parse(given)
    narrower = attenuate(handle)
    grant = verify(ROOT, narrower)
    decide_use(
        grant,
        _KEY,
        Asked(purpose="data", operation="wrap", context="web/eu"),
        Bearer(),
        now_ms=NOW_MS,
        revoked=frozenset(),
        stopped=frozenset(),
    )


def _narrow(given: Any) -> None:  # noqa: ANN401  as above
    try:
        narrowing = msgspec.json.decode(given, type=Narrowing)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        raise HandleInvalid("not a narrowing at all; the front says so") from None
    attenuate(handle_of(_KEY), *caveats_of(narrowing))


# --- facts and framings --------------------------------------------------------------------------


def _facts(choices: Choices) -> tuple[tuple[str, str], bytes]:
    pair = choices.pick(tuple(FACTS))
    return pair, mutate(choices, as_json(shaped(choices, FACTS[pair], HINTS)))


def _recode(given: Any) -> None:  # noqa: ANN401  as above
    (purpose, operation), raw = given
    recode_facts(purpose, operation, msgspec.Raw(raw))


def _framed(choices: Choices) -> tuple[tuple[str, str], bytes]:
    """Facts as a hostile front could send them: msgpack, and not by way of JSON."""
    pair = choices.pick(tuple(FACTS))
    return pair, mutate(choices, as_msgpack(shaped(choices, FACTS[pair], HINTS)))


@cache
def _key_for(purpose: str) -> Key:
    key = key_of(Purpose(purpose), "ed25519")
    spki = _spki()
    certificate = seeds.certificates()[2] if purpose == "ca" else None
    version = msgspec.structs.replace(key.versions[0], public=(spki,), certificate=certificate)
    return msgspec.structs.replace(key, versions=(version,), prehashed=False)


@cache
def _spki() -> bytes:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  this line only

    return seeds.ED25519.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _frame(given: Any) -> None:  # noqa: ANN401  as above
    (purpose, operation), raw = given
    try:
        facts: Facts = msgspec.msgpack.decode(raw, type=FACTS[purpose, operation])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HandleInvalid("not facts at all; admission says so") from None
    framing = FRAMINGS.get((Purpose(purpose), operation))
    if framing is None:
        check_data(facts)  # type: ignore[arg-type]  # the four of purpose data are left
        return
    framing.counter_name(facts)
    framed = framing.frame(facts, scene_of(_key_for(purpose)))
    msgspec.msgpack.encode(framed.finish((seeds.ED25519.sign(framed.message),)))


# --- what stands in HTTP -------------------------------------------------------------------------


def _head(choices: Choices) -> list[tuple[bytes, bytes]]:
    values = {
        b"authorization": (b"Bearer " + _TOKEN.encode(), b"bearer  x", b"Basic eA==", b"Bearer"),
        b"content-length": (b"2", b"0", b"-1", b"1e3", b"9" * 400, b"\xd9\xa1", b"+2", b" 2"),
        b"content-type": (b"application/json", b"application/JSON; charset=utf-16", b"text/plain"),
        b"idempotency-key": (b"a", b"", b"a" * 65, b"\xe9", b"a\tb"),
        b"keystead-proof": (_proof(choices),),
        b"transfer-encoding": (b"chunked", b"gzip, chunked", b"identity"),
    }
    headers: list[tuple[bytes, bytes]] = []
    for _ in range(choices.below(7)):
        name = choices.pick(tuple(values))
        value = choices.pick(values[name])
        headers.append((name, mutate(choices, value) if choices.rarely(2) else value))
    return headers


def _proof(choices: Choices) -> bytes:
    proof = {"time_ms": NOW_MS, "signature": b"s" * 64, "certificate": seeds.certificates()[0]}
    proof |= {choices.pick(tuple(proof)): junk(choices, 2)} if choices.rarely(3) else {}
    return mutate(choices, b64u_encode(mutate(choices, as_json(proof))).encode())


def _read_head(given: Any) -> None:  # noqa: ANN401  as above
    head = read_head({"headers": given, "raw_path": b"/", "query_string": b""}, body_bytes_max=4096)
    bearer_of(head.headers).encode()
    idempotency_key_of(head.headers)
    proof = head.headers.get(b"keystead-proof")
    if proof is not None:
        decode_proof(proof)
    check_json(head.headers)


def _envelope(choices: Choices) -> bytes:
    body: dict[str, object] = {
        "context": choices.pick(_CONTEXTS),
        "facts": junk(choices, 3),
        "version": choices.integer(),
        "reason": choices.text(),
    }
    if choices.rarely(2):
        body |= {"purpose": "data", "operation": "wrap", "handle": _TOKEN}
        body = {"items": [body] * choices.pick((1, 2, 0, 1001))}
    return mutate(choices, as_json(body))


def _read_envelope(given: Any) -> None:  # noqa: ANN401  as above
    (decode_batch if b'"items"' in given else decode_use)(given)


def _json(choices: Choices) -> bytes:
    return mutate(choices, as_json(junk(choices)))


def _bent(*options: bytes) -> Any:  # noqa: ANN401  a maker
    return lambda choices: mutate(choices, choices.pick(options))


def _bent_text(*options: str) -> Any:  # noqa: ANN401  a maker
    return lambda choices: _text(mutate(choices, choices.pick(options).encode()))


def _client_certificate(given: Any) -> None:  # noqa: ANN401  as above
    pem(certificate_key(given)[1])


PURE: tuple[Target, ...] = (
    Target("frames.body", _frame_body, _read_body, _bytes_size),
    Target("frames.chunks", _chunks, _read_chunks, _bytes_size),
    Target("handle.token", _token, _use_token, _bytes_size),
    Target("handle.chain", _chain, _use_token, _bytes_size),
    Target("handle.caveat", _caveat, decode_caveat, _bytes_size),  # type: ignore[arg-type]  # makes bytes
    Target(
        "handle.narrowing",
        lambda c: as_json(shaped(c, Narrowing, HINTS)),
        _narrow,
        _bytes_size,
    ),
    Target("x509.request", _bent(*seeds.requests()), parse_request, _bytes_size),  # type: ignore[arg-type]  # as above
    Target("x509.certificate", _bent(*seeds.certificates()), parse_certificate, _bytes_size),  # type: ignore[arg-type]  # as above
    Target("x509.client", _bent(*seeds.certificates()), _client_certificate, _bytes_size),
    Target("ssh.line", _bent_text(*seeds.ssh_lines()), parse_public_key_line, _bytes_size),  # type: ignore[arg-type]  # makes text
    Target("data.wrapped", _bent_text(*seeds.wrapped_texts()), decode_wrapped, _bytes_size),  # type: ignore[arg-type]  # as above
    Target(
        "json.strict",
        _json,
        lambda given: strict_json(given, depth_max=limits.JSON_DEPTH_MAX),  # type: ignore[arg-type]  # makes bytes
        _bytes_size,
    ),
    Target("facts.json", _facts, _recode, _bytes_size),
    Target("facts.framed", _framed, _frame, _bytes_size),
    Target("http.head", _head, _read_head, _bytes_size),
    Target("http.envelope", _envelope, _read_envelope, _bytes_size),
)
"""All of them, by name."""
