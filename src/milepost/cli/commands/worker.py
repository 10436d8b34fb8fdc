"""`milepost worker [MODULE:APP]`: run submitted jobs, with a live summary on a terminal and JSON log lines otherwise."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.job_selection import short_ids
from milepost.cli.job_types import create_jobs
from milepost.cli.log_setup import LEVELS, JsonOutput, configure_logging, terminal_output
from milepost.cli.rendering.live import echo_json
from milepost.cli.rendering.progress import JobProgress, progress_bars
from milepost.cli.rendering.terminal import MUTED, STYLES, clean, glyph, is_live
from milepost.cli.worker_monitor import WorkerMonitor
from milepost.core.errors import InvalidInputError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.run.otel import trace_id

if TYPE_CHECKING:
    from rich.console import RenderableType

    from milepost.worker.worker import Worker

FRAMES = 4
MAX_BARS = 20


def _checked_capture(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return the value of --capture. Raises BadParameter."""
    if value is None:
        return None
    from milepost.settings import Settings

    try:
        Settings(capture=value)
    except InvalidInputError as error:
        raise click.BadParameter(error.problem) from None
    return value


@click.command("worker")
@click.argument("app", metavar="[MODULE:APP]", required=False)
@click.option(
    "-c", "--concurrency", type=click.IntRange(1, 10_000), help="Maximum number of concurrent jobs (default 10)."
)
@click.option(
    "-q",
    "--queue",
    "queues",
    metavar="QUEUE",
    multiple=True,
    help="Serve only this queue (default: the queues of all types); may be repeated.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    help="Log records of this level and above (default: info for the packages of the handlers, warning for libraries).",
)
@click.option(
    "--capture",
    metavar="KINDS",
    callback=_checked_capture,
    help="Capture in jobs: logging, tqdm, threads, stdout or none (default: MILEPOST_CAPTURE, else all but stdout).",
)
@session_options
def command(
    app: str | None, concurrency: int | None, queues: tuple[str, ...], log_level: str | None, capture: str | None
) -> int:
    """Run submitted jobs until SIGTERM or Ctrl-C.

    MODULE:APP is a Jobs object, e.g. myapp:jobs (default: milepost's built-in document types). The first Ctrl-C drains:
    running code stops at its next cancellation point and its jobs return to pending without using an attempt. The second
    Ctrl-C stops immediately.
    """
    context = current()
    if context.is_server:
        raise click.UsageError(
            "a worker cannot run through a server; pass the store URL with --url (sqlite:///..., redis://...)"
        )
    context.capture = capture
    jobs = create_jobs(context, app)
    if not jobs.handlers:
        raise click.UsageError(f"{app} has no job types; decorate a function with @jobs.job")
    worker: Worker = jobs.worker(concurrency=concurrency, queues=queues or None)
    manager = context.open()
    has_summary = is_live(context.console) and not context.json
    output = terminal_output(log_level) if has_summary else JsonOutput()
    configure_logging([handler.function for handler in worker.handlers.values()], output, log_level)
    return _with_summary(context, worker, manager) if has_summary else _with_log(worker, manager)


def _with_log(worker: Worker, manager: Any) -> int:
    """Run the worker; write each start and end of a job as a JSON line."""

    def log_event(event: Event, job: Job) -> None:
        line: dict[str, Any] = {
            "at": event.at.isoformat(timespec="milliseconds") if event.at is not None else None,
            "level": "error" if event.kind == "failed" else "info",
            "event": event.kind,
            "job_id": job.job_id,
            "job_type": job.job_type,
            "attempt": job.attempt,
        }
        if (trace := trace_id(job.trace)) is not None:
            line["trace_id"] = trace
        if event.kind == "failed":
            line["error"] = job.error
        if job.is_terminal and job.started_at is not None and job.completed_at is not None:
            line["seconds"] = round((job.completed_at - job.started_at).total_seconds(), 3)
        echo_json(line)

    monitor = WorkerMonitor(manager, log_event)
    monitor.start()
    try:
        return worker.run()
    finally:
        monitor.stop()


def _with_summary(context: CommandContext, worker: Worker, manager: Any) -> int:
    """Run the worker under a live summary of running and ended jobs."""
    from rich.live import Live

    console = context.console
    drawn = WorkerSummary(context, worker, WorkerMonitor(manager))
    drawn.monitor.start()
    over = threading.Event()

    def refresh(live: Live) -> None:
        while not over.wait(1 / FRAMES):
            live.update(drawn.draw(), refresh=True)

    with Live(drawn.draw(), console=console, auto_refresh=False) as live:
        thread = threading.Thread(target=refresh, args=(live,), name="milepost-view", daemon=True)
        thread.start()
        try:
            code = worker.run()
        finally:
            drawn.monitor.stop()
            over.set()
            thread.join()
            live.update(drawn.draw(), refresh=True)
    return code if code else exit_codes.OK


class WorkerSummary:
    """Draws the state of the worker in a few lines."""

    def __init__(self, context: CommandContext, worker: Worker, monitor: WorkerMonitor) -> None:
        self.monitor = monitor
        self._session = context
        self._worker = worker
        self._lines: dict[str, JobProgress] = {}

    def draw(self) -> RenderableType:
        """Return the current state."""
        from rich.console import Group
        from rich.text import Text

        console, monitor = self._session.console, self.monitor
        running = monitor.refresh()
        self._lines = {job.job_id: self._lines.get(job.job_id) or JobProgress() for job in running}
        dot = f" {glyph(console, 'dot')} "
        head = Text("milepost worker  ", "bold")
        state = (
            "draining, press Ctrl-C again to stop immediately"
            if self._worker.is_stopping and not self._worker.closed
            else ""
        )
        facts = [state] if state else []
        facts += [f"{len(monitor.running)}/{self._worker.concurrency} running", f"{monitor.per_minute()} per minute"]
        facts += [
            f"{formatting.number(monitor.ended[kind])} {kind}"
            for kind in ("completed", "failed", "cancelled", "released", "retrying")
            if monitor.ended[kind]
        ]
        head.append(dot.join(facts), "bold")
        lines: list[RenderableType] = [
            head,
            Text(f"runs {', '.join(self._worker.handlers)} from {self._session.display_url}", MUTED),
        ]
        if monitor.problem is not None:
            lines.append(Text(clean(monitor.problem), STYLES["stalled"]))
        ids = short_ids(running)
        shown = running[:MAX_BARS]
        for job in shown:
            self._lines[job.job_id].sample(job)
        rows = [(f"  {ids[job.job_id]}  {clean(job.job_type)}", job, self._lines[job.job_id]) for job in shown]
        lines += progress_bars(console, rows, console.width)
        if len(running) > MAX_BARS:
            lines.append(Text(f"  and {len(running) - MAX_BARS} more", MUTED))
        return Group(*lines)
