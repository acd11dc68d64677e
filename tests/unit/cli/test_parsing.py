"""What people type: durations, rates, bindings, pairs."""

from pathlib import Path

import msgspec
import pytest
import typer

from keystead.cli.parsing import (
    binding,
    duration_s,
    hex_bytes,
    instant_ms,
    pairs,
    rate,
    version_number,
)
from keystead.errors import MalformedRequest
from keystead.keys.narrowing import Binding, Narrowing, RateLimit, caveats_of

VALUE = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("30d", 2_592_000), ("1w", 604_800)],
)
def test_durations(text: str, seconds: int) -> None:
    assert duration_s(text, "--ttl") == seconds


@pytest.mark.parametrize("text", ["", "m", "15 m", "-1s", "1.5h", "15M", "1h30", "٣s", "1" * 13])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        duration_s(text, "--ttl")


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("2h", 92_800_000),
        ("1d1s", 13_599_000),
        ("10w", 0),
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-02T00:00:00.25+01:00", 82_800_250),
        ("1969-12-31T00:00:00Z", 0),
    ],
)
def test_instants(text: str, time_ms: int) -> None:
    assert instant_ms(text, "--since", 100_000_000) == time_ms


@pytest.mark.parametrize("text", ["", "now", "2026-11-03", "2026-11-03T14:00:00", "25:00", "2y"])
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="2026-11-03T14:00:00Z"):
        instant_ms(text, "--since", 0)


def test_rates() -> None:
    assert rate("100/60s", "--rate") == RateLimit(count=100, per_s=60)
    assert rate("5/2m", "--rate") == RateLimit(count=5, per_s=120)
    assert rate("5", "--rate") == RateLimit(count=5, per_s=1)


@pytest.mark.parametrize("text", ["", "/60s", "100/", "100/60s/2", "many/60s", "-1/60s"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        rate(text, "--rate")


@pytest.mark.parametrize("kind", ["ed25519", "certificate"])
@pytest.mark.parametrize("value", [VALUE, "02" * 32, ":".join(["02"] * 32)])
def test_bindings_to_32_bytes(kind: str, value: str) -> None:
    found = binding(f"{kind}:{value}", "--bind")
    assert found == msgspec.convert({"kind": kind, "value": VALUE}, Binding)
    assert caveats_of(Narrowing(bound_to=found))


def test_a_binding_to_a_unix_peer() -> None:
    assert binding("unix:front:33", "--bind") == Binding(kind="unix", value="front:33")


@pytest.mark.parametrize("text", ["", "ed25519", "ed25519:", "unix:", "rsa:x", f"{VALUE}"])
def test_what_is_no_binding(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        binding(text, "--bind")


def test_a_binding_to_what_a_file_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(typer.BadParameter):
        binding(f"ed25519:@{path}", "--bind")
    path.write_text("no key")
    for kind in ("ed25519", "certificate"):
        with pytest.raises(MalformedRequest):
            binding(f"{kind}:@{path}", "--bind")


def test_pairs() -> None:
    assert pairs(["a=1", "b=x=y", "c="], "--label") == {"a": "1", "b": "x=y", "c": ""}
    assert pairs(None, "--label") == {}
    for bad in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(typer.BadParameter):
            pairs(bad, "--label")


def test_versions_and_hex() -> None:
    assert version_number("all", "--version") is None
    assert version_number("12", "--version") == 12
    for bad in ("0", "-1", "x", "²", ""):
        with pytest.raises(typer.BadParameter):
            version_number(bad, "--version")
    assert hex_bytes("0aFF", "--previous") == hex_bytes("0a:ff", "--previous") == b"\x0a\xff"
    for bad in ("", "0", "0a f", "zz"):
        with pytest.raises(typer.BadParameter):
            hex_bytes(bad, "--previous")
