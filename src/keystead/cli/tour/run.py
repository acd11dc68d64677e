"""`keystead tour`: the order of its steps, and what comes of them."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from keystead.cli.show import print_error
from keystead.cli.signals import signals_end_quietly
from keystead.cli.tour.foreign import Tools
from keystead.cli.tour.inputs import image_name, plans
from keystead.cli.tour.refusals import (
    refuse_changes,
    refuse_handles,
    refuse_replays,
    refuse_requests,
)
from keystead.cli.tour.render import draw, progress, stdout_console
from keystead.cli.tour.report import CheckFailed, Finding, NotInstalled, Report, Row, check, checked
from keystead.cli.tour.setup import issue_handles, make_keys
from keystead.cli.tour.stage import Stage
from keystead.cli.tour.uses import (
    append_entries,
    issue_leaf,
    issue_login,
    sign_handshakes,
    sign_image,
    sign_tokens,
    use_data_key,
)
from keystead.client import Client, Retry
from keystead.errors import CallerError, KeysteadError, MalformedRequest, ServiceError

__all__ = ["STEPS", "run_tour"]

_FAILED, _UNREACHABLE = 1, 3
_RUN_BYTES = 4
_RECORDS_MAX = 200
_RETRY = Retry(deadline_s=10.0, try_s=5.0, tries_max=4)

Step = Callable[[Stage], Iterator[Finding]]


def _count_records(stage: Stage) -> Iterator[Finding]:
    """Handle by handle: as many records as requests were made under it, no more."""

    def count() -> str:
        total = 0
        for issued, requests in stage.handles():
            records = stage.client.log(handle_id=issued.handle_id, limit=_RECORDS_MAX)
            ops = [record.body.get("op") for record in records]
            met = len(ops) - ops.count("handle.issue")
            check(met == requests, f"{issued.key}: {requests} requests, but {met} records")
            total += met
        return f"{total} requests under known handles, {total} records: each once, none missing"

    yield checked("the log, searched handle by handle", "own", count, foreign=False)


STEPS: tuple[tuple[str, Step], ...] = (
    ("making keys", make_keys),
    ("issuing and narrowing handles", issue_handles),
    ("signing tokens", sign_tokens),
    ("signing firmware", sign_image),
    ("issuing a certificate", issue_leaf),
    ("issuing an SSH certificate", issue_login),
    ("signing TLS handshakes", sign_handshakes),
    ("wrapping, deriving, authenticating", use_data_key),
    ("appending to the ledger", append_entries),
    ("being refused: requests", refuse_requests),
    ("being refused: handles", refuse_handles),
    ("being refused: replays", refuse_replays),
    ("being refused: what was stopped", refuse_changes),
    ("counting records", _count_records),
)
"""Title and step, in order; a step that fails is a row of its own, and the next one begins."""


def run_tour(*, url: str, token: str, image: Path | None, as_json: bool) -> int:
    """Take real inputs through the whole cycle on the node at ``url``, as any client would.

    ``token``: an operator's. ``image``: the file that is signed as firmware, this Python's own
    executable if ``None``. Prints a report, or one JSON document.

    Returns:
        0 if every check held, 1 if one failed, 3 if the node cannot be reached.
    """
    chosen = (Path(sys.executable) if image is None else image).resolve()
    if not (chosen.is_file() and os.access(chosen, os.R_OK)):
        error = MalformedRequest(f"expected the image as a file that can be read, met {chosen}")
        print_error(error, _FAILED, as_json=as_json)
        return _FAILED
    try:
        with (
            signals_end_quietly(),
            tempfile.TemporaryDirectory(prefix="keystead-tour-") as folder,  # mode 0700
            Client(url, operator=token, retry=_RETRY) as client,
        ):
            report = _take(client, Tools(Path(folder)), url=url, image=chosen)
    except KeysteadError as refusal:
        status = _FAILED if isinstance(refusal, CallerError) else _UNREACHABLE
        print_error(refusal, status, as_json=as_json)
        return status
    if as_json:
        sys.stdout.write(report.document().decode() + "\n")
        sys.stdout.flush()
    else:
        stdout_console().print(draw(report))
    return 0 if report.ok else _FAILED


def _take(client: Client, tools: Tools, *, url: str, image: Path) -> Report:
    """All steps in order.

    Raises:
        ServiceError: the node gave no answer.
        CallerError: the operator's token is none of this node's.
    """
    started_s = time.monotonic()
    client.list_keys(limit=1)
    run = secrets.token_hex(_RUN_BYTES)
    stage = Stage(client, tools, plans(image_name(image), run), url=url, image=image, run=run)
    report = Report(url=url, run=run)
    with progress(len(STEPS)) as steps:
        for title, step in STEPS:
            steps.begin(title)
            for finding in _findings(title, step, stage):
                report.add(finding)
            steps.end()
    for record in stage.records:
        report.add(record)
    report.seconds = time.monotonic() - started_s
    return report


def _findings(title: str, step: Step, stage: Stage) -> Iterator[Finding]:
    """What a step yields; what ends it early becomes its last row."""
    try:
        yield from step(stage)
    except NotInstalled as missing:
        yield Row(what=title, result=str(missing), checked_by="", status=missing.status)
    except (CheckFailed, KeysteadError) as wrong:
        if type(wrong) is ServiceError:  # no answer, which the next step would not have either
            raise
        yield Row(what=title, result=str(wrong), checked_by="", status="failed")
