"""`milepost worker [MODULE:APP]`: run submitted jobs, with a live summary on a terminal and JSON log lines otherwise."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.arguments import WholeNumber
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.job_selection import short_ids
from milepost.cli.job_types import create_jobs
from milepost.cli.log_setup import LEVELS, JsonOutput, configure_logging, terminal_output
from milepost.cli.rendering.live import echo_json
from milepost.cli.rendering.progress import JobProgress, progress_bars
from milepost.cli.rendering.terminal import MUTED, STYLES, clean, glyph, is_live
from milepost.core.errors import InvalidInputError, OutcomeUnknownError, StoreError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.serialization import seconds
from milepost.run.otel import trace_id
from milepost.run.process_identity import process_name
from milepost.stores.protocol import Select
from milepost.stores.query import created
from milepost.stores.sync_bridge import run_sync

if TYPE_CHECKING:
    from rich.console import RenderableType

    from milepost.manager.feed_follower import FeedNews
    from milepost.manager.sync import JobManager
    from milepost.worker.worker import Worker


log = logging.getLogger("milepost.cli")

RUN_END_EVENTS = ("completed", "failed", "cancelled", "released", "suspended", "retrying")
TERMINAL_EVENTS = frozenset({"completed", "failed", "cancelled"})
RECENT_WINDOW = 60.0
POLL_INTERVAL = 0.5
RETRY_DELAY = 2.0
READ_FACTOR = 4
"""How many jobs the request for the running jobs of this worker may return, for each of them."""


class WorkerMonitor:
    """The running jobs and outcome counts of this process's worker.

    `on_event` is called at each start and end with the event, the job, and the attempt that started.
    """

    def __init__(self, manager: JobManager, on_event: Callable[[Event, Job, int], None] | None = None) -> None:
        self.running: dict[str, Job] = {}
        self.ended: Counter[str] = Counter()
        self.recently_ended: deque[float] = deque(maxlen=10_000)
        self._seen: dict[str, Job] = {}
        self._error: StoreError | None = None
        from milepost.manager.feed_follower import FeedFollower  # here, because `worker --help` does without it

        self._manager = manager
        self._follower = FeedFollower(lambda: manager.store)
        self._follower.add(self._receive)
        self._on_event = on_event
        self._name = process_name()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="milepost-news", daemon=True)

    def start(self) -> None:
        """Start following the feed, now or as soon as an unavailable store is back.

        Raises StoreError for errors that waiting cannot solve, such as a wrong password.
        """
        run_sync(self._follower.read(0.0))
        waits = isinstance(self._error, OutcomeUnknownError) or getattr(self._error, "temporary", False)
        if self._error is not None and not waits:
            raise self._error
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why the store is unavailable, or None if it responds."""
        return None if self._error is None else str(self._error)

    def stop(self) -> None:
        """Process the events until now, and stop."""
        self._stopping.set()
        if self._error is None:
            self._thread.join(RETRY_DELAY)

    def per_minute(self) -> int:
        """Return the number of jobs that ended in the last minute."""
        now = time.monotonic()
        return sum(1 for at in list(self.recently_ended) if now - at <= RECENT_WINDOW)

    def refresh(self, limit: int) -> list[Job]:
        """Return the first `limit` running jobs with their current state, or as last seen during an outage."""
        known = list(self.running.values())[:limit]
        try:
            self._seen = self._current(known) if known else {}
        except StoreError as error:
            self._error = error
        return [self._seen.get(job.job_id, job) for job in known if job.job_id in self.running]

    def _current(self, known: list[Job]) -> dict[str, Job]:
        """Read running jobs, with one request unless many others run such jobs too."""
        times = [created(job) for job in known]
        select = Select(
            tuple({job.job_type for job in known}),
            ("running",),
            created_after=min(times),
            created_before=max(times) + 1,
        )
        wanted = {job.job_id for job in known}
        found = run_sync(self._manager.store.select(select, READ_FACTOR * len(known)))
        latest = {job.job_id: job for job in found if job.job_id in wanted}
        for job_id in wanted - latest.keys():  # ended, or behind many jobs of other workers
            if (job := self._manager.get_job(job_id)) is not None:
                latest[job_id] = job
        return latest

    def _listen(self) -> None:
        over = False
        while not over:
            over = self._stopping.is_set()  # one more read after the end, for the last events
            if not run_sync(self._follower.read(0.0 if over else POLL_INTERVAL)):
                self._stopping.wait(RETRY_DELAY)

    def _receive(self, news: FeedNews) -> None:
        self._error = news.error
        for event in news.events:
            self._handle(event)

    def _handle(self, event: Event) -> None:
        if event.kind == "running" and str(event.data.get("worker", "")).startswith(self._name):
            job = self._read(event.job_id)
            if job is not None:
                self.running[event.job_id] = job
                self._notify(event, job, job.attempt)
        elif event.kind in RUN_END_EVENTS and event.job_id in self.running:
            started = self.running.pop(event.job_id)
            job = self._read(event.job_id) or started
            self.ended[event.kind] += 1
            if event.kind in TERMINAL_EVENTS:
                self.recently_ended.append(time.monotonic())
            self._notify(event, job, started.attempt)

    def _read(self, job_id: str) -> Job | None:
        try:
            return self._manager.get_job(job_id)
        except StoreError as error:
            self._error = error
            return None

    def _notify(self, event: Event, job: Job, attempt: int) -> None:
        if self._on_event is not None:
            self._on_event(event, job, attempt)


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
    "-c", "--concurrency", type=WholeNumber(1, 10_000), help="Maximum number of concurrent jobs (default 10)."
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
    "--max-jobs",
    metavar="N",
    type=WholeNumber(1),
    help="End after N starts of jobs; one that wakes from a sleep counts again.",
)
@click.option("--exit-when-idle", metavar="TIME", help="End after TIME without a job (for example 30, 5m).")
@click.option(
    "--metrics-port",
    metavar="PORT",
    type=WholeNumber(0, 65535),
    help="Serve /metrics, /healthz and /readyz on PORT (default: no port; 0 chooses one).",
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address of --metrics-port.")
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
def worker(
    app: str | None,
    concurrency: int | None,
    queues: tuple[str, ...],
    max_jobs: int | None,
    exit_when_idle: str | None,
    metrics_port: int | None,
    metrics_host: str,
    log_level: str | None,
    capture: str | None,
) -> int:
    """Run submitted jobs until SIGTERM or Ctrl-C.

    MODULE:APP is a Jobs object, e.g. myapp:jobs (default: the document jobs and the job types of other plugins). The first
    Ctrl-C drains: running code stops at its next cancellation point and its jobs return to pending without using an
    attempt. The second Ctrl-C stops immediately.
    """
    context = current()
    if context.is_server:
        raise click.UsageError(
            "a worker cannot run through a server; pass the store URL with --url (sqlite:///..., redis://..., postgresql://...)"
        )
    context.capture = capture
    jobs = create_jobs(context, app)
    if not jobs.handlers:
        raise click.UsageError(f"{app} has no job types; decorate a function with @jobs.job")
    for queue in queues:
        if "," in queue and all(handler.type_options.queue != queue for handler in jobs.handlers.values()):
            raise click.UsageError(
                f"--queue takes one queue, not {queue!r:.80}; repeat it: {' '.join(f'-q {one}' for one in queue.split(',') if one)}"
            )
    idle = None if exit_when_idle is None else seconds(exit_when_idle, "--exit-when-idle")
    worker: Worker = jobs.worker(concurrency=concurrency, queues=queues or None, max_jobs=max_jobs, exit_when_idle=idle)
    manager = context.open()
    has_summary = is_live(context.console) and not context.json
    output = terminal_output(log_level) if has_summary else JsonOutput()
    configure_logging([handler.function for handler in worker.handlers.values()], output, log_level)
    with ExitStack() as stack:
        if metrics_port is not None:
            from milepost.cli.worker_endpoint import WorkerEndpoint

            try:
                endpoint = stack.enter_context(WorkerEndpoint(worker, jobs.store, metrics_host, metrics_port))
            except OSError as error:
                raise click.UsageError(f"cannot listen on {metrics_host}:{metrics_port}: {error.strerror}") from None
            log.info("metrics on http://%s:%d/metrics", metrics_host, endpoint.port)
        return _with_summary(context, worker, manager) if has_summary else _with_log(worker, manager)


def _with_log(worker: Worker, manager: Any) -> int:
    """Run the worker; write each start and end of a job as a JSON line."""

    def log_event(event: Event, job: Job, attempt: int) -> None:
        line: dict[str, Any] = {
            "at": event.at.isoformat(timespec="milliseconds") if event.at is not None else None,
            "level": "error" if event.kind == "failed" else "info",
            "event": event.kind,
            "job_id": job.job_id,
            "job_type": job.job_type,
            "attempt": attempt,
        }
        if (trace := trace_id(job.trace)) is not None:
            line["trace_id"] = trace
        if event.kind == "failed":
            line["error"] = job.error
        elif event.kind == "retrying":
            line["error"] = event.data.get("error")
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
        self._context = context
        self._worker = worker
        self._lines: dict[str, JobProgress] = {}

    def draw(self) -> RenderableType:
        """Return the current state."""
        from rich.console import Group
        from rich.text import Text

        console, monitor = self._context.console, self.monitor
        running = monitor.refresh(MAX_BARS)
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
        facts += [f"{formatting.number(monitor.ended[kind])} {kind}" for kind in RUN_END_EVENTS if monitor.ended[kind]]
        head.append(dot.join(facts), "bold")
        lines: list[RenderableType] = [
            head,
            Text(f"runs {', '.join(self._worker.handlers)} from {self._context.display_url}", MUTED),
        ]
        if monitor.problem is not None:
            lines.append(Text(clean(monitor.problem), STYLES["stalled"]))
        ids = short_ids(running)
        for job in running:
            self._lines[job.job_id].sample(job)
        rows = [(f"  {ids[job.job_id]}  {clean(job.job_type)}", job, self._lines[job.job_id]) for job in running]
        lines += progress_bars(console, rows, console.width)
        if len(monitor.running) > MAX_BARS:
            lines.append(Text(f"  and {len(monitor.running) - MAX_BARS} more", MUTED))
        return Group(*lines)
