"""`milepost cancel`, `pause`, `resume`, `answer`, `retry`, `rm`: change jobs that are chosen by id or by filter."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.job_selection import confirm_change, count_by_status, jobs_argument, may_be_retried, select_jobs
from milepost.cli.rendering.live import echo, echo_json, ended_text
from milepost.cli.rendering.terminal import STYLES, clean, glyph
from milepost.core.errors import IllegalTransitionError, JobNotFoundError, RejectedError
from milepost.core.job import Job

POLL_INTERVAL = 0.1
MAX_WAIT_SECONDS = 60.0


@click.command("cancel")
@jobs_argument
@click.option("--reason", help="Reason to record with the cancellation.")
@click.option("--wait", is_flag=True, help="Wait up to 60 s for the code to stop (then exit with 124).")
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@session_options
def cancel(words: tuple[str, ...], reason: str | None, wait: bool, yes: bool) -> int:
    """Cancel jobs. Takes effect immediately; running code is signalled and stops at its next cancellation point.

    A batch is cancelled with its open jobs. A filter asks for confirmation first, with the number of jobs.
    """
    context = current()
    jobs, by_filter = select_jobs(context, words)
    active = [job for job in jobs if not job.is_terminal]
    if by_filter:
        jobs = active
        if not confirm_change(context, "cancel", jobs, "pending or running", yes=yes):
            return exit_codes.OK
    cancelled: list[Job] = []

    def cancel_one(job: Job) -> None:
        try:
            cancelled.append(context.manager.cancel_job(job.job_id, reason, by=_user()))
        except (IllegalTransitionError, JobNotFoundError):
            if not by_filter:  # otherwise it ended after it was listed
                raise

    code = _change_each(jobs, cancel_one)
    if wait:
        late = _wait_for_receipts(context, cancelled)
        code = exit_codes.TIMED_OUT if late else code
    for job in cancelled:
        latest = context.manager.get_job(job.job_id) or job
        _print(context, latest, ended_text(latest))
    return code


def _change_each(jobs: Iterable[Job], change: Callable[[Job], None]) -> int:
    """Change each job; a refusal is printed, and the next job follows. Return the exit code."""
    code = exit_codes.OK
    for job in jobs:
        try:
            change(job)
        except RejectedError as refused:
            which = "" if job.job_id in str(refused) else f"{job.job_id}: "
            sys.stderr.write(f"milepost: {which}{clean(refused)}\n")
            code = exit_codes.FAILED
    return code


def _user() -> str:
    from milepost.cli.local_run import user_name

    return user_name()


def _wait_for_receipts(context: CommandContext, jobs: list[Job]) -> bool:
    """Wait for the receipts. Return True if one is still missing after the time limit."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    waiting = [job.job_id for job in jobs]
    while waiting:
        job = context.manager.get_job(waiting[-1])
        if job is None or job.receipt is None or job.receipt.confirmed is not None:
            waiting.pop()
        elif time.monotonic() > deadline:
            late = formatting.plural(len(waiting), "job")
            sys.stderr.write(f"milepost: {late} did not confirm a stop within {MAX_WAIT_SECONDS:g} s\n")
            return True
        else:
            time.sleep(POLL_INTERVAL)
    return False


def _print(context: CommandContext, job: Job, text: str) -> None:
    """Print a job as JSON; for people its id and a text, with the colour of its status."""
    if context.json:
        echo_json(job.to_dict())
        return
    from rich.text import Text

    line = Text(glyph(context.console, job.status.value) + " ", STYLES[job.status.value])
    context.console.print(line.append(f"{job.job_id}  {text}"))


@click.command("pause")
@jobs_argument
@session_options
def pause(words: tuple[str, ...]) -> int:
    """Suspend jobs of workers until they are resumed. Running code stops at its next cancellation point."""
    return _change_and_show(words, lambda manager, job_id: manager.pause(job_id, by=_user()))


@click.command("resume")
@jobs_argument
@session_options
def resume(words: tuple[str, ...]) -> int:
    """Let paused jobs continue, in the same attempt."""
    return _change_and_show(words, lambda manager, job_id: manager.resume(job_id, by=_user()))


@click.command("answer")
@click.argument("job_id", metavar="JOB")
@click.argument("key")
@click.argument("value")
@session_options
def answer(job_id: str, key: str, value: str) -> int:
    """Answer the question that a job asks under KEY. VALUE is JSON; anything else is taken as text.

    Example: milepost answer @last publish '{"approved": true}'
    """
    try:
        given = json.loads(value)
    except ValueError:
        given = value
    return _change_and_show((job_id,), lambda manager, found: manager.answer(found, key, given, by=_user()))


def _change_and_show(words: tuple[str, ...], change: Callable[[Any, str], Job]) -> int:
    """Change the chosen jobs and print what each does then. Return the exit code."""
    context = current()
    jobs, _ = select_jobs(context, words)

    def change_one(job: Job) -> None:
        changed = change(context.manager, job.job_id)
        if context.json:
            echo_json(changed.to_dict())
        else:
            echo(f"{changed.job_id}  {changed.activity or changed.status.value}")

    return _change_each(jobs, change_one)


@click.command("retry")
@jobs_argument
@click.option(
    "--only-failed", is_flag=True, help="Submit a new job for the failed items only (also works on completed jobs)."
)
@click.option(
    "--from-start", is_flag=True, help="Discard the checkpoint, state and kept steps; loops start at their first item."
)
@click.option("--dependents", is_flag=True, help="Put back the jobs that were cancelled because of these, too.")
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@session_options
def retry(words: tuple[str, ...], only_failed: bool, from_start: bool, dependents: bool, yes: bool) -> int:
    """Return failed or cancelled jobs to pending, with a new attempt budget and their last checkpoint."""
    if only_failed and from_start:
        raise click.UsageError(
            "--only-failed submits a new job, which starts at its first item; leave --from-start out"
        )
    context = current()
    jobs, by_filter = select_jobs(context, words)
    if by_filter:
        if only_failed:
            ended = [job for job in jobs if job.run_by == "worker" and job.is_terminal]
            jobs = [job for job in ended if job.item_counts is not None and job.item_counts.failed_keys]
        else:
            jobs = [job for job in jobs if may_be_retried(job)]
        if not confirm_change(
            context, "retry", jobs, "failed items in any" if only_failed else "failed or cancelled worker", yes=yes
        ):
            return exit_codes.OK

    def retry_one(job: Job) -> None:
        again = context.manager.retry_job(
            job.job_id, only_failed=only_failed, from_start=from_start, dependents=dependents
        )
        made = f"  (the failed items of {job.job_id})" if only_failed else ""
        _print(context, again, f"{again.status.value}{made}")

    return _change_each(jobs, retry_one)


@click.command("rm")
@jobs_argument
@click.option("-n", "--dry-run", is_flag=True, help="Print the number of jobs and delete nothing.")
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@session_options
def rm(words: tuple[str, ...], dry_run: bool, yes: bool) -> int:
    """Delete jobs after a confirmation; running jobs are cancelled first."""
    context = current()
    jobs, _ = select_jobs(context, words)
    if dry_run:
        echo(json.dumps({"matched": len(jobs)}) if context.json else f"This would delete {count_by_status(jobs)}.")
        return exit_codes.OK
    if not confirm_change(context, "delete", jobs, "", yes=yes):
        return exit_codes.OK
    deleted: list[Job] = []

    def delete_one(job: Job) -> None:
        context.manager.delete_job(job.job_id)
        deleted.append(job)
        if context.json:
            echo_json({"job_id": job.job_id, "deleted": True})

    code = _change_each(sorted(jobs, key=lambda job: job.created_at), delete_one)  # a parent before its children
    if not context.json:
        echo(f"Deleted {formatting.plural(len(deleted), 'job')}.")
    return code
