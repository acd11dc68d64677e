"""All states that a protocol can come to, breadth first, and the shortest way to a broken one."""

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator
from itertools import pairwise
from typing import Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Step(NamedTuple, Generic[S]):
    """One thing that happens. ``kind``: what it is called in counts; ``broken``: what it breaks."""

    kind: str
    name: str
    after: S
    broken: str = ""


class Model(Protocol[S]):
    """A protocol: where it begins, what can happen, and what must hold. No step changes one."""

    def first(self) -> S:
        """The state in which everything begins."""
        ...

    def steps(self, state: S) -> Iterable[Step[S]]:
        """All that can happen next."""
        ...

    def broken(self, state: S) -> str:
        """The invariant that a state breaks, and how; empty: it breaks none."""
        ...

    def canonical(self, state: S) -> Hashable:
        """The same for states that differ in nothing but names."""
        ...


class Violated(Exception):
    """An invariant that does not hold; the message ends with the shortest way there."""

    def __init__(self, what: str, trace: str) -> None:
        super().__init__(f"{what}\n{trace}")
        self.what = what
        self.trace = trace


class Explored(NamedTuple):
    """How much was seen. ``kinds``: how often each kind of step was taken."""

    states: int
    steps: int
    depth: int
    kinds: Counter[str]

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        return f"{self.states} states, {self.steps} steps, {self.depth} deep: {kinds}"


class _Came(NamedTuple):
    number: int
    name: str


def explore(model: Model[S], *, most: int = 2_000_000) -> Explored:
    """Go everywhere.

    Raises:
        Violated: an invariant does not hold.
        OverflowError: there are more states than ``most``: the bounds are too wide.
    """
    first = model.first()
    states: list[S] = [first]
    came: list[_Came] = [_Came(-1, "everything begins")]
    depths = [0]
    known = {model.canonical(first)}
    kinds: Counter[str] = Counter()
    waiting = deque([0])
    while waiting:
        number = waiting.popleft()
        for step in model.steps(states[number]):
            kinds[step.kind] += 1
            key = model.canonical(step.after)
            seen = key in known
            broken = step.broken or ("" if seen else model.broken(step.after))
            if broken:
                raise Violated(broken, "\n".join(_trace(states, came, number, step)))
            if seen:
                continue
            known.add(key)
            states.append(step.after)
            came.append(_Came(number, step.name))
            depths.append(depths[number] + 1)
            waiting.append(len(states) - 1)
            if len(states) > most:
                raise OverflowError(f"more than {most} states: {dict(kinds)}")
    return Explored(len(states), kinds.total(), depths[-1], kinds)


def _trace(states: list[S], came: list[_Came], last: int, step: Step[S]) -> Iterator[str]:
    """One line a step: what happened, and what is different after it."""
    numbers = []
    at = last
    while at >= 0:
        numbers.append(at)
        at = came[at].number
    way = [(came[at].name, states[at]) for at in reversed(numbers)] + [(step.name, step.after)]
    yield f"  0. {way[0][0]}"
    for number, ((_, before), (name, after)) in enumerate(pairwise(way), 1):
        yield f"  {number}. {name}: {'; '.join(_differences('', before, after)) or 'no change'}"


def _differences(where: str, before: object, after: object) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        fields = getattr(before, "_fields", None) if type(before) is type(after) else None
        if fields is not None or len(before) > 1:
            for index, (old, new) in enumerate(zip(before, after, strict=True)):
                name = f".{fields[index]}" if fields else f"[{index}]"
                yield from _differences(f"{where}{name}", old, new)
            return
    yield f"{where.lstrip('.')} {_shown(before)} -> {_shown(after)}"


def _shown(value: object) -> str:
    """A value without the names of what it is made of."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return str(value)
