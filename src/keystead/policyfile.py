"""Policy files in TOML (1.0.0): bounded before they are read, and refused by file and line.

``tomllib`` reads the values and says nothing of where they stand. So a text is scanned first for
the line of each key: :meth:`Document.line_of`. The scan holds the bounds on depth and on numbers;
on a text that is not TOML it stops, and ``tomllib`` says what is wrong.

Fractions come as :class:`~decimal.Decimal`: 0.05 is 5 per cent exactly, and not nearly.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable, Collection
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Generic, TypeVar

import msgspec

from keystead.errors import MalformedRequest

__all__ = [
    "COUNT",
    "FLAG",
    "LENGTH_MS",
    "LENGTH_S",
    "LENGTH_US",
    "POLICY_BYTES_MAX",
    "POLICY_DEPTH_MAX",
    "POLICY_PROBLEMS_MAX",
    "POLICY_WORD_MAX",
    "RATIO_PERCENT",
    "SHARES_PPM",
    "SHARE_PPM",
    "TEXT",
    "TEXTS",
    "Document",
    "Path",
    "Reader",
    "Unit",
    "choice",
    "close_to",
    "load",
    "shown",
]

POLICY_BYTES_MAX = 64 * 1024
"""One policy file: as an admin request body; the largest policy is a few KiB."""
POLICY_DEPTH_MAX = 16
"""Tables and arrays in one another, parts of a dotted key counted: far above use. `tomllib` takes
14 s for one key of 32,000 parts."""
POLICY_WORD_MAX = 64
"""Characters of a number or date: an integer of 64 bits has 20, a date with its offset 35."""
POLICY_PROBLEMS_MAX = 20
"""Problems of one file that are told; the rest is counted."""

_SHOWN_MAX = 40
_BYTES_PER_MESSAGE = "expected a policy file of {most} bytes at most, met {met}"

Path = tuple[str | int, ...]
"""Where a value stands: names of tables and keys, and positions in arrays from 0."""

T = TypeVar("T")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is TOML. ``name``: what messages call it; ``lines``: of each key, from 1."""

    name: str
    value: dict[str, object]
    lines: dict[Path, int]

    def line_of(self, path: Path) -> int:
        """The line of a key or item, or of the nearest table around it that is in the file."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def get(self, path: Path) -> object:
        """The value at a path; None: there is none (TOML has no null)."""
        found: object = self.value
        for part in path:
            if isinstance(found, dict):
                found = found.get(part)
            elif isinstance(found, list) and isinstance(part, int) and 0 <= part < len(found):
                found = found[part]
            else:
                return None
        return found


def load(text: str | bytes, name: str) -> Document:
    """The document of a file's text.

    Raises:
        MalformedRequest: too large or deep, not UTF-8, or not TOML; with the line.
    """
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > POLICY_BYTES_MAX:
        raise MalformedRequest(
            f"{name}:1: " + _BYTES_PER_MESSAGE.format(most=POLICY_BYTES_MAX, met=size)
        )
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise MalformedRequest(
            f"{name}:{line}: expected UTF-8, met the byte 0x{exc.object[exc.start]:02x}",
            hint="Save the file as UTF-8",
        ) from exc
    scan = _Scan(decoded, name)
    scan.run()
    try:
        value = tomllib.loads(decoded, parse_float=Decimal)
    except (ValueError, RecursionError) as exc:  # TOMLDecodeError is a ValueError
        raise _not_toml(decoded, name, str(exc)) from exc
    return Document(name=name, value=value, lines=scan.lines)


_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")
_UNQUOTED = re.compile(r"\s*(?P<key>[\w.-]+)\s*=\s*(?P<value>[A-Za-z0-9][\w.%-]*)\s*(?:#.*)?\Z")


def _not_toml(text: str, name: str, said: str) -> MalformedRequest:
    """``tomllib``'s own words, behind file and line, and what is probably meant."""
    lines = text.split("\n")
    found = _POSITION.search(said)
    number, column = text.rstrip().count("\n") + 1, ""
    if found is not None and found[1]:
        number, column = int(found[1]), f" at column {found[2]}"
    what = _POSITION.sub("", said)
    hint = "See https://toml.io for the format"
    unquoted = _UNQUOTED.match(lines[number - 1])
    if unquoted is not None:
        hint = f'Texts and lengths stand in quotes: {unquoted["key"]} = "{unquoted["value"]}"'
    return MalformedRequest(
        f"{name}:{number}: expected TOML, met a fault{column}: {what[:1].lower()}{what[1:]}",
        hint=hint,
    )


# --- lines ---------------------------------------------------------------------------------------


class _LostError(Exception):
    """The scan met what is no TOML."""


_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})' + r"|'''.*?'''(?:'{0,2})"
    r"""|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""",
    re.DOTALL,
)
_WORD = re.compile(r"[^\s,\]}#\[{\"'=]+(?: \d\d:[^\s,\]}#]+)?")
"""A number, a truth value, or a date, which may have a space before its time."""


class _Scan:
    """Finds the line of each key of a TOML text; lenient, for ``tomllib`` reads it after."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name
        self._at = 0
        self._breaks = [found.start() for found in re.finditer("\n", text)]
        self._tables: dict[Path, int] = {}  # how many tables an array of tables has so far
        self._given: set[Path] = set()
        self.lines: dict[Path, int] = {(): 1}

    def run(self) -> None:
        """Scan to the end, or to where it is no TOML.

        Raises:
            MalformedRequest: nested too deep, a number too long, or a key given twice.
        """
        table: Path = ()
        try:
            while self._skip(_SPACE) < len(self._text):
                if self._text[self._at] == "[":
                    table = self._header()
                else:
                    self._pair(table)
        except _LostError:
            return

    def _header(self) -> Path:
        array = self._text.startswith("[[", self._at)
        line = self._line()
        self._at += 1 + array
        *holders, last = self._key()
        self._take("]]" if array else "]")
        path: Path = ()
        for part in holders:
            path = self._below(path, part)
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
        path = self._below(path, last)
        if array:
            number = self._tables.get(path, 0)
            self._tables[path] = number + 1
            path = (*path, number)
        self.lines[path] = line
        return path

    def _pair(self, table: Path) -> None:
        line = self._line()
        *holders, last = self._key()
        self._take("=")
        path = table
        for part in holders:
            path = self._below(path, part)
        path = self._below(path, last)
        if path in self._given:
            raise MalformedRequest(
                f"{self._name}:{line}: expected each key once, met {_dotted(path)} again",
                hint=f"It is first given on line {self.lines[path]}: keep one of the two",
            )
        self._given.add(path)
        self.lines[path] = line
        self._skip(_BLANK)
        self._value(path)

    def _below(self, path: Path, part: str | int) -> Path:
        """A path one deeper, known from here on.

        Raises:
            MalformedRequest: deeper than the bound.
        """
        path = (*path, part)
        line = self._line()
        if len(path) > POLICY_DEPTH_MAX:
            raise MalformedRequest(
                f"{self._name}:{line}: expected tables and arrays at most {POLICY_DEPTH_MAX} deep"
            )
        self.lines.setdefault(path, line)
        return path

    def _value(self, path: Path) -> None:
        start = self._text[self._at : self._at + 1]
        if start == "[":
            self._items(path)
        elif start == "{":
            self._members(path)
        elif start in {'"', "'"}:
            self._match(_STRING)
        elif len(self._match(_WORD)) > POLICY_WORD_MAX:
            raise MalformedRequest(
                f"{self._name}:{self._line()}: expected numbers and dates of at most"
                f" {POLICY_WORD_MAX} characters"
            )

    def _items(self, path: Path) -> None:
        self._at += 1
        number = 0
        while not self._ends("]"):
            self._value(self._below(path, number))
            number += 1

    def _members(self, path: Path) -> None:
        self._at += 1
        while not self._ends("}"):
            self._pair(path)

    def _ends(self, closing: str) -> bool:
        """Whether the array or inline table ends here; a comma before its next item is skipped."""
        self._skip(_SPACE)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip(_SPACE)
        ends = self._text.startswith(closing, self._at)
        self._at += ends
        return ends

    def _key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            parts.append(_bare(self._match(_KEY_PART)))
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _line(self) -> int:
        return bisect_left(self._breaks, self._at) + 1

    def _skip(self, pattern: re.Pattern[str]) -> int:
        self._match(pattern)
        return self._at

    def _take(self, what: str) -> None:
        if not self._text.startswith(what, self._at):
            raise _LostError
        self._at += len(what)

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _LostError
        self._at = found.end()
        return found[0]


def _bare(part: str) -> str:
    """A key's part without its quotes; what its escapes mean, ``tomllib`` knows."""
    if part[0] not in {'"', "'"}:
        return part
    try:
        return str(tomllib.loads(f"k = {part}")["k"])
    except tomllib.TOMLDecodeError as exc:
        raise _LostError from exc


def _dotted(path: Path) -> str:
    said = ""
    for part in path:
        said += f"[{part}]" if isinstance(part, int) else f".{part}"
    return said.removeprefix(".")


# --- how values are written ----------------------------------------------------------------------


class _ItemError(MalformedRequest):
    """One item of an array, at ``position``, is not what it should be."""

    position = 0


class Unit(msgspec.Struct, Generic[T], frozen=True):
    """How a file writes one kind of value.

    ``read``: from what stands in the file; raises MalformedRequest with what was expected and met.
    ``toml``: as TOML text that reads back the same. ``text``: as a person says it.
    """

    read: Callable[[object], T]
    toml: Callable[[T], str]
    text: Callable[[T], str]


def shown(value: object) -> str:
    """A value of a file, short enough for a message."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value if len(value) <= _SHOWN_MAX else value[:_SHOWN_MAX] + "...")
        case int() | Decimal():
            return str(value)
        case dict():
            return "a table"
        case list():
            return f"an array of {len(value)}"
        case _:
            return "a date or time"


def close_to(word: str, known: Collection[str]) -> str:
    """A hint: the known word that is probably meant, or all there are."""
    near = difflib.get_close_matches(word, known, 1)
    return f"Did you mean {near[0]}?" if near else "There are: " + ", ".join(known)


_LENGTH = re.compile(r"([0-9]{1,15})(us|ms|s|m|h|d)")
_LENGTHS_US = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}


def _length(base: str, example: str) -> Unit[int]:
    """Lengths of time, stored in the base unit."""
    base_us = _LENGTHS_US[base]
    units = [unit for unit, us in _LENGTHS_US.items() if us >= base_us]

    def read(value: object) -> int:
        found = _LENGTH.fullmatch(value) if isinstance(value, str) else None
        if found is None or found[2] not in units:
            raise MalformedRequest(
                f'expected a length such as "{example}", met {shown(value)}',
                hint="Write a whole number and one of " + ", ".join(units) + ", in quotes",
            )
        return int(found[1]) * _LENGTHS_US[found[2]] // base_us

    def text(stored: int) -> str:
        """In the largest unit that it is a whole number of."""
        length_us = stored * base_us
        if not length_us:
            return "0s"
        unit = next(unit for unit in units if not length_us % _LENGTHS_US[unit])
        return f"{length_us // _LENGTHS_US[unit]}{unit}"

    return Unit(read, lambda stored: f'"{text(stored)}"', text)


_EXACT = Context(prec=2 * POLICY_WORD_MAX, traps=[Inexact, InvalidOperation, Overflow])
_NUMBER_MAX = 10**9


def _scaled(places: int, what: str) -> Unit[int]:
    """Numbers with so many decimal places, stored as whole numbers of the last place."""

    def read(value: object) -> int:
        number = Decimal(value) if isinstance(value, int | Decimal) else Decimal("nan")
        # Bounded before it is scaled: 1e999999999 is a short text and a long number.
        bounded = number.is_finite() and -_NUMBER_MAX <= number <= _NUMBER_MAX
        if isinstance(value, bool) or not bounded:
            raise MalformedRequest(
                f"expected {what}, met {shown(value)}",
                hint="Write a number, without quotes or a percent sign",
            )
        try:
            scaled = _EXACT.scaleb(number, places)
        except Inexact:
            scaled = Decimal("0.5")
        if scaled != scaled.to_integral_value():
            raise MalformedRequest(f"expected {what} of {places} decimals at most, met {value}")
        return int(scaled)

    def text(stored: int) -> str:
        whole, rest = divmod(abs(stored), 10**places)
        return f"{'-' * (stored < 0)}{whole}.{f'{rest:0{places}d}'.rstrip('0') or '0'}"

    return Unit(read, text, text)


def _read_count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedRequest(
            f"expected a whole number, met {shown(value)}", hint="Write it without quotes"
        )
    return value


def _read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise MalformedRequest(f"expected true or false, met {shown(value)}")
    return value


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise MalformedRequest(f"expected a text, met {shown(value)}", hint="Write it in quotes")
    return value


def choice(*words: str) -> Unit[str]:
    """One of a few words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            said = " or ".join(f'"{word}"' for word in words)
            hint = close_to(value, words) if isinstance(value, str) else "Write it in quotes"
            raise MalformedRequest(f"expected {said}, met {shown(value)}", hint=hint)
        return value

    return Unit(read, _text_toml, str)


def _text_toml(stored: str) -> str:
    """A basic string; JSON's escapes are TOML's, DEL and characters beyond the BMP apart."""
    return json.dumps(stored, ensure_ascii=False).replace("\x7f", "\\u007f")


def _array(item: Unit[T]) -> Unit[tuple[T, ...]]:
    """An array of such values; the first bad item is refused, by its position."""

    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise MalformedRequest(
                f"expected an array, met {shown(value)}", hint="Write it in brackets: [a, b]"
            )
        read_so_far: list[T] = []
        for position, one in enumerate(value):
            try:
                read_so_far.append(item.read(one))
            except MalformedRequest as error:
                refusal = _ItemError(error.message, hint=error.hint)
                refusal.position = position
                raise refusal from error
        return tuple(read_so_far)

    return Unit(
        read,
        lambda stored: "[" + ", ".join(map(item.toml, stored)) + "]",
        lambda stored: ", ".join(map(item.text, stored)) or "none",
    )


LENGTH_S = _length("s", "24h")
LENGTH_MS = _length("ms", "24h")
LENGTH_US = _length("us", "50ms")
SHARE_PPM = _scaled(6, "a share from 0 to 1 such as 0.05")
RATIO_PERCENT = _scaled(2, "a ratio such as 3.0")
COUNT: Unit[int] = Unit(_read_count, str, str)
FLAG: Unit[bool] = Unit(_read_flag, shown, shown)
TEXT: Unit[str] = Unit(_read_text, _text_toml, str)
TEXTS = _array(TEXT)
SHARES_PPM = _array(SHARE_PPM)


# --- reading one document ------------------------------------------------------------------------


class Reader:
    """Reads one document, and keeps each problem that it meets instead of stopping at the first."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._problems: list[tuple[int, str, str]] = []

    @property
    def failed(self) -> bool:
        """Whether there was a problem so far."""
        return bool(self._problems)

    def problem(self, path: Path, said: str, hint: str = "") -> None:
        """Keep a problem of what stands, or should stand, at a path."""
        named = f"{_dotted(path)}: {said}" if path else said
        self._problems.append((self.document.line_of(path), named, hint))

    def keys(self, path: Path, known: Collection[str]) -> None:
        """Hold a table, if there is one, to being a table of known keys."""
        value = self.document.get(path)
        if value is not None and not isinstance(value, dict):
            example = f"[{_dotted(path)}]"
            self.problem(path, f"expected a table, met {shown(value)}", f"Begin it with {example}")
            return
        for key in value or ():
            if key not in known:
                what = f"expected a known key, met {shown(key)}"
                self.problem((*path, key), what, close_to(key, known))

    def read(self, path: Path, unit: Unit[T], default: T) -> T:
        """The value at a path; the default where there is none, or a wrong one."""
        value = self.document.get(path)
        if value is None:
            return default
        try:
            return unit.read(value)
        except MalformedRequest as error:
            where = (*path, error.position) if isinstance(error, _ItemError) else path
            self.problem(where, error.message, error.hint)
            return default

    def finish(self) -> None:
        """End the reading.

        Raises:
            MalformedRequest: the first problem of the file; its notes are the others, by line.
        """
        if not self._problems:
            return
        (line, said, hint), *others = sorted(self._problems, key=lambda problem: problem[0])
        name = self.document.name
        error = MalformedRequest(f"{name}:{line}: {said}", hint=hint)
        for number, text, help_ in others[: POLICY_PROBLEMS_MAX - 1]:
            error.add_note(f"{name}:{number}: {text}" + (f". {help_}" if help_ else ""))
        if len(others) >= POLICY_PROBLEMS_MAX:
            error.add_note(f"{name}: and {len(others) - POLICY_PROBLEMS_MAX + 1} more")
        raise error
