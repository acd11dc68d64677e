"""A drill's picture as an SVG 1.1 document: no library draws it, and any browser shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from keystead.drills.revocation.timeline import BINS, Panel

__all__ = ["svg"]

_WIDTH, _LEFT, _RIGHT = 1180, 64, 24
_TOP, _HEAD, _PLOT, _FOOT = 48, 44, 190, 56
"""Of the picture and of each panel, in pixels: titles, the plot, the axis and its words."""
_DONE, _REFUSED, _INK = "#3a9d6e", "#b3261e", "#1f2933"
_FONT = "font-family='system-ui, Helvetica, Arial, sans-serif'"
_TICKS = 6
"""On each side of the acknowledgement."""
_WAYS = {
    "durable": "Keys that record before they answer",
    "best_effort": "Keys that answer before they record",
}


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The picture: a panel for each way in which keys answer, on one clock."""
    parts: list[str] = []
    top = _TOP
    for panel in panels:
        parts += _panel(panel, top)
        top += _HEAD + _PLOT + _FOOT
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


def _panel(panel: Panel, top: int) -> Iterator[str]:
    floor = top + _HEAD + _PLOT
    words = f"{_WAYS[panel.ack]}: {panel.revocations} revocations"
    yield _text(_LEFT, top + 14, words, "font-size='14' font-weight='bold'")
    yield from _legend(top + 14)
    highest = max((one.done + one.refused for one in panel.bins), default=1)
    yield from _bars(panel, floor, highest)
    yield from _axes(panel, floor, highest)
    yield from _line(_x(0, panel), top + _HEAD - 14, floor, "acknowledged")
    sent = _x(-panel.acknowledged.median, panel)
    yield from _line(sent, top + _HEAD - 2, floor, "sent (median)", anchor="end")


def _x(at_ms: float, panel: Panel) -> float:
    span_ms = BINS * panel.bin_ms
    inside = min(max(at_ms, -span_ms), span_ms)
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * (inside + span_ms) / (2 * span_ms), 1)


def _legend(y: int) -> Iterator[str]:
    for place, (colour, words) in enumerate(((_DONE, "answered"), (_REFUSED, "refused"))):
        x = _WIDTH - _RIGHT - 96 * (2 - place)
        yield f"<rect x='{x}' y='{y - 10}' width='12' height='12' fill='{colour}'/>"
        yield _text(x + 18, y, words)


def _bars(panel: Panel, floor: int, highest: int) -> Iterator[str]:
    for one in panel.bins:
        x = _x(one.at_ms, panel)
        width = round(_x(one.at_ms + panel.bin_ms, panel) - x - 0.6, 1)
        y = float(floor)
        for count, colour in ((one.done, _DONE), (one.refused, _REFUSED)):
            height = round(_PLOT * count / highest, 1)
            y = round(y - height, 1)
            if height:
                yield (f"<rect x='{x}' y='{y}' width='{width}' height='{height}' fill='{colour}'/>")


def _axes(panel: Panel, floor: int, highest: int) -> Iterator[str]:
    right = _WIDTH - _RIGHT
    yield f"<line x1='{_LEFT}' y1='{floor}' x2='{right}' y2='{floor}' stroke='{_INK}'/>"
    for share in (0.0, 1.0):
        y = round(floor - _PLOT * share + 4, 1)
        yield _text(_LEFT - 6, y, f"{highest * share:.0f}", "text-anchor='end'")
    for tick in range(-_TICKS, _TICKS + 1):
        at_ms = tick * BINS * panel.bin_ms // _TICKS
        x = _x(at_ms, panel)
        yield f"<line x1='{x}' y1='{floor}' x2='{x}' y2='{floor + 4}' stroke='{_INK}'/>"
        yield _text(x, floor + 17, f"{at_ms} ms", "text-anchor='middle'")
    words = f"uses by when they began, in {panel.bin_ms} ms, of all revocations together"
    yield _text(_LEFT, floor + 36, words)


def _line(x: float, top: int, floor: int, words: str, *, anchor: str = "start") -> Iterator[str]:
    yield (
        f"<line x1='{x}' y1='{top}' x2='{x}' y2='{floor}' stroke='{_INK}' stroke-dasharray='4 3'/>"
    )
    aside = 4 if anchor == "start" else -4
    yield _text(x + aside, top + 8, words, f"text-anchor='{anchor}'")


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f"<text x='{x:g}' y='{y:g}' {style}>{escape(words)}</text>"
