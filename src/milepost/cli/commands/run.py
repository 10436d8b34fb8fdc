"""`milepost run TYPE [ARG...]`: a job in this process, with a live bar, its result and what comes next."""

from __future__ import annotations

import json
import logging
import signal
import sys
from contextlib import AbstractContextManager
from typing import Any

import click

from milepost.cli import exits
from milepost.cli.administration import published_type
from milepost.cli.arguments import JobCommand, fill
from milepost.cli.commands.watch import follow
from milepost.cli.drawing.console import MUTED, STYLES, clean, glyph, is_live
from milepost.cli.drawing.results import print_value
from milepost.cli.drawing.views import JsonView, LiveView, PlainView, say
from milepost.cli.execution import Execution, job_key
from milepost.cli.known_types import NEXT_STEPS, TypeName, absolute_paths, find_type
from milepost.cli.naming import typed_id
from milepost.cli.session import Session, current, session_options
from milepost.cli.words import labels_of
from milepost.core.errors import JobIsLeased, LeaseLost, Stop
from milepost.core.job import Job, JobStatus


@click.command("run", cls=JobCommand, epilog=exits.EXPLAINED)
@click.argument("job_type", metavar="TYPE", type=TypeName())
@click.argument("words", metavar="[ARG...] [NAME=VALUE...]", nargs=-1)
@click.option("--app", metavar="MODULE:APP", help="Where your own job types are.")
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="A label of the job; may be repeated.")
@session_options
def command(job_type: str, words: tuple[str, ...], app: str | None, labels: tuple[str, ...]) -> int:
    """Run a job of TYPE in this process and print its result.

    ARGs fill the parameters of the type in order, the last one may take many; NAME=VALUE gives one by name. The same
    command after a crash, a failure or a Ctrl-C takes up the job where it was. Ctrl-C cancels the job.

    \b
    milepost run ingestion ./papers notes.md
    milepost run reindex docs batch_size=128 --app myapp:jobs
    """
    session = current()
    if session.is_server:
        return run_there(session, job_type, words, labels_of(labels))
    local = find_type(session, job_type, app)
    params = absolute_paths(job_type, fill(job_type, local.schema, words))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    return run_here(session, Execution(session, local, params, labels_of(labels)))


def run_here(session: Session, execution: Execution) -> int:
    """Run with the view that fits, and say how it ended."""
    view = _view(session, execution)
    failure: Exception | None = None
    stopped = False
    with view:
        try:
            execution.execute()
        except JobIsLeased as leased:
            running = leased.job.job_id if leased.job is not None else ""
            raise click.ClickException(f"{leased}; watch it: milepost watch {running}") from None
        except LeaseLost:
            lost = execution.run.job_id if execution.run is not None else ""
            raise click.ClickException(
                f"Job {lost} is no longer this command's: another run has taken it over; watch it: milepost watch {lost}"
            ) from None
        except (Stop, KeyboardInterrupt):
            stopped = True
        except Exception as error:
            if execution.run is None:
                raise
            failure = error
        job = session.manager.get_job(execution.run.job_id) if execution.run is not None else None
        view.ended = job
    if job is None:
        if failure is not None:
            raise failure
        return _of_signal(execution) if stopped and execution.run is None else exits.CANCELLED
    _print_end(session, job)
    return _code(job, execution)


def run_there(session: Session, job_type: str, words: tuple[str, ...], labels: dict[str, str]) -> int:
    """Submit to a server and watch; the same command again watches the same job."""
    schema = published_type(session, job_type).schema
    params = absolute_paths(job_type, fill(job_type, schema, words))
    job = session.jobs.submit(job_type, params, labels=labels, unique_key=job_key(job_type, params))

    def asked() -> int | None:
        if sys.stdin.isatty() and not session.json:
            answer = click.prompt(
                "\nc cancels the job, d leaves it running, g goes on watching", default="d", err=True,
                type=click.Choice(["c", "d", "g"]), show_choices=False,
            )  # fmt: skip
            if answer != "c":
                return exits.INTERRUPTED if answer == "d" else None
        session.manager.cancel_job(job.job_id, "Ctrl-C")
        return None

    code = follow(session, [job], None, on_interrupt=asked)
    ended = session.manager.get_job(job.job_id)
    if ended is not None and ended.is_terminal and not session.json:
        _print_end(session, ended)
    return code


def _view(session: Session, execution: Execution) -> Any:
    view: AbstractContextManager[Any]
    if session.json:
        view = JsonView(session, execution)
    elif is_live(session.console):
        view = LiveView(session.console, execution)
    else:
        view = PlainView(execution)
    return view


def _code(job: Job, execution: Execution) -> int:
    if job.status is JobStatus.COMPLETED:
        return exits.OK
    if job.status is JobStatus.CANCELLED:
        if execution.signalled is None:
            return exits.CANCELLED
        return _of_signal(execution)
    return exits.FAILED


def _of_signal(execution: Execution) -> int:
    return exits.TERMINATED if execution.signalled == signal.SIGTERM else exits.INTERRUPTED


def _print_end(session: Session, job: Job) -> None:
    """The result as a table, then what can be done next."""
    if session.json:
        say(json.dumps(job.to_dict(), ensure_ascii=False))
        return
    from rich.text import Text

    console = session.console
    if job.status is JobStatus.COMPLETED and job.result is not None:
        if job.message not in ("", "Job created"):
            console.print(Text(clean(job.message)))
        console.print()
        print_value(console, job.result)
    elif job.status is JobStatus.FAILED and job.failure is not None and job.failure.type:
        console.print(
            Text(f"  {clean(job.failure.type)} {glyph(console, 'dot')} attempt {job.attempt}", STYLES["failed"])
        )
    steps = _next_steps(job, typed_id(session, job))
    console.print()
    width = max(len(words) for words, _ in steps)
    for at, (words, why) in enumerate(steps):
        line = Text("Next: " if at == 0 else "      ", MUTED).append(words.ljust(width))
        console.print(line.append(f"  {why}", MUTED))


def _next_steps(job: Job, short: str) -> list[tuple[str, str]]:
    show = (f"milepost show {short}", "all that is known of this job")
    if job.status is JobStatus.COMPLETED:
        return [*NEXT_STEPS.get(job.job_type, ()), show, ("milepost ls", "all jobs")]
    again = f"milepost retry {short}" if job.driver == "worker" else "the same command"
    begun = bool(job.progress or job.stages or job.checkpoint_at)
    if job.status is JobStatus.FAILED:
        crash = (f"milepost show {short}", "the traceback and the crash report")
        # What refused its parameters before any work would do so again.
        return [crash, (again, "goes on where it was")] if begun else [crash]
    return [(again, "goes on where it was" if begun else "begins anew"), show]
