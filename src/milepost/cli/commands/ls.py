"""`milepost ls [FILTER...]`: the newest jobs that match, once or live."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from milepost.cli import exits
from milepost.cli.drawing.console import STYLES, is_live
from milepost.cli.drawing.joblist import plain_lines, summary, table
from milepost.cli.drawing.views import Outages, away_text, leave_with_reader, say
from milepost.cli.naming import filter_text, find_jobs, pages
from milepost.cli.session import Session, current, session_options
from milepost.core.defaults import LIST_LIMIT_MAX
from milepost.core.errors import StoreUnavailable
from milepost.core.job import Job

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY = 0.5
PIPED = 100


@click.command("ls")
@click.argument("terms", metavar="[FILTER...]", nargs=-1)
@click.option("-w", "--watch", "live", is_flag=True, help="Stay and follow; Ctrl-C ends it.")
@click.option("-n", "--limit", type=click.IntRange(1), help="At most so many jobs (default: what fits, 100 in a pipe).")
@click.option("-a", "--all", "everything", is_flag=True, help="All jobs that match.")
@session_options
def command(terms: tuple[str, ...], live: bool, limit: int | None, everything: bool) -> int:
    """List jobs, newest first.

    FILTER is made of words and of status:failed type:ingestion label.owner:ana worker:host error:timeout created:1d
    (within) created:2h..1d duration:5m.. is:stalled; not.worker:x negates. All terms must hold.

    \b
    milepost ls status:failed created:1d
    milepost ls -w is:active
    """
    session = current()
    text = filter_text(terms)
    if live:
        return _follow(session, text, limit)
    if session.json or not session.console.is_terminal:
        return _print(session, text, None if everything else limit or PIPED)
    most = None if everything else limit or _fitting(session, EVERY_LINE)
    session.console.print(_drawn(session, text, most))
    return exits.OK


EVERY_LINE = 30
"""So many jobs when the terminal scrolls anyway; fewer where it is a list that stays."""


def _fitting(session: Session, most: int) -> int:
    return max(5, min(most, session.console.height - 3))


def _print(session: Session, text: str, limit: int | None) -> int:
    """All that match, up to a limit, in JSON or aligned columns."""
    jobs: list[Job] = []
    for page in pages(session, text, limit):
        if session.json:
            for job in page.jobs:
                sys.stdout.write(json.dumps(job.to_dict(), ensure_ascii=False) + "\n")
        jobs += page.jobs
    if not session.json:
        sys.stdout.write("".join(line + "\n" for line in plain_lines(jobs, utc=session.utc)))
    return exits.OK


def _drawn(session: Session, text: str, limit: int | None) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    page, *others = pages(session, text, limit)
    jobs = [job for one in (page, *others) for job in one.jobs]
    manager = session.manager
    if not text:
        counts = {name: manager.count_jobs(status=name) for name in ("running", "pending", "failed")}
        counts["stalled"] = manager.count_jobs(stalled=True)
    else:
        counts = {}
    head = summary(session.console, len(jobs), page.total, page.total_at_least, counts)
    if jobs:
        return Group(head, table(session.console, session.with_starts(jobs), utc=session.utc))
    if text:
        return Group(head, Text(f"Nothing matches {text}; drop a term, or see all with: milepost ls"))
    return Group(head, Text(f"No jobs in {session.shown_place} yet. The first: milepost run ingestion PATH..."))


def _follow(session: Session, text: str, limit: int | None) -> int:
    """Draw again twice a second; in a pipe, or as JSON, a line for each job that has changed."""
    if session.json or not is_live(session.console):
        for _ in _changes(session, text, limit or PIPED):
            time.sleep(EVERY)
            leave_with_reader()
        return exits.OK
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    drawn: RenderableType = ""

    def draw() -> RenderableType:
        nonlocal drawn
        try:
            drawn = _drawn(session, text, limit or _fitting(session, LIST_LIMIT_MAX))
        except StoreUnavailable as away:
            if not drawn:
                raise
            return Group(drawn, Text(away_text(str(away)), STYLES["stalled"]))
        return drawn

    try:
        with Live(draw(), console=session.console, auto_refresh=False, screen=False) as shown:
            while True:
                time.sleep(EVERY)
                shown.update(draw(), refresh=True)
    except KeyboardInterrupt:  # whenever it comes: nothing was asked for but to look
        return exits.OK


def _changes(session: Session, text: str, limit: int) -> Iterator[None]:
    seen: dict[str, tuple[int, str | None]] = {}
    outages, problem = Outages(), None
    jobs = find_jobs(session, text, min(limit, LIST_LIMIT_MAX)).jobs
    while True:
        for job in reversed(jobs):
            mark = (job.version, job.stalled)
            if seen.get(job.job_id) == mark:
                continue
            seen[job.job_id] = mark
            say(
                json.dumps(job.to_dict(), ensure_ascii=False)
                if session.json
                else plain_lines([job], utc=session.utc)[1]
            )
        yield
        try:
            jobs, problem = find_jobs(session, text, min(limit, LIST_LIMIT_MAX)).jobs, None
        except StoreUnavailable as away:
            problem = str(away)
        outages.tell(problem)
