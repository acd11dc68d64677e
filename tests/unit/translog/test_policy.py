"""Trust policies: the format line by line, and which cosignatures are enough."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import pytest

from keystead.errors import MalformedRequest, QuorumMissing, SignatureInvalid
from keystead.limits import TRUST_POLICY_BYTES_MAX, TRUST_POLICY_ITEMS_MAX
from keystead.translog.cosignatures import cosign
from keystead.translog.notes import (
    ED25519_COSIGNATURE,
    Note,
    Signature,
    VerifierKey,
    sign_note,
    vkey_of,
)
from keystead.translog.policy import (
    NO_QUORUM,
    Group,
    PolicyLog,
    PolicyWitness,
    WitnessPolicy,
    parse_policy,
    policy_of,
)
from unit.translog.logs import (
    LOG,
    LOG_SIGN,
    ORIGIN,
    STRANGER,
    STRANGER_SIGN,
    W1,
    W1_SIGN,
    W2,
    W2_SIGN,
    W3,
    W3_SIGN,
    ed25519,
    head,
    mldsa44,
    signed,
)

TIME_S = 1_700_000_000
CHECKPOINT = head(7)
SIGNERS = {"W1": (W1, W1_SIGN), "W2": (W2, W2_SIGN), "W3": (W3, W3_SIGN)}
WITNESSES = tuple(PolicyWitness(name, key) for name, (key, _) in SIGNERS.items())
LOG_LINE = f"log {LOG.encode()}\n"
W_LINES = "".join(f"witness {name} {key.encode()}\n" for name, (key, _) in SIGNERS.items())


def cosigned(names: Iterable[str]) -> Note:
    note = signed(CHECKPOINT)
    more = tuple(
        cosign(note.text, SIGNERS[name][0], TIME_S + int(name[1]), SIGNERS[name][1])
        for name in names
    )
    return Note(note.text, (*note.signatures, *more))


def enough(policy: WitnessPolicy, names: Iterable[str]) -> bool:
    try:
        satisfied = policy.check(cosigned(names))
    except QuorumMissing:
        return False
    assert satisfied.checkpoint == CHECKPOINT
    assert satisfied.log == LOG
    assert satisfied.witnesses == {name: TIME_S + int(name[1]) for name in names}
    return True


def subsets() -> list[tuple[str, ...]]:
    return [names for count in range(4) for names in combinations(SIGNERS, count)]


@pytest.mark.parametrize("quorum", [0, 1, 2, 3])
def test_any_so_many_of_the_witnesses(quorum: int) -> None:
    policy = policy_of(LOG, WITNESSES, quorum)
    for names in subsets():
        assert enough(policy, names) is (len(names) >= quorum)


@pytest.mark.parametrize(
    ("lines", "quorum"),
    [
        ("quorum none\n", [set()]),
        ("quorum W2\n", [{"W2"}]),
        ("group g any W1 W3\nquorum g\n", [{"W1"}, {"W3"}]),
        ("group g all W1 W3\nquorum g\n", [{"W1", "W3"}]),
        ("group g 1 W1\ngroup h 2 g W2 W3\nquorum h\n", [{"W1", "W2"}, {"W1", "W3"}, {"W2", "W3"}]),
        ("group g any W1 W2\ngroup h all g W3\nquorum h\n", [{"W1", "W3"}, {"W2", "W3"}]),
        ("group g any W1 W2\ngroup unused all W3\nquorum g\n", [{"W1"}, {"W2"}]),
    ],
)
def test_groups_and_thresholds(lines: str, quorum: list[set[str]]) -> None:
    """``quorum``: the least sets that are enough."""
    policy = parse_policy(LOG_LINE + W_LINES + lines)
    for names in subsets():
        assert enough(policy, names) is any(least <= set(names) for least in quorum)


def test_who_is_missing_is_said() -> None:
    with pytest.raises(QuorumMissing, match=r"at size 7, met 1 \(W2\); missing: W1, W3"):
        policy_of(LOG, WITNESSES, 2).check(cosigned(["W2"]))


def test_witnesses_do_not_stand_in_for_the_log() -> None:
    everybody = cosigned(SIGNERS)
    unsigned = Note(everybody.text, everybody.signatures[1:])
    with pytest.raises(SignatureInvalid, match="expected a note signed by"):
        policy_of(LOG, WITNESSES, 1).check(unsigned)
    other, _ = ed25519("other.example", 9)
    with pytest.raises(SignatureInvalid, match=r"expected a checkpoint of other\.example"):
        policy_of(other, WITNESSES, 1).check(everybody)
    with pytest.raises(SignatureInvalid, match="met one of"):
        parse_policy("quorum none").check(everybody)


def test_a_wrong_cosignature_of_a_known_witness_refuses_all() -> None:
    note = cosigned(["W2", "W3"])
    bad = Signature(W1.name, W1.key_id, bytes(72))
    with pytest.raises(SignatureInvalid, match="does not verify"):
        policy_of(LOG, WITNESSES, 2).check(Note(note.text, (*note.signatures, bad)))
    stranger = Signature("w9.example", b"1234", bytes(72))
    satisfied = policy_of(LOG, WITNESSES, 2).check(Note(note.text, (*note.signatures, stranger)))
    assert satisfied.witnesses.keys() == {"W2", "W3"}


def test_any_of_the_logs_will_do() -> None:
    """Two keys of one origin, as when a log changes its key, and a log of another origin."""
    other, other_sign = ed25519("other.example", 9)
    policy = parse_policy(
        "".join(f"log {key.encode()}\n" for key in (STRANGER, LOG, other)) + "quorum none"
    )
    assert policy.check(signed(CHECKPOINT)).log == LOG
    assert policy.check(signed(CHECKPOINT, STRANGER, STRANGER_SIGN)).log == STRANGER
    theirs = head(7, origin="other.example")
    assert policy.check(signed(theirs, other, other_sign)).log == other
    lie = Note(CHECKPOINT.encode(), (sign_note(CHECKPOINT.encode(), other, other_sign),))
    with pytest.raises(SignatureInvalid):
        policy.check(lie)


def test_a_log_that_signs_with_mldsa() -> None:
    key, sign = mldsa44(ORIGIN, 8)
    text = CHECKPOINT.encode()
    note = Note(text, (sign_note(text, LOG, LOG_SIGN), cosign(text, key, 0, sign)))
    assert policy_of(key).check(note).log == key
    assert policy_of(LOG).check(note).log == LOG


def test_policies_read_back() -> None:
    text = (
        "# a comment \u20ac\n\n"
        f"\t log   {LOG.encode()}\thttps://log.example/ \n"
        f"witness W\u00e4 {W1.encode()} https://w1.example/\n"
        f"  # another\n"
        f"witness W2 {W2.encode()}\n"
        "group g 1 W\u00e4 W2\n"
        "quorum g"
    )
    policy = parse_policy(text)
    assert policy == WitnessPolicy(
        (PolicyLog(LOG, "https://log.example/"),),
        (PolicyWitness("W\u00e4", W1, "https://w1.example/"), PolicyWitness("W2", W2)),
        (Group("g", 1, ("W\u00e4", "W2")),),
        "g",
    )
    assert parse_policy(policy.encode()) == policy


def test_names_are_octets() -> None:
    """Not UTF-8, and alike only byte by byte; U+00A0 and U+2003 part no words."""
    lines = [
        b"witness \xff\xa0 " + W1.encode().encode(),
        b"witness K " + W2.encode().encode(),
        "witness \u212a\u2003 ".encode() + W3.encode().encode(),
        "group g 3 K \u212a\u2003 ".encode() + b"\xff\xa0",
        b"quorum g",
    ]
    data = b"\n".join([LOG_LINE.encode().strip(), *lines, b""])
    policy = parse_policy(data)
    assert policy.encode() == data
    assert len(policy.groups[0].members) == 3


TWIN = vkey_of("twin.example", ED25519_COSIGNATURE, W1.public)


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "# only a comment",
        LOG_LINE,
        "quorum",
        "quorum none none",
        "quorum none\nquorum none",
        "quorum W1",
        "quorum W1\n" + W_LINES,
        "log\nquorum none",
        "log x\nquorum none",
        f"log {LOG.encode()} a b\nquorum none",
        f"log {W1.encode()}\nquorum none",
        LOG_LINE * 2 + "quorum none",
        f"{LOG_LINE}log {vkey_of('x', 1, LOG.public).encode()}\nquorum none",
        f"witness W1 {LOG.encode()}\nquorum W1",
        f"witness {W1.encode()}\nquorum none",
        f"witness W1 {W1.encode()} a b\nquorum none",
        f"witness none {W1.encode()}\nquorum none",
        W_LINES + f"witness W1 {ed25519('x', 9, 4)[0].encode()}\nquorum W1",
        W_LINES + f"witness W9 {TWIN.encode()}\nquorum W1",
        W_LINES + "group g any\nquorum W1",
        W_LINES + "group g 0 W1\nquorum W1",
        W_LINES + "group g 2 W1\nquorum W1",
        W_LINES + "group g 01 W1\nquorum W1",
        W_LINES + "group g -1 W1\nquorum W1",
        W_LINES + "group g Any W1\nquorum W1",
        W_LINES + "group g any none\nquorum W1",
        W_LINES + "group g any W9\nquorum W1",
        W_LINES + "group g any g\nquorum W1",
        W_LINES + "group g any h\ngroup h any W1\nquorum W1",
        W_LINES + "group g any W1 W1\nquorum W1",
        W_LINES + "group g any W1\ngroup h any W1\nquorum W1",
        W_LINES + "group W2 any W1\nquorum W1",
        W_LINES + "group none any W1\nquorum W1",
        "quorum none\nfuture thing",
        "quorum none\r\n",
        "quorum none\x0b",
        "quorum none\x7f",
        "quorum\u00a0none",
        "QUORUM none",
        "quorum none\n" + "#" * TRUST_POLICY_BYTES_MAX,
    ],
)
def test_other_files_are_no_policies(lines: str) -> None:
    with pytest.raises(MalformedRequest):
        parse_policy(lines)


def test_a_bad_line_is_named() -> None:
    with pytest.raises(MalformedRequest, match="line 3 of the policy: expected 'log VKEY"):
        parse_policy("quorum none\n\nwitness x")


def keys(count: int) -> list[VerifierKey]:
    return [ed25519(f"w{at}.example", at, ED25519_COSIGNATURE)[0] for at in range(count)]


@pytest.mark.parametrize("kind", ["log", "witness", "group"])
def test_policies_are_bounded(kind: str) -> None:
    many = [ed25519(f"x{at}", at)[0] for at in range(TRUST_POLICY_ITEMS_MAX + 1)]
    witnesses = [
        f"witness W{at} {key.encode()}" for at, key in enumerate(keys(TRUST_POLICY_ITEMS_MAX + 1))
    ]
    groups = ["group G0 any W0"]
    groups += [f"group G{at} any G{at - 1}" for at in range(1, TRUST_POLICY_ITEMS_MAX + 1)]
    lines = {
        "log": [f"log {key.encode()}" for key in many],
        "witness": witnesses,
        "group": groups,
    }[kind]
    before = witnesses[:1] if kind == "group" else []
    allowed = [*before, *lines[:TRUST_POLICY_ITEMS_MAX], "quorum none"]
    assert parse_policy("\n".join(allowed)).quorum == NO_QUORUM
    with pytest.raises(MalformedRequest, match="at most 64"):
        parse_policy("\n".join([*before, *lines, "quorum none"]))


def test_a_simple_policy_is_one_of_the_format() -> None:
    policy = policy_of(LOG, WITNESSES, 2)
    assert parse_policy(policy.encode()) == policy
    assert policy_of(LOG).quorum == NO_QUORUM
    for witnesses, quorum in (
        (WITNESSES, 4),
        (WITNESSES, -1),
        ((), 1),
        ((PolicyWitness("a b", W1),), 1),
        ((PolicyWitness("", W1),), 1),
        ((PolicyWitness("a", LOG),), 1),
        ((PolicyWitness("a", W1, "x y"),), 1),
        ((PolicyWitness("a", W1, "x "),), 1),
        ((PolicyWitness("a", W1), PolicyWitness("a", W3)), 1),
        ((PolicyWitness("a", W1, "x\nquorum none"),), 1),
    ):
        with pytest.raises(MalformedRequest):
            policy_of(LOG, witnesses, quorum)
