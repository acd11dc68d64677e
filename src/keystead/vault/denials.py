"""Denials are records too; a flood of them is counted, not written one by one (I11)."""

from __future__ import annotations

from keystead import limits

__all__ = ["DenialLimiter"]

_MINUTE_MS = 60_000
_OTHERS = "(others)"


class DenialLimiter:
    """Per (scope, code) and minute: so many are recorded, the rest counted for one summary."""

    def __init__(self) -> None:
        self._minute = 0
        self._seen: dict[tuple[str, str], int] = {}

    def admit(self, scope: str, code: str, now_ms: int) -> bool:
        """Whether this denial gets a record of its own."""
        self._minute = self._minute or now_ms // _MINUTE_MS
        if (scope, code) not in self._seen and len(self._seen) >= limits.DENIAL_SCOPES_MAX:
            scope = _OTHERS
        count = self._seen.get((scope, code), 0) + 1
        self._seen[scope, code] = count
        return count <= limits.DENIALS_RECORDED_PER_MINUTE

    def summaries(self, now_ms: int, *, ending: bool = False) -> list[tuple[str, str, int]]:
        """(scope, code, how many were not recorded) of a minute that is over, and a new start."""
        if now_ms // _MINUTE_MS == self._minute and not ending:
            return []
        over = [
            (scope, code, count - limits.DENIALS_RECORDED_PER_MINUTE)
            for (scope, code), count in self._seen.items()
            if count > limits.DENIALS_RECORDED_PER_MINUTE
        ]
        self._minute = now_ms // _MINUTE_MS
        self._seen.clear()
        return over
