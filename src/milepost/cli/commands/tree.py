"""`milepost tree ID`: print a job with its children, their children, and so on."""

from __future__ import annotations

from collections.abc import Iterator

import click

from milepost.cli import exit_codes
from milepost.cli.arguments import WholeNumber
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.job_selection import find_jobs, jobs_argument, select_jobs
from milepost.cli.rendering.live import echo, echo_json
from milepost.core.activity import progress_text
from milepost.core.job import Job

PAGE = 1000
DEPTH = 16


@click.command("tree")
@jobs_argument
@click.option(
    "-n",
    "--limit",
    type=WholeNumber(1),
    default=100,
    show_default=True,
    help="Maximum number of children of each job.",
)
@session_options
def tree(words: tuple[str, ...], limit: int) -> int:
    """Print jobs with their children, oldest first, one line each."""
    context = current()
    jobs, _ = select_jobs(context, words)
    found = [one for job in context.with_member_progress(jobs) for one in _walk(context, job, limit, 0)]
    shown = iter(context.described([one for _, one in found if isinstance(one, Job)]))
    for depth, one in found:
        if isinstance(one, int):
            if not context.json:
                echo(f"{'  ' * depth}... {one} more")
        elif context.json:
            echo_json({"depth": depth, **next(shown).to_dict()})
        else:
            echo(_line(depth, next(shown)))
    return exit_codes.OK


def _walk(context: CommandContext, job: Job, limit: int, depth: int) -> Iterator[tuple[int, Job | int]]:
    """Yield a job and its descendants with their depths; a number stands for the older children that are left out."""
    yield depth, job
    if depth < DEPTH:
        page = find_jobs(context, f"parent:{job.job_id}", min(limit, PAGE))
        older = (page.total or page.total_at_least) - len(page.jobs)
        if older > 0:
            yield depth + 1, older
        for child in reversed(page.jobs):
            yield from _walk(context, child, limit, depth + 1)


def _line(depth: int, job: Job) -> str:
    name = f"{job.child_key}  " if job.child_key else ""
    line = f"{'  ' * depth}{job.status.value:<9}  {progress_text(job):>4}  {job.job_type}  {name}{job.job_id}  {job.activity}"
    return line.rstrip()
