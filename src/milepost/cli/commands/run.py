"""`milepost run TYPE [ARG...]`: run a job in this process, with a progress bar, its result and next steps."""

from __future__ import annotations

import signal
import sys
from contextlib import AbstractContextManager
from typing import Any

import click

from milepost.cli import exit_codes
from milepost.cli.admin import get_job_type
from milepost.cli.arguments import JobCommand, labels_of, parse_arguments
from milepost.cli.commands.watch import follow
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.job_selection import shortest_id
from milepost.cli.job_types import TypeName, absolute_paths, find_type, hints, refuse_missing_paths
from milepost.cli.local_run import LocalRun, job_key
from milepost.cli.log_setup import configure_logging, terminal_output
from milepost.cli.rendering.live import JsonView, LiveView, PlainView, echo_json
from milepost.cli.rendering.tables import print_value
from milepost.cli.rendering.terminal import MUTED, STYLES, clean, glyph, is_live
from milepost.core.activity import own_message
from milepost.core.errors import LeaseHeldError, LeaseLost, RunStop
from milepost.core.job import Job, JobStatus


@click.command("run", cls=JobCommand, epilog=exit_codes.EXIT_CODES_HELP)
@click.argument("job_type", metavar="TYPE", type=TypeName())
@click.argument("words", metavar="[ARG...] [NAME=VALUE...]", nargs=-1)
@click.option("--app", metavar="MODULE:APP", help="Load your job types from this Jobs object.")
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="Add a label; may be repeated.")
@session_options
def run(job_type: str, words: tuple[str, ...], app: str | None, labels: tuple[str, ...]) -> int:
    """Run a job of TYPE in this process and print its result.

    ARGs set the parameters in order, and the last one may be a list; NAME=VALUE sets one by name. Ctrl-C cancels the
    job. Repeat the command after a crash, a failure or Ctrl-C to resume the job.

    \b
    milepost run ingestion ./papers notes.md
    milepost run reindex docs batch_size=128 --app myapp:jobs
    """
    context = current()
    if context.is_server:
        return run_on_server(context, job_type, words, labels_of(labels))
    local = find_type(context, job_type, app)
    params = absolute_paths(job_type, local.schema, parse_arguments(job_type, local.schema, words))
    refuse_missing_paths(job_type, local.schema, params)
    configure_logging([local.function], terminal_output(), None)
    return run_locally(context, LocalRun(context, local, params, labels_of(labels)))


def run_locally(context: CommandContext, local_run: LocalRun) -> int:
    """Run the job with the view for this output, print its outcome and return the exit code."""
    view = _view(context, local_run)
    failure: BaseException | None = None
    stopped = False
    with view:
        try:
            local_run.execute()
        except LeaseHeldError as leased:
            running = leased.job.job_id if leased.job is not None else ""
            raise click.ClickException(f"{leased}; follow it with: milepost watch {running}") from None
        except LeaseLost:
            lost = local_run.run.job_id if local_run.run is not None else ""
            raise click.ClickException(
                f"another run has taken over job {lost}; follow it with: milepost watch {lost}"
            ) from None
        except (RunStop, KeyboardInterrupt):
            stopped = True
        except (Exception, SystemExit) as error:
            if local_run.run is None:
                raise
            failure = error
        job = context.manager.get_job(local_run.run.job_id) if local_run.run is not None else None
        view.ended = job
    if job is None:
        if failure is not None:
            raise failure
        return _signal_exit_code(local_run) if stopped and local_run.run is None else exit_codes.CANCELLED
    _print_outcome(context, job, hints(job.job_type, local_run.local.schema).next_steps)
    return _exit_code(job, local_run)


def run_on_server(context: CommandContext, job_type: str, words: tuple[str, ...], labels: dict[str, str]) -> int:
    """Submit the job to a server and follow it; the same command again follows the same job."""
    schema = get_job_type(context, job_type).schema
    params = absolute_paths(job_type, schema, parse_arguments(job_type, schema, words))
    job = context.jobs.submit(job_type, params, labels=labels, unique_key=job_key(job_type, params))

    def asked() -> int | None:
        if sys.stdin.isatty() and not context.json:
            answer = click.prompt(
                "\nc: cancel the job, d: leave it running, g: keep watching", default="d", err=True,
                type=click.Choice(["c", "d", "g"]), show_choices=False,
            )  # fmt: skip
            if answer != "c":
                return exit_codes.INTERRUPTED if answer == "d" else None
        context.manager.cancel_job(job.job_id, "Ctrl-C")
        return None

    code = follow(context, [job], None, on_interrupt=asked)
    ended = context.manager.get_job(job.job_id)
    if ended is not None and ended.is_terminal and not context.json:
        _print_outcome(context, ended, hints(job_type, schema).next_steps)
    return code


def _view(context: CommandContext, local_run: LocalRun) -> Any:
    view: AbstractContextManager[Any]
    if context.json:
        view = JsonView(context, local_run)
    elif is_live(context.console):
        view = LiveView(context.console, local_run)
    else:
        view = PlainView(local_run)
    return view


def _exit_code(job: Job, local_run: LocalRun) -> int:
    if job.status is JobStatus.COMPLETED:
        return exit_codes.OK
    if job.status is JobStatus.CANCELLED:
        if local_run.signalled is None:
            return exit_codes.CANCELLED
        return _signal_exit_code(local_run)
    return exit_codes.FAILED


def _signal_exit_code(local_run: LocalRun) -> int:
    return exit_codes.TERMINATED if local_run.signalled == signal.SIGTERM else exit_codes.INTERRUPTED


def _print_outcome(context: CommandContext, job: Job, uses: tuple[tuple[str, str], ...]) -> None:
    """Print the result, then the next steps; `uses` are commands that use the result."""
    if context.json:
        echo_json(job.to_dict())
        return
    from rich.text import Text

    console = context.console
    if job.status is JobStatus.COMPLETED and job.result is not None:
        if message := own_message(job):
            console.print(Text(clean(message)))
        console.print()
        print_value(console, job.result)
    elif job.result_error is not None:
        console.print(Text(clean(f"Result not stored: {job.result_error}"), STYLES["failed"]))
    elif job.status is JobStatus.FAILED and job.failure is not None and job.failure.type:
        console.print(
            Text(f"  {clean(job.failure.type)} {glyph(console, 'dot')} attempt {job.attempt}", STYLES["failed"])
        )
    steps = _next_steps(job, shortest_id(context, job), uses)
    console.print()
    width = max(len(words) for words, _ in steps)
    for at, (words, why) in enumerate(steps):
        line = Text("Next: " if at == 0 else "      ", MUTED).append(words.ljust(width))
        console.print(line.append(f"  {why}", MUTED))


def _next_steps(job: Job, short: str, uses: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    show = (f"milepost show {short}", "details of this job")
    if job.status is JobStatus.COMPLETED:
        return [*uses, show, ("milepost ls", "all jobs")]
    again = f"milepost retry {short}" if job.run_by == "worker" else "the same command"
    begun = bool(job.progress or job.stages or job.checkpoint_at)
    if job.status is JobStatus.FAILED:
        crash = (f"milepost show {short}", "traceback and crash report")
        # A job that failed before any work would fail again.
        return [crash, (again, "resume it")] if begun else [crash]
    return [(again, "resume it" if begun else "start again"), show]
