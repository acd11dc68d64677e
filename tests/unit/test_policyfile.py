"""Policy files: each key's line, each refusal's line, and values that are exactly what was said."""

import json
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from house.tree import ROOT
from keystead.errors import MalformedRequest
from keystead.policyfile import (
    COUNT,
    FLAG,
    LENGTH_MS,
    LENGTH_S,
    LENGTH_US,
    POLICY_BYTES_MAX,
    POLICY_DEPTH_MAX,
    POLICY_PROBLEMS_MAX,
    POLICY_WORD_MAX,
    RATIO_PERCENT,
    SHARE_PPM,
    SHARES_PPM,
    TEXT,
    TEXTS,
    Path,
    Reader,
    Unit,
    choice,
    close_to,
    load,
    shown,
)

EVERYTHING = r'''# a comment = 1
a = 1
b.c = """x
d = 1 \""" [t]
""""
'e f'."g\u0068" . h = 'x # y'
raw = \'\'\'
[no]
'\'\''

[t] # a comment
z = [ # one
  1, "]", # two ]
  [2,
   3], { k = [
   4] },
]
when = 1979-05-27 07:32:00
[t.u."v.w"]
on = true
[[arr]]
k = { a = 1, b = { c = 0x2f }, d.e = "}" }
[[arr]]
[arr.sub]
f = -1.5e3
[[arr.deep]]
[[arr.deep]]
last = inf
'''.replace("\\'", "'")  # fmt: skip
LINES: dict[Path, int] = {
    (): 1,
    ("a",): 2,
    ("b",): 3,
    ("b", "c"): 3,
    ("e f",): 6,
    ("e f", "gh"): 6,
    ("e f", "gh", "h"): 6,
    ("raw",): 7,
    ("t",): 11,
    ("t", "z"): 12,
    ("t", "z", 0): 13,
    ("t", "z", 1): 13,
    ("t", "z", 2): 14,
    ("t", "z", 2, 0): 14,
    ("t", "z", 2, 1): 15,
    ("t", "z", 3): 15,
    ("t", "z", 3, "k"): 15,
    ("t", "z", 3, "k", 0): 16,
    ("t", "when"): 18,
    ("t", "u"): 19,
    ("t", "u", "v.w"): 19,
    ("t", "u", "v.w", "on"): 20,
    ("arr",): 21,
    ("arr", 0): 21,
    ("arr", 0, "k"): 22,
    ("arr", 0, "k", "a"): 22,
    ("arr", 0, "k", "b"): 22,
    ("arr", 0, "k", "b", "c"): 22,
    ("arr", 0, "k", "d"): 22,
    ("arr", 0, "k", "d", "e"): 22,
    ("arr", 1): 23,
    ("arr", 1, "sub"): 24,
    ("arr", 1, "sub", "f"): 25,
    ("arr", 1, "deep"): 26,
    ("arr", 1, "deep", 0): 26,
    ("arr", 1, "deep", 1): 27,
    ("arr", 1, "deep", 1, "last"): 28,
}


def paths_of(value: object, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths_of(item, (*path, key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from paths_of(item, (*path, position))


def refusal(text: str | bytes) -> str:
    with pytest.raises(MalformedRequest) as met:
        load(text, "p.toml")
    return str(met.value)


# --- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_each_key_and_item_has_its_line(newline: str) -> None:
    document = load(EVERYTHING.replace("\n", newline).encode(), "p.toml")
    assert document.lines == LINES
    assert set(paths_of(document.value)) == set(LINES)


def test_lines_of_a_file_that_people_wrote() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    document = load(text, "pyproject.toml")
    lines = text.split("\n")
    found = set(paths_of(document.value))
    assert found == set(document.lines)
    for path in found - {()}:
        line = lines[document.line_of(path) - 1]
        value = document.get(path)
        named = path[-1] if isinstance(path[-1], str) else value
        assert isinstance(named, dict | list) or str(named) in line, (path, line)


def test_what_is_not_there_has_the_line_of_what_would_hold_it() -> None:
    document = load("\n[a]\n[a.b]\nc = [1]\n", "p.toml")
    assert document.line_of(("a", "b", "x", "y")) == 3
    assert document.line_of(("a", "x")) == 2
    assert document.line_of(("a", "b", "c", 7)) == 4
    assert document.line_of(("x",)) == 1


def test_values_are_found_by_their_paths() -> None:
    document = load("a = [{ b = 0.1 }]\n", "p.toml")
    assert document.get(("a", 0, "b")) == Decimal("0.1")
    nowhere: list[Path] = [("a", 1), ("a", -1), ("a", "b"), ("b",), ("a", 0, "b", "c")]
    for path in nowhere:
        assert document.get(path) is None


BARE = st.text("abz09-_", min_size=1, max_size=4)
TEXTS_OF_ALL_SORTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\r"), max_size=8
) | st.sampled_from(['"""', "'''", "]", "}", "# x", "=", "[a]", 'a"', "\\", "\n\n", "''"])
SCALARS = st.sampled_from(
    ["1", "-0.5", "true", "1_000", "0xff", "inf", "1979-05-27", "07:32:00", "1979-05-27 07:32:00Z"]
)


def spelled_text(text: str, how: int) -> str:
    basic = json.dumps(text, ensure_ascii=True)
    if not text.isprintable() or any(ord(one) > 0xFFFF for one in text) or "'" in text:
        return '"' + "".join(f"\\U{ord(one):08x}" for one in text) + '"'
    return (basic, f"'{text}'", f"'''\n{text}\n'''", f'"""\n{basic[1:-1]}\n"""')[how]


class Writer:
    """Writes a document as it is drawn, and the line of each of its keys."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[Path, int] = {(): 1}

    def one_of(self, *texts: str) -> str:
        return self.draw(st.sampled_from(texts))

    def names(self, most: int) -> list[str]:
        return self.draw(st.lists(BARE, max_size=most, unique=True))

    def here(self, path: Path) -> None:
        self.lines[path] = self.text.count("\n") + 1

    def key(self, name: str) -> str:
        return self.one_of(name, f'"{name}"', f"'{name}'")

    def space(self) -> str:
        return self.one_of("", " ", "\t")

    def line_break(self) -> str:
        return self.one_of("", "", "\n", " # ] } \" '\n", "\n\n")

    def value(self, path: Path, depth: int) -> None:
        match self.draw(st.integers(0, 3 if depth else 1)):
            case 0:
                self.text += self.draw(SCALARS)
            case 1:
                text = self.draw(TEXTS_OF_ALL_SORTS)
                self.text += spelled_text(text, self.draw(st.integers(0, 3)))
            case 2:
                self.array(path, depth)
            case _:
                self.inline_table(path, depth)

    def array(self, path: Path, depth: int) -> None:
        self.text += "["
        for position in range(self.draw(st.integers(0, 3))):
            self.text += "," * (position > 0) + self.line_break() + self.space()
            self.here((*path, position))
            self.value((*path, position), depth - 1)
            self.text += self.line_break()
        self.text += "]"

    def inline_table(self, path: Path, depth: int) -> None:
        self.text += "{"
        for position, name in enumerate(self.names(2)):
            self.text += "," * (position > 0) + self.space()
            self.pair((*path, name), self.key(name), depth - 1)
        self.text += "}"

    def pair(self, path: Path, spelling: str, depth: int) -> None:
        self.here(path)
        self.text += f"{spelling}{self.space()}={self.space()}"
        self.value(path, depth)

    def pairs(self, path: Path) -> None:
        for name in self.names(3):
            self.text += self.line_break()
            self.pair((*path, f"k{name}"), self.key(f"k{name}"), 3)
            self.text += self.one_of("\n", " # = [\n")

    def table(self, name: str) -> None:
        self.here((name,))
        self.text += f"[{self.space()}{self.key(name)}{self.space()}]\n"
        self.pairs((name,))
        for number in range(self.draw(st.integers(0, 2))):
            if not number:
                self.here((name, "a"))
            self.here((name, "a", number))
            self.text += f"[[{self.key(name)}{self.space()}.a]]\n"
            self.pairs((name, "a", number))


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    writer = Writer(draw)
    writer.pairs(())
    for name in writer.names(2):
        writer.table(f"t{name}")
    return writer.text, writer.lines


@given(documents())
def test_lines_of_any_document(drawn: tuple[str, dict[Path, int]]) -> None:
    text, lines = drawn
    document = load(text, "p.toml")
    assert document.lines == lines
    assert set(paths_of(document.value)) == set(lines)


@given(st.text("ab=.[]{}\"'#,\\1 \n", max_size=40))
def test_what_the_scan_refuses_or_leaves_tomllib_decides(text: str) -> None:
    try:
        value = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError:
        assert refusal(text).startswith("p.toml:")
        return
    document = load(text, "p.toml")
    assert document.value == value
    assert set(paths_of(value)) == set(document.lines)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\nb = 90d\n", 'p.toml:2: expected TOML.* column 7: .*in quotes: b = "90d"'),
        ("a = 1\n\nb =", "p.toml:3: expected TOML, met a fault: invalid value"),
        ("a = 1\nb = \n\n# c\n", "p.toml:2: expected TOML, met a fault at column 5: invalid value"),
        ("[a\n", "p.toml:1: expected TOML.*column 3: expected ']'"),
        ("\na = 'x\n", "p.toml:2: expected TOML"),
        ('a = 1\nb = """x\n\n', "p.toml:2: expected TOML.*unterminated"),
        ("a = 1\r\n[b]\r\nc = yes\r\n", 'p.toml:3: expected TOML.*in quotes: c = "yes"'),
        ("a = 1\n[b]\nc = 1\n[b]\n", "p.toml:4: expected TOML.*cannot declare"),
        ("a = 1\n'a' = 2", "p.toml:2: expected each key once, met a again. It is first .*line 1"),
        ("[t]\nb.c = 1\n\nb.c = 2", "p.toml:4: expected each key once, met t.b.c again.*line 2"),
        ("a = { b = 1, b = 2 }", "p.toml:1: expected each key once, met a.b again"),
        ("a = [\n {b = 1},\n {c = 1,\n c = 2}]", r"p.toml:4: .*met a\[1\].c again"),
        ("a = 2024-99-99", "p.toml:1: expected TOML"),
        ("\ufeffa = 1", "p.toml:1: expected TOML.*column 1"),
        ("a = 1\nb = 'x\0'", "p.toml:2: expected TOML"),
    ],
)
def test_what_is_no_toml_is_refused_by_its_line(text: str, said: str) -> None:
    with pytest.raises(MalformedRequest, match=said):
        load(text, "p.toml")
    with pytest.raises(MalformedRequest, match=said):
        load(text.encode(), "p.toml")


def test_bytes_that_are_no_text_are_refused_by_their_line() -> None:
    assert refusal(b"a = 1\nb = '\xff'").startswith("p.toml:2: expected UTF-8, met the byte 0xff")


def test_a_file_is_bounded_before_it_is_read() -> None:
    assert load("#" * POLICY_BYTES_MAX, "p.toml").value == {}
    for text in (
        "#" * (POLICY_BYTES_MAX + 1),
        "\u00e4" * (POLICY_BYTES_MAX // 2) + "[",
        b"[" * 99999,
    ):
        assert refusal(text).startswith("p.toml:1: expected a policy file of 65536 bytes at most")


NESTED: dict[str, Callable[[int], str]] = {
    "arrays": lambda deep: "a = " + "[" * deep + "]" * deep,
    "tables": lambda deep: "a = " + "{b = " * (deep - 1) + "1" + "}" * (deep - 1),
    "both": lambda deep: "a = " + "[{b = " * (deep // 2) + "[]" + "}]" * (deep // 2),
    "dotted key": lambda deep: ".".join("a" * deep) + " = 1",
    "header": lambda deep: "[" + ".".join("a" * (deep - 1)) + "]\nb = 1",
}
"""A text of each kind that is so deep."""


@pytest.mark.parametrize("kind", NESTED)
def test_depth_is_bounded(kind: str) -> None:
    assert load(NESTED[kind](POLICY_DEPTH_MAX - 1), "p.toml").value
    for deep in (POLICY_DEPTH_MAX + 1, 5_000):
        assert "expected tables and arrays at most 16 deep" in refusal(NESTED[kind](deep))


def test_numbers_are_bounded() -> None:
    assert load(f"a = {'9' * POLICY_WORD_MAX}", "p.toml").value == {"a": int("9" * 64)}
    for number in ("9" * 65, "0x" + "9" * 5_000, "1." + "0" * 5_000, "9" * 5_000):
        assert refusal(f"\na = {number}").startswith("p.toml:2: expected numbers and dates of at")


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * 32_000) + " = 1",
        "[" + ".".join("a" * 32_000) + "]",
        "a = " + "[" * 60_000,
        "a = " + "{b=" * 20_000,
        '"""' * 20_000,
        'a = "' + "\\" * 60_000,
        "\n".join("a" * 16 + f".b{n} = 1" for n in range(2_500)).replace("aa", "a.a."),
        "[[a]]\n" * 10_000,
        " #\n" * 20_000,
        "a = [" + "\n" * 60_000 + "]",
    ],
    ids=lambda text: text[:12],
)
def test_no_text_within_the_bound_takes_long(text: str) -> None:
    began = time.process_time()
    with suppress(MalformedRequest):
        load(text, "p.toml")
    assert time.process_time() - began < 2


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "written", "stored", "said"),
    [
        (LENGTH_MS, '"90d"', 7_776_000_000, "90d"),
        (LENGTH_MS, '"24h"', 86_400_000, "1d"),
        (LENGTH_MS, '"90m"', 5_400_000, "90m"),
        (LENGTH_MS, '"30s"', 30_000, "30s"),
        (LENGTH_MS, '"250ms"', 250, "250ms"),
        (LENGTH_MS, '"0d"', 0, "0s"),
        (LENGTH_S, '"1h"', 3_600, "1h"),
        (LENGTH_US, '"50ms"', 50_000, "50ms"),
        (LENGTH_US, '"7us"', 7, "7us"),
        (SHARE_PPM, "0.05", 50_000, "0.05"),
        (SHARE_PPM, "0.29", 290_000, "0.29"),
        (SHARE_PPM, "0.000001", 1, "0.000001"),
        (SHARE_PPM, "1", 1_000_000, "1.0"),
        (SHARE_PPM, "5e-2", 50_000, "0.05"),
        (SHARE_PPM, "0.050000000000000000000", 50_000, "0.05"),
        (SHARE_PPM, "-0.5", -500_000, "-0.5"),
        (RATIO_PERCENT, "3.0", 300, "3.0"),
        (RATIO_PERCENT, "1.15", 115, "1.15"),
        (COUNT, "1_000", 1_000, "1000"),
    ],
)
def test_a_number_is_stored_exactly(unit: Unit[int], written: str, stored: int, said: str) -> None:
    value = load(f"a = {written}", "p.toml").get(("a",))
    assert unit.read(value) == stored
    assert unit.text(stored) == said


@pytest.mark.parametrize("unit", [LENGTH_S, LENGTH_MS, LENGTH_US, SHARE_PPM, RATIO_PERCENT, COUNT])
@given(stored=st.integers(0, 10**9))
def test_a_number_is_read_as_it_was_written(unit: Unit[int], stored: int) -> None:
    value = load(f"a = {unit.toml(stored)}", "p.toml").get(("a",))
    assert unit.read(value) == stored


@given(st.lists(st.text(st.characters(codec="utf-8"))), st.lists(st.integers(0, 10**6)))
def test_an_array_is_read_as_it_was_written(texts: list[str], shares: list[int]) -> None:
    text = f"a = {TEXTS.toml(tuple(texts))}\nb = {SHARES_PPM.toml(tuple(shares))}\n"
    document = load(text, "p.toml")
    assert TEXTS.read(document.get(("a",))) == tuple(texts)
    assert SHARES_PPM.read(document.get(("b",))) == tuple(shares)


@pytest.mark.parametrize(
    ("unit", "value", "said"),
    [
        (LENGTH_MS, 90, 'expected a length such as "24h", met 90. Write a whole number and one of'),
        (LENGTH_MS, "90", 'met "90"'),
        (LENGTH_MS, "1.5h", 'met "1.5h"'),
        (LENGTH_MS, "-1h", 'met "-1h"'),
        (LENGTH_MS, "1h ", 'met "1h "'),
        (LENGTH_MS, "1w", 'met "1w"'),
        (LENGTH_MS, "\u0661h", "met"),
        (LENGTH_MS, "1us", 'met "1us".* one of d, h, m, s, ms, in quotes'),
        (LENGTH_S, "1ms", 'met "1ms".* one of d, h, m, s, in quotes'),
        (LENGTH_MS, "9" * 16 + "d", "met"),
        (SHARE_PPM, "5%", 'expected a share from 0 to 1 such as 0.05, met "5%". Write a number'),
        (SHARE_PPM, True, "met true"),
        (SHARE_PPM, Decimal("nan"), "met NaN"),
        (SHARE_PPM, Decimal("-inf"), "met -Infinity"),
        (SHARE_PPM, Decimal("1e999999999"), r"met 1E\+999999999"),
        (SHARE_PPM, 10**60, "met 1000"),
        (SHARE_PPM, Decimal("0.0000001"), "of 6 decimals at most, met 1E-7"),
        (SHARE_PPM, Decimal("1e-999999999"), "of 6 decimals at most"),
        (RATIO_PERCENT, Decimal("3.005"), "of 2 decimals at most, met 3.005"),
        (RATIO_PERCENT, [], "met an array of 0"),
        (COUNT, Decimal("1.0"), "expected a whole number, met 1.0"),
        (COUNT, True, "expected a whole number, met true"),
        (FLAG, 1, "expected true or false, met 1"),
        (FLAG, "true", 'expected true or false, met "true"'),
        (TEXT, 1, "expected a text, met 1. Write it in quotes"),
        (TEXTS, "a", 'expected an array, met "a". Write it in brackets'),
        (TEXTS, ["a", 1], "expected a text, met 1"),
        (choice("context", "use"), "contxt", 'expected "context" or "use".*Did you mean context'),
        (choice("context", "use"), {}, "met a table. Write it in quotes"),
        (choice("context", "use"), tomllib.loads("a = 07:32:00")["a"], "met a date or time"),
    ],
)
def test_another_value_is_refused(unit: Unit[object], value: object, said: str) -> None:
    with pytest.raises(MalformedRequest, match=said):
        unit.read(value)


def test_what_is_shown_of_a_value_is_short_and_printable() -> None:
    assert shown("a" * 40) == f'"{"a" * 40}"'
    assert shown("a" * 41) == f'"{"a" * 40}..."'
    assert shown("\x1b[2J\u202e\n") == r'"\u001b[2J\u202e\n"'


def test_the_word_that_is_meant_is_told() -> None:
    assert close_to("overlp", ("overlap", "cache")) == "Did you mean overlap?"
    assert close_to("zzz", ("overlap", "cache")) == "There are: overlap, cache"


# --- one document --------------------------------------------------------------------------------


def test_a_reader_keeps_every_problem_and_tells_them_by_line() -> None:
    text = "x = 1\n[t]\nb = 'no'\n\nc = [\n 'a',\n 2]\nd = 3\ne = true\n"
    reader = Reader(load(text, "p.toml"))
    assert reader.read(("t", "e"), FLAG, default=False)
    assert reader.read(("t", "f"), COUNT, 7) == 7
    reader.finish()  # no problem so far
    assert reader.read(("t", "c"), TEXTS, ("kept",)) == ("kept",)
    assert reader.read(("t", "b"), COUNT, 8) == 8
    reader.keys(("t",), ("b", "c", "e", "f", "dd"))
    reader.keys((), ("t",))
    reader.keys(("x",), ("y",))
    reader.keys(("none",), ("y",))
    reader.problem(("t", "f"), "expected it to be there")
    reader.problem((), "expected more")
    assert reader.failed
    with pytest.raises(MalformedRequest) as met:
        reader.finish()
    assert [str(met.value), *met.value.__notes__] == [
        'p.toml:1: x: expected a known key, met "x". There are: t',
        "p.toml:1: x: expected a table, met 1. Begin it with [x]",
        "p.toml:1: expected more",
        "p.toml:2: t.f: expected it to be there",
        'p.toml:3: t.b: expected a whole number, met "no". Write it without quotes',
        "p.toml:7: t.c[1]: expected a text, met 2. Write it in quotes",
        'p.toml:8: t.d: expected a known key, met "d". Did you mean dd?',
    ]


@pytest.mark.parametrize("more", [0, 1, 5])
def test_of_many_problems_some_are_told_and_all_counted(more: int) -> None:
    count = POLICY_PROBLEMS_MAX + more
    reader = Reader(load("".join(f"k{n} = 1\n" for n in range(count)), "p.toml"))
    reader.keys((), ("a",))
    with pytest.raises(MalformedRequest) as met:
        reader.finish()
    notes = met.value.__notes__
    assert notes[POLICY_PROBLEMS_MAX - 2].startswith(f"p.toml:{POLICY_PROBLEMS_MAX}: ")
    assert notes[POLICY_PROBLEMS_MAX - 1 :] == ([f"p.toml: and {more} more"] if more else [])
