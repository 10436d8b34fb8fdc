"""Views of a job that runs in this process: live lines on a terminal, plain lines in a pipe, JSON lines for programs.

Each view is a context manager around the running code and prints from its own thread.
"""

from __future__ import annotations

import errno
import json
import select
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from milepost.cli import formatting
from milepost.cli.rendering.progress import JobProgress, stage_facts, stage_label
from milepost.cli.rendering.terminal import MUTED, STYLES, clean, glyph
from milepost.core.activity import left_open, open_stage, progress_text
from milepost.core.errors import MilepostError
from milepost.core.job import Job

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

    from milepost.cli.context import CommandContext
    from milepost.cli.local_run import LocalRun

FRAMES = 8
PLAIN_PROGRESS_STEP, PLAIN_SECONDS = 0.1, 10.0
JSON_DRAIN_SECONDS = 5.0


class LiveView:
    """A view redrawn in place eight times a second."""

    def __init__(self, console: Console, local_run: LocalRun) -> None:
        self._console = console
        self._local_run = local_run
        self._lines = JobProgress()
        self._live: Live | None = None
        self.ended: Job | None = None

    def __enter__(self) -> LiveView:
        from rich.live import Live

        self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=FRAMES)
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._live is not None, "entered before"
        self._live.__exit__(kind, error, at)

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(clean(notice), STYLES["stalled"]) for notice in self._local_run.notices]
        job = self.ended or self._local_run.job
        if job is None:
            return Group(*parts, Text("Starting", MUTED))
        if self.ended is None:
            self._lines.sample(job)
        parts.append(self._lines.block(self._console, job, self._console.width))
        if self.ended is not None:
            parts.append(ended_line(self._console, job))
        elif self._local_run.stopping:
            parts.append(
                Text(
                    "  Stopping at the next cancellation point; press Ctrl-C again to stop immediately",
                    STYLES["cancelled"],
                )
            )
        return Group(*parts)


class LineThrottle:
    """Decides when a job gets a line: at a new stage, each 10 %, and every ten seconds."""

    def __init__(self) -> None:
        self._last_message: tuple[object, int, float] = (None, -1, 0.0)

    def should_print(self, stage: Mapping[str, Any] | None, progress: float | None) -> bool:
        """Return True if this update should be printed, and remember it."""
        old_name, old_step, old_at = self._last_message
        name = stage.get("name") if stage is not None else old_name
        step = int(progress / PLAIN_PROGRESS_STEP) if progress is not None else old_step
        now = time.monotonic()
        if name == old_name and step <= old_step and now - old_at < PLAIN_SECONDS:
            return False
        self._last_message = (name, step, now)
        return True


class PlainView:
    """A view with a line for each stage, each 10 %, and every ten seconds."""

    def __init__(self, local_run: LocalRun) -> None:
        self._local_run = local_run
        self._lines = JobProgress()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="milepost-view", daemon=True)
        self._printed_notices = 0
        self._steps = LineThrottle()
        self._over: set[str] = set()
        self.ended: Job | None = None

    def __enter__(self) -> PlainView:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self._print_news()
        if self.ended is not None:
            echo(ended_text(self.ended))

    def _follow(self) -> None:
        while not self._done.wait(0.1):
            self._print_news()

    def _print_news(self) -> None:
        for notice in self._local_run.notices[self._printed_notices :]:
            echo(notice)
            self._printed_notices += 1
        job = self.ended or self._local_run.job
        if job is None:
            return
        for over in job.stages:
            mark = f"{over.name} {over.started_at}"
            if over.ended_at is not None and mark not in self._over:
                self._over.add(mark)
                echo("  ".join(part for part in (stage_label(over.name), "done", *stage_facts(over)) if part))
        if self.ended is not None:
            return
        self._lines.sample(job)
        stage = open_stage(job.stages)
        if stage is None and job.progress >= 1.0:
            return  # its outcome is printed next
        known = {"name": stage.name} if stage is not None else None
        if (job.stages or job.message) and self._steps.should_print(known, job.progress):
            echo(self._lines.line(job))


class JsonView:
    """A view with one JSON line for each event of the job."""

    def __init__(self, context: CommandContext, local_run: LocalRun) -> None:
        self._context = context
        self._local_run = local_run
        self._thread = threading.Thread(target=self._follow, name="milepost-view", daemon=True)
        self._over = threading.Event()
        self.ended: Job | None = None

    def __enter__(self) -> JsonView:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(JSON_DRAIN_SECONDS)

    def _follow(self) -> None:
        while self._local_run.run is None:
            if self._over.wait(0.05):
                return
        manager = self._context.open()
        try:
            for event in manager.watch(self._local_run.run.job_id):
                echo_json(event.to_dict())
        except MilepostError:
            return  # the ended job is printed last, from its record
        finally:
            manager.close()


def echo_json(value: Any) -> None:
    """Print a value as one line of JSON, on a terminal in ASCII, because it would obey control characters."""
    _write(json.dumps(value, ensure_ascii=sys.stdout.isatty()))


def echo(line: str) -> None:
    """Print one line without control characters and flush, also in a pipe."""
    _write(clean(line))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def outage_text(problem: str) -> str:
    """Return the notice during a store outage."""
    return f"{clean(' '.join(problem.split()))}; retrying until Ctrl-C"


class OutageNotice:
    """Reports each store outage once on stderr."""

    def __init__(self) -> None:
        self._is_reported = False

    def report(self, problem: str | None) -> None:
        """Report a new problem; None ends the outage."""
        if problem is not None and not self._is_reported:
            sys.stderr.write(f"milepost: {outage_text(problem)}\n")
        self._is_reported = problem is not None


def raise_if_output_closed() -> None:
    """Raise BrokenPipeError if the reader closed the pipe, which otherwise only the next write would detect."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (AttributeError, OSError):  # no poll() on this system, or stdout is not a file
        return
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        raise BrokenPipeError(errno.EPIPE, "the reader closed the pipe")


def run_duration(job: Job) -> str:
    """Return how long the last run of a job took or takes, and the time since its first start if it had several runs."""
    if job.started_at is None:
        return ""
    until = job.completed_at or datetime.now(UTC)
    last = formatting.duration((until - job.started_at).total_seconds())
    if not has_several_runs(job):
        return last
    first = min(run.started_at for run in job.attempts if run.started_at is not None)
    which = "this run" if job.completed_at is None else "the last run"
    return f"{last} in {which}, {formatting.duration((until - first).total_seconds())} since the first start"


def has_several_runs(job: Job) -> bool:
    """Return whether the job was started more than once, in one attempt or in several."""
    return sum(run.started_at is not None for run in job.attempts) > 1


def ended_text(job: Job) -> str:
    """Return the outcome of a job in one line."""
    spent = run_duration(job)
    match job.status.value:
        case "completed":
            counts = job.item_counts
            failed = (
                f", {formatting.plural(counts.failed, 'item')} failed" if counts is not None and counts.failed else ""
            )
            left = left_open(job.open_children)
            word = "after" if has_several_runs(job) else "in"
            return (f"Completed {word} {spent}" if spent else "Completed") + failed + (left and f", {left}")
        case "failed":
            where = f" in {clean(job.failure.last_stage)}" if job.failure is not None and job.failure.last_stage else ""
            return f"Failed{where} after {spent}: {clean(job.error or job.message)}".replace(" after :", ":")
        case "cancelled":
            return f"Cancelled{receipt_text(job)}"
    return f"{job.status.value.capitalize()}  {progress_text(job)}  {clean(job.activity)}".rstrip()


def receipt_text(job: Job) -> str:
    """Return who cancelled a job, why, and how it stopped, to follow the word Cancelled."""
    receipt = job.receipt
    if receipt is None:
        return ""
    by = f" by {clean(receipt.requested_by)}" if receipt.requested_by else ""
    why = f" ({clean(receipt.reason)})" if receipt.reason else ""
    stopped = receipt.how.replace("_", " ") if receipt.how else ""
    if receipt.confirmed is None:
        how = f", code {stopped}" if stopped else ", code not yet stopped"
    elif receipt.stopped_at is not None and receipt.requested_at is not None:
        delay = (receipt.stopped_at - receipt.requested_at).total_seconds()
        how = f", stopped after {formatting.duration(delay)} ({stopped})"
    else:
        how = f", {stopped}"
    return f"{by}{why}{how if receipt.confirmed is not False else how + ' (not confirmed)'}"


def ended_line(console: Console, job: Job) -> Text:
    """Return the outcome with its glyph and colour."""
    from rich.text import Text

    text = Text(glyph(console, job.status.value) + " ", STYLES[job.status.value])
    return text.append(ended_text(job), STYLES[job.status.value])
