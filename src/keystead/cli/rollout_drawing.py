"""A rollout as a person sees it: stages with their times, shares, gates, the last decisions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from keystead.cli.show import facts, instant, panel, plain, table
from keystead.keys.rollout.commands import RolloutInfo, ShareInfo
from keystead.keys.rollout.gates import failed, holding
from keystead.keys.rollout.model import GateFigure, Stage, Status, Step
from keystead.keys.rollout.plan import WHOLE_PPM, Plan

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["change_line", "gate_words", "length_words", "picture", "share_words", "stage_times"]

_BAR = 24
_STEPS_SHOWN = 6
_UNITS = ((24 * 3_600_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms"))
_SECOND_MS = 1_000
_STAGES = tuple(Stage)
_STATUS_STYLES: dict[str, str] = {
    Status.RUNNING: "bold cyan",
    Status.PAUSED: "bold yellow",
    Status.HALTED: "bold red",
    Status.ROLLED_BACK: "bold red",
    Status.FINISHED: "bold green",
}
"""How the stage is drawn that a rollout is at."""


def length_words(length_ms: int) -> str:
    """A length in its two largest units, such as ``1 d 2 h`` or ``250 ms``."""
    left, said = max(length_ms, 0), list[str]()
    if left >= _SECOND_MS:
        left -= left % _SECOND_MS
    for unit, name in _UNITS:
        count, rest = divmod(left, unit)
        if count and len(said) < 2:  # noqa: PLR2004  two units
            said.append(f"{count} {name}")
            left = rest
        elif said:
            break
    return " ".join(said) or "0 s"


def share_words(share_ppm: int) -> str:
    """A share or rate in parts per million, as a percentage."""
    return f"{share_ppm / 10_000:g} %"


def gate_words(figure: GateFigure) -> tuple[str, str]:
    """What a gate measured and what it is held to, in the unit of each."""
    match figure.gate:
        case "errors":
            return share_words(figure.value), f"at most {share_words(figure.limit)}"
        case "p99":
            limit = f"at most {figure.limit} %" if figure.limit else "not looked at"
            return f"{figure.value} % of the previous version's", limit
        case "samples":
            return f"{figure.value:,} uses", f"at least {figure.limit:,}"
        case "acknowledged":
            return _principals(figure.value), f"all {figure.limit}"
        case _:
            return _principals(figure.value), f"at most {figure.limit}"


def _principals(count: int) -> str:
    return f"{count:,} principal{'s' * (count != 1)}"


def picture(info: RolloutInfo) -> Iterator[RenderableType]:
    """Everything about it, from above to below."""
    if info.status == "none":
        yield panel(info.key, {"rollout": "none yet", **_schedule(info)})
        return
    yield panel(f"{info.key}: rollout {info.number}, {_status_words(info)}", _members(info))
    yield _stage_line(info)
    yield ""
    yield _shares(info.versions)
    yield ""
    yield table(("gate", "verdict", "measured", "held to", "samples"), map(_gate_row, _gates(info)))
    yield ""
    if info.waits and not _is_over(info):
        yield facts({"waits for": "; ".join(map(plain, info.waits))})
        yield ""
    yield table(("when", "decision", "stage", "by", "why"), map(_step_row, _last(info.steps)))


def change_line(info: RolloutInfo) -> str:
    """How it stands, in one line, for whoever reads along in a file."""
    new = next((v for v in info.versions if v.version == info.next), None)
    said = [
        f"{instant(info.now_ms)}  {info.key} rollout {info.number}: {_status_words(info)}",
        "" if new is None else f"version {new.version} has {share_words(new.share_ppm)}",
    ]
    if not _is_over(info):
        said += [f"gate {gate.gate} {gate.verdict}s" for gate in holding(info.gates)]
    if info.steps:
        last = info.steps[-1]
        why = f", {_why(last)}" if _why(last) else ""
        said.append(f"last decision: {last.event} by {last.by}{why}")
    return "; ".join(plain(part) for part in said if part)


def stage_times(info: RolloutInfo) -> tuple[str, ...]:
    """Of each stage: when it began, how much of it is left, or how long it will be."""
    at = _STAGES.index(Stage(info.stage))
    began = {step.stage: step.at_ms for step in reversed(info.steps)}
    told: list[str] = []
    for place, stage in enumerate(_STAGES):
        if place < at or info.status == Status.FINISHED:
            told.append(instant(began.get(stage)).partition(" ")[2] or "passed over")
        elif place > at:
            told.append("" if _is_over(info) else _planned(info.plan, stage))
        else:
            told.append(_left(info))
    return tuple(told)


# --- parts ---------------------------------------------------------------------------------------


def _is_over(info: RolloutInfo) -> bool:
    return info.status in {Status.ROLLED_BACK, Status.FINISHED}


def _status_words(info: RolloutInfo) -> str:
    step = f" step {info.ramp + 1} of {len(info.plan.ramp.steps_ppm)}"
    where = f"{info.stage}{step if info.stage == Stage.RAMP else ''}"
    match info.status:
        case Status.FINISHED:
            return "finished"
        case Status.ROLLED_BACK:
            return f"rolled back at {where}"
        case Status.RUNNING:
            return where
        case _:
            return f"{info.status} at {where}"


def _members(info: RolloutInfo) -> dict[str, object]:
    over = _is_over(info)
    return {
        "purpose": info.purpose,
        "versions": f"{info.previous} -> {info.next}",
        "incident": "yes: it never goes back" if info.incident else None,
        "reason": info.reason,
        "began": instant(info.began_ms),
        "stopped for": length_words(info.now_ms - info.paused_ms) if info.paused_ms else None,
        **(_schedule(info) if over else {}),
        "epoch": info.epoch,
    }


def _schedule(info: RolloutInfo) -> dict[str, object]:
    return {
        "plan": "the key's own" if info.own_plan else "the default of its purpose",
        "next rotation": instant(info.starts_ms) if info.starts_ms else "by hand",
        "or after uses": f"{info.uses_left:,}" if info.uses_left >= 0 else None,
    }


def _planned(plan: Plan, stage: Stage) -> str:
    match stage:
        case Stage.PUBLISH:
            return length_words(plan.publish.overlap_ms)
        case Stage.CANARY:
            return f"{share_words(plan.canary.share_ppm)}, {length_words(plan.canary.length_ms)}"
        case Stage.RAMP:
            steps = ", ".join(
                share_words(share).removesuffix(" %") for share in plan.ramp.steps_ppm
            )
            return f"{steps} %, {length_words(plan.ramp.step_ms)} each" if steps else "none"
        case Stage.PROMOTE:
            return length_words(plan.promote.length_ms)
        case Stage.DRAIN:
            return length_words(plan.drain.length_ms)
        case Stage.RETIRE:
            return "unpublished" if plan.retire.unpublish else "stays published"


def _left(info: RolloutInfo) -> str:
    match info.status:
        case Status.RUNNING:
            left = info.due_ms - info.now_ms
            return f"{length_words(left)} left" if left > 0 else "its time is over"
        case Status.ROLLED_BACK:
            return "rolled back"
        case _:
            return info.status


def _stage_line(info: RolloutInfo) -> RenderableType:
    from rich.table import Table  # noqa: PLC0415  as in show.render: JSON needs no tables
    from rich.text import Text  # noqa: PLC0415  as above

    made = Table.grid(padding=(0, 1))
    at = _STAGES.index(Stage(info.stage))
    names: list[RenderableType] = []
    times: list[RenderableType] = []
    for place, (stage, told) in enumerate(zip(_STAGES, stage_times(info), strict=True)):
        if place:
            names.append(Text(">", style="dim"))
            times.append("")
        done = place < at or info.status == Status.FINISHED
        style = "green" if done else _STATUS_STYLES[info.status] if place == at else "dim"
        names.append(Text(str(stage), style=style))
        times.append(Text(told, style=style))
    for _ in names:
        made.add_column(overflow="fold")
    made.add_row(*names)
    made.add_row(*times)
    return made


def _shares(versions: Iterable[ShareInfo]) -> RenderableType:
    columns = ("version", "share", "", "state", "published", "uses", "errors", "p99", "kid")
    return table(columns, map(_share_row, versions))


def _share_row(share: ShareInfo) -> tuple[object, ...]:
    filled = round(_BAR * share.share_ppm / WHOLE_PPM)
    return (
        share.version,
        "█" * filled + "░" * (_BAR - filled),
        share_words(share.share_ppm),
        share.state,
        share.published,
        f"{share.seen.uses:,}",
        f"{share.seen.errors:,}",
        f"{share.seen.p99_us / 1000:.1f} ms" if share.seen.uses else None,
        share.kid,
    )


def _gate_row(figure: GateFigure) -> tuple[object, ...]:
    value, limit = ("", "") if figure.verdict == "off" else gate_words(figure)
    return figure.gate, figure.verdict, value, limit, f"{figure.samples:,}" * bool(figure.samples)


def _step_row(step: Step) -> tuple[object, ...]:
    return instant(step.at_ms), step.event, step.stage, step.by, _why(step)


def _why(step: Step) -> str:
    """What a person gave as the reason, or the gates that made the rollout decide."""
    failures = (f"gate {g.gate} failed: {', '.join(gate_words(g))}" for g in failed(step.figures))
    return step.reason or "; ".join(failures)


def _gates(info: RolloutInfo) -> tuple[GateFigure, ...]:
    """As they stand; once it is over, as they stood when that was decided."""
    return info.gates if info.gates or not info.steps else info.steps[-1].figures


def _last(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return steps[-_STEPS_SHOWN:]
