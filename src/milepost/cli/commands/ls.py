"""`milepost ls [FILTER...]`, `top`: list the newest matching jobs, once, live, or full screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from milepost.cli import exit_codes
from milepost.cli.arguments import WholeNumber
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.job_selection import filter_text, find_jobs, no_jobs_text, pages
from milepost.cli.rendering.live import OutageNotice, echo, echo_json, outage_text, raise_if_output_closed
from milepost.cli.rendering.tables import list_summary, plain_lines, table
from milepost.cli.rendering.terminal import STYLES, is_live
from milepost.core.defaults import LIST_LIMIT_MAX
from milepost.core.errors import MissingExtraError, StoreUnavailableError
from milepost.core.job import Job

if TYPE_CHECKING:
    from rich.console import RenderableType


REFRESH_INTERVAL = 0.5
PIPED_LIMIT = 100


@click.command("ls")
@click.argument("terms", metavar="[FILTER...]", nargs=-1)
@click.option("-w", "--watch", "live", is_flag=True, help="Keep the list up to date until Ctrl-C.")
@click.option(
    "-n", "--limit", type=WholeNumber(1), help="Maximum number of jobs (default: as many as fit; 100 in a pipe)."
)
@click.option("-a", "--all", "everything", is_flag=True, help="List all matching jobs.")
@session_options
def ls(terms: tuple[str, ...], live: bool, limit: int | None, everything: bool) -> int:
    """List jobs, newest first.

    FILTER terms: status:failed, type:ingestion, label.owner:ana, worker:host, error:timeout, created:1d (in the last
    day), created:2h..1d, duration:5m.., is:stalled, is:active, or plain words. not.worker:x negates a term. A job must
    match all terms.

    \b
    milepost ls status:failed created:1d
    milepost ls -w is:active
    """
    context = current()
    text = filter_text(terms)
    if live:
        return _follow(context, text, limit)
    if context.json or not context.console.is_terminal:
        return _print(context, text, None if everything else limit or PIPED_LIMIT)
    most = None if everything else limit or _fitting(context, UNCUT_LINES)
    context.console.print(_render(context, text, most))
    return exit_codes.OK


UNCUT_LINES = 30
"""Maximum number of jobs in a list that may scroll; a live list shows as many as fit."""


def _fitting(context: CommandContext, most: int) -> int:
    return max(5, min(most, context.console.height - 3))


def _print(context: CommandContext, text: str, limit: int | None) -> int:
    """Print the matching jobs, up to a limit, as JSON or in aligned columns."""
    jobs: list[Job] = []
    for page in pages(context, text, limit):
        if context.json:
            for job in context.described(page.jobs):
                echo_json(job.to_dict())
        jobs += page.jobs
    if not context.json:
        shown = context.described(jobs)
        sys.stdout.write("".join(line + "\n" for line in plain_lines(shown, utc=context.utc)))
        sys.stdout.flush()
    if not jobs and not text:
        click.echo(f"milepost: {no_jobs_text(context)}", err=True)
    return exit_codes.OK


def _render(context: CommandContext, text: str, limit: int | None) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    page, *others = pages(context, text, limit)
    jobs = [job for one in (page, *others) for job in one.jobs]
    manager = context.manager
    if not text:
        counts = {name: manager.count_jobs(status=name) for name in ("running", "pending", "failed")}
        counts["stalled"] = manager.count_jobs(stalled=True)
    else:
        counts = {}
    head = list_summary(context.console, len(jobs), page.total, page.total_at_least, counts)
    if jobs:
        return Group(head, table(context.console, context.described(jobs), utc=context.utc))
    if text:
        return Group(head, Text(f"No jobs match {text}. Remove a term, or list all jobs: milepost ls"))
    return Group(head, Text(no_jobs_text(context, "No")))


def _follow(context: CommandContext, text: str, limit: int | None) -> int:
    """Redraw twice a second; in a pipe, or as JSON, print a line for each changed job."""
    if context.json or not is_live(context.console):
        for _ in _changes(context, text, limit or PIPED_LIMIT):
            time.sleep(REFRESH_INTERVAL)
            raise_if_output_closed()
        return exit_codes.OK
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    drawn: RenderableType = ""

    def draw() -> RenderableType:
        nonlocal drawn
        try:
            drawn = _render(context, text, limit or _fitting(context, LIST_LIMIT_MAX))
        except StoreUnavailableError as away:
            if not drawn:
                raise
            return Group(drawn, Text(outage_text(str(away)), STYLES["stalled"]))
        return drawn

    try:
        with Live(draw(), console=context.console, auto_refresh=False, screen=False) as shown:
            while True:
                time.sleep(REFRESH_INTERVAL)
                shown.update(draw(), refresh=True)
    except KeyboardInterrupt:
        return exit_codes.OK


def _changes(context: CommandContext, text: str, limit: int) -> Iterator[None]:
    seen: dict[str, tuple[int, str | None]] = {}
    outages, problem = OutageNotice(), None
    jobs = find_jobs(context, text, min(limit, LIST_LIMIT_MAX)).jobs
    while True:
        changed = [job for job in reversed(jobs) if seen.get(job.job_id) != (job.version, job.stalled)]
        seen.update((job.job_id, (job.version, job.stalled)) for job in changed)
        for job in changed if context.json else context.described(changed):
            if context.json:
                echo_json(job.to_dict())
            else:
                echo(plain_lines([job], utc=context.utc)[1])
        yield
        try:
            jobs, problem = find_jobs(context, text, min(limit, LIST_LIMIT_MAX)).jobs, None
        except StoreUnavailableError as away:
            problem = str(away)
        outages.report(problem)


@click.command("top")
@click.argument("terms", metavar="[FILTER...]", nargs=-1)
@session_options
def top(terms: tuple[str, ...]) -> int:
    """Show a full-screen live view of jobs. Keys: arrows select, / filter, c cancel, r retry, space pause, q quit."""
    context = current()
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise click.UsageError("top requires a terminal; in a pipe use: milepost ls -w")
    try:
        from milepost.cli.tui import make_screen
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "textual":
            raise
        raise MissingExtraError("tui", "milepost top") from missing
    make_screen(context, filter_text(terms)).run()
    return exit_codes.OK
