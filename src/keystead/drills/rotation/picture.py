"""A drill's timeline as an SVG 1.1 document: no library draws it, and any browser shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from keystead.drills.rotation.timeline import BIN_MS, Mark, Panel

__all__ = ["svg"]

_WIDTH, _LEFT, _RIGHT = 1180, 64, 24
_HEAD, _PLOT, _ROW, _GAP = 64, 170, 16, 26
"""Of a panel, in pixels: title and labels, the plot, a line of words, the space below."""
_TOP = 48
_LABEL_ROWS = 2
_CHAR = 6.6
"""How wide a character of the small font is at most."""
_COLOURS = ("#8497ab", "#e07b39", "#3a9d6e", "#8b6bb1")
"""Of versions, in the order of their numbers within a panel."""
_INK, _FAINT, _ALERT = "#1f2933", "#c9d1d9", "#b3261e"
_FONT = "font-family='system-ui, Helvetica, Arial, sans-serif'"
_STEP = 20
"""Tokens in a bin that the axis of all panels is rounded up to."""
_TICKS_MAX = 12
_TICK_STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300)


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The picture: a panel an act, each on its own clock, all on one scale."""
    parts: list[str] = []
    top = _TOP
    most = max((sum(one.tokens.values()) for panel in panels for one in panel.bins), default=1)
    highest = -(-most // _STEP) * _STEP
    for panel in panels:
        parts += _panel(panel, top, highest)
        top += _HEAD + _PLOT + _ROW * (2 + len(panel.events)) + _GAP
    root = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{top}'"
        f" viewBox='0 0 {_WIDTH} {top}' {_FONT} font-size='12' fill='{_INK}'>"
    )
    return "\n".join(
        [
            root,
            f"<rect width='{_WIDTH}' height='{top}' fill='#ffffff'/>",
            _text(_LEFT, 28, title, "font-size='18' font-weight='bold'"),
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(panel: Panel, top: int, highest: int) -> Iterator[str]:
    length_s = max(panel.length_s, BIN_MS / 1000)
    floor = top + _HEAD + _PLOT
    yield _text(_LEFT, top + 14, panel.title, "font-size='14' font-weight='bold'")
    yield from _legend(panel, top + 14)
    yield from _bands(panel, top, floor, length_s)
    yield from _bars(panel, floor, length_s, highest)
    yield from _axes(floor, length_s, highest)
    yield from _events(panel, floor, length_s)


def _x(at_s: float, length_s: float) -> float:
    inside = min(max(at_s, 0.0), length_s)
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * inside / length_s, 1)


def _legend(panel: Panel, y: int) -> Iterator[str]:
    x = _WIDTH - _RIGHT - 96 * len(panel.versions)
    for place, version in enumerate(panel.versions):
        at = x + 96 * place
        yield f"<rect x='{at}' y='{y - 10}' width='12' height='12' fill='{_colour(place)}'/>"
        yield _text(at + 18, y, f"version {version}")


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]


def _bands(panel: Panel, top: int, floor: int, length_s: float) -> Iterator[str]:
    """Every stage from its beginning to the next one's; labels that would meet go a row down."""
    ends = [0.0] * _LABEL_ROWS
    for mark in panel.stages:
        x = _x(mark.at_s, length_s)
        row = next((row for row, end in enumerate(ends) if end <= x), _LABEL_ROWS - 1)
        ends[row] = x + 8 + _CHAR * len(mark.words)
        y = top + 34 + _ROW * row
        yield (
            f"<line x1='{x}' y1='{y - 10}' x2='{x}' y2='{floor}' stroke='{_FAINT}'"
            " stroke-dasharray='4 3'/>"
        )
        yield _text(x + 4, y, mark.words)


def _bars(panel: Panel, floor: int, length_s: float, highest: int) -> Iterator[str]:
    place = {version: number for number, version in enumerate(panel.versions)}
    for one in panel.bins:
        x = _x(one.at_s, length_s)
        width = round(max(0.0, _x(one.at_s + BIN_MS / 1000, length_s) - x) + 0.3, 1)
        y = float(floor)
        for version, count in one.tokens.items():
            height = round(_PLOT * count / highest, 1)
            y = round(y - height, 1)
            yield (
                f"<rect x='{x}' y='{y}' width='{width}' height='{height}'"
                f" fill='{_colour(place[version])}'/>"
            )


def _axes(floor: int, length_s: float, highest: int) -> Iterator[str]:
    right = _WIDTH - _RIGHT
    yield f"<line x1='{_LEFT}' y1='{floor}' x2='{right}' y2='{floor}' stroke='{_INK}'/>"
    yield f"<line x1='{_LEFT}' y1='{floor - _PLOT}' x2='{_LEFT}' y2='{floor}' stroke='{_INK}'/>"
    per_s = highest * 1000 // BIN_MS
    for share in (0.0, 0.5, 1.0):
        y = floor - _PLOT * share
        yield _text(_LEFT - 6, round(y + 4, 1), f"{per_s * share:.0f}", "text-anchor='end'")
    middle = floor - _PLOT / 2
    yield _text(
        16,
        middle,
        "tokens a second",
        f"text-anchor='middle' transform='rotate(-90 16 {middle:g})'",
    )
    step = next((step for step in _TICK_STEPS if length_s / step <= _TICKS_MAX), _TICK_STEPS[-1])
    for at_s in range(0, int(length_s) + 1, step):
        x = _x(at_s, length_s)
        yield f"<line x1='{x}' y1='{floor}' x2='{x}' y2='{floor + 4}' stroke='{_INK}'/>"
        yield _text(x, floor + 17, f"{at_s} s", "text-anchor='middle'")


def _events(panel: Panel, floor: int, length_s: float) -> Iterator[str]:
    """Numbered lines through the plot, and below it what each of them is."""
    for number, mark in enumerate(panel.events, start=1):
        x = _x(mark.at_s, length_s)
        y = floor - _PLOT + 14 * number
        yield (
            f"<line x1='{x}' y1='{floor - _PLOT}' x2='{x}' y2='{floor}' stroke='{_ALERT}'"
            " stroke-width='1.5'/>"
        )
        yield f"<circle cx='{x}' cy='{y}' r='8' fill='{_ALERT}'/>"
        yield _text(x, y + 4, str(number), "text-anchor='middle' font-size='11' fill='#ffffff'")
        words = f"{number}  {_event_words(mark)}"
        yield _text(_LEFT, floor + 18 + _ROW * (1 + number), words, f"fill='{_ALERT}'")


def _event_words(mark: Mark) -> str:
    return f"{mark.at_s:.1f} s: {mark.words}"


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f"<text x='{x:g}' y='{y:g}' {style}>{escape(words)}</text>"
