"""`milepost watch ID...`: follow jobs until they end; the exit code reflects their outcome."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.job_selection import JobId, select_jobs, short_ids
from milepost.cli.rendering.live import (
    LineThrottle,
    OutageNotice,
    echo,
    echo_json,
    ended_line,
    ended_text,
    outage_text,
    raise_if_output_closed,
)
from milepost.cli.rendering.progress import JobProgress, member_counts, progress_bars, stage_label
from milepost.cli.rendering.terminal import MUTED, STYLES, clean, is_live
from milepost.core.activity import progress_text
from milepost.core.errors import JobNotFoundError, MilepostError, StoreUnavailableError
from milepost.core.events import Event
from milepost.core.job import Job, JobStatus
from milepost.core.placement import BATCH
from milepost.core.serialization import seconds

MAX_WATCHED = 64
POLL_INTERVAL = 0.2
MEMBERS_INTERVAL = 1.0
RETRY_DELAY = 1.0


class JobFollower:
    """A live stream of the events of some jobs."""

    def __init__(self, context: CommandContext, jobs: Sequence[Job], after: str | None = None) -> None:
        self.jobs = {job.job_id: job for job in jobs}
        self.problem: str | None = None
        self._context = context
        self._after = after
        self._events: queue.Queue[tuple[str, Event | MilepostError | None]] = queue.Queue()
        self._open = set(self.jobs)

    def events(self, timeout: float | None = None) -> Iterator[Event | None]:
        """Yield each event, and None a few times a second, until all jobs ended or the timeout. Raises errors of a watch."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for job_id in self.jobs:
            threading.Thread(target=self._watch, args=(job_id,), name="milepost-watch", daemon=True).start()
        while self._open:
            if deadline is not None and time.monotonic() >= deadline:
                return
            try:
                job_id, news = self._events.get(timeout=POLL_INTERVAL)
            except queue.Empty:
                yield None
                continue
            if isinstance(news, JobNotFoundError) or news is None:
                self._open.discard(job_id)
            elif isinstance(news, MilepostError):
                raise news
            else:
                yield news
            if news is None:
                yield None

    @property
    def is_over(self) -> bool:
        """Return whether the streams of all jobs have ended."""
        return not self._open

    def refresh(self) -> list[Job]:
        """Return the current jobs with the progress of their members; deleted jobs, and all jobs during an outage, as last seen."""
        try:
            for job_id in self.jobs:
                latest = self._context.manager.get_job(job_id)
                if latest is not None:
                    self.jobs[job_id] = latest
            self.problem = None
            return self._context.with_member_progress(list(self.jobs.values()))
        except StoreUnavailableError as away:
            self.problem = str(away)
        return list(self.jobs.values())

    def exit_code(self) -> int:
        """Return 0 if all completed, 1 if any failed, 3 if any was cancelled, 124 if not all have ended."""
        statuses = {job.status for job in self.refresh()}
        if JobStatus.FAILED in statuses:
            return exit_codes.FAILED
        if not all(status.is_terminal for status in statuses):
            return exit_codes.TIMED_OUT if not self.is_over else exit_codes.CANCELLED
        return exit_codes.CANCELLED if JobStatus.CANCELLED in statuses else exit_codes.OK

    def _watch(self, job_id: str) -> None:
        manager = self._context.open()
        after = self._after
        try:
            while True:
                try:
                    for event in manager.watch(job_id, after):
                        after, self.problem = event.position, None
                        self._events.put((job_id, event))
                except StoreUnavailableError as away:
                    self.problem = str(away)
                    time.sleep(RETRY_DELAY)
                else:
                    self._events.put((job_id, None))
                    return
        except MilepostError as error:
            self._events.put((job_id, error))
        finally:
            manager.close()


FRAMES = 5


@click.command("watch", epilog=exit_codes.EXIT_CODES_HELP)
@click.argument("words", metavar="[ID|@last|FILTER|-]...", type=JobId(), nargs=-1)
@click.option(
    "--timeout", metavar="TIME", help="Stop watching after TIME (e.g. 90, 2h) and exit with 124; the jobs continue."
)
@session_options
def watch(words: tuple[str, ...], timeout: str | None) -> int:
    """Follow jobs until all have ended (default: the newest job).

    Exit code: 0 if all completed, 1 if any failed, 3 if any was cancelled, 124 after --timeout.
    """
    context = current()
    limit = None if timeout is None else seconds(timeout, "--timeout")
    jobs, _ = select_jobs(context, words or ("@last",))
    if len(jobs) > MAX_WATCHED:
        raise click.UsageError(
            f"cannot watch {formatting.plural(len(jobs), 'job')} (at most {MAX_WATCHED}); add a filter term or give ids"
        )
    if not jobs:
        sys.stderr.write("milepost: nothing to watch: no jobs match\n")
        return exit_codes.OK
    return follow(context, jobs, limit)


def follow(
    context: CommandContext,
    jobs: list[Job],
    timeout: float | None,
    *,
    on_interrupt: Callable[[], int | None] | None = None,
) -> int:
    """Show the jobs until they end. Ctrl-C ends the view, unless `on_interrupt` is given and returns None."""
    while True:
        follower = JobFollower(context, jobs)
        try:
            if context.json:
                _print_json(follower, timeout)
            elif is_live(context.console):
                _live(context, follower, timeout)
            else:
                _plain(context, follower, timeout)
            break
        except KeyboardInterrupt:
            if on_interrupt is not None:
                code = on_interrupt()
                if code is None:
                    continue
                return code
            if not context.json:
                sys.stderr.write("milepost: stopped watching; the jobs continue\n")
            return exit_codes.INTERRUPTED
    code = follower.exit_code()
    if context.json:
        for job in follower.jobs.values():
            echo_json(job.to_dict())
    elif code == exit_codes.TIMED_OUT:
        sys.stderr.write(f"milepost: timed out after {formatting.duration(timeout or 0)}; the jobs continue\n")
    return code


def _print_json(follower: JobFollower, timeout: float | None) -> None:
    outages = OutageNotice()
    for event in follower.events(timeout):
        outages.report(follower.problem)
        if event is None:
            raise_if_output_closed()
        else:
            echo_json(event.to_dict())


def _plain(context: CommandContext, follower: JobFollower, timeout: float | None) -> None:
    """Print a line for each noteworthy event, and the outcome of each job."""
    lines, outages = PlainLines(context, follower), OutageNotice()
    for event in follower.events(timeout):
        outages.report(follower.problem)
        if event is None:
            raise_if_output_closed()
            lines.print_members()
        else:
            lines.print_event(event)
    for job in follower.refresh():
        if job.is_terminal:
            lines.echo(job.job_id, ended_text(job))


class PlainLines:
    """The lines of `watch` in a pipe."""

    def __init__(self, context: CommandContext, follower: JobFollower) -> None:
        self._utc = context.utc
        self._follower = follower
        self._ids = short_ids(list(follower.jobs.values())) if len(follower.jobs) > 1 else {}
        self._throttles: dict[str, LineThrottle] = defaultdict(LineThrottle)
        self._may_wait = {job_id for job_id, job in follower.jobs.items() if _may_wait(job, job.status)}
        """The jobs that may wait for their children, or for the jobs of a batch."""
        self._members_at = time.monotonic()

    def echo(self, job_id: str, text: str, at: datetime | None = None) -> None:
        """Print a text, with a time, and with the id if there are several jobs."""
        when = "" if at is None else formatting.clock(at, utc=self._utc)
        echo("  ".join(part for part in (when, self._ids.get(job_id, ""), text) if part))

    def print_event(self, event: Event) -> None:
        """Print an event, if it is noteworthy."""
        if event.status is not None:
            if _may_wait(self._follower.jobs[event.job_id], event.status):
                self._may_wait.add(event.job_id)
            else:
                self._may_wait.discard(event.job_id)
        text = _event_text(event)
        if not text:
            return
        steps = self._throttles[event.job_id]
        if event.kind not in ("progress", "stage") or steps.should_print(_open_stage(event), event.progress):
            self.echo(event.job_id, text, event.at)

    def print_members(self) -> None:
        """Print how many children, or jobs of a batch, have ended: no event of the job itself says so."""
        if not self._may_wait or time.monotonic() - self._members_at < MEMBERS_INTERVAL:
            return
        self._members_at = time.monotonic()
        for job in self._follower.refresh():
            counts = member_counts(job)
            if counts is not None and self._throttles[job.job_id].should_print({"name": ""}, counts.progress):
                text = "  ".join(part for part in (progress_text(job), clean(job.activity)) if part)
                self.echo(job.job_id, text, datetime.now(UTC))


def _may_wait(job: Job, status: JobStatus) -> bool:
    return status is JobStatus.PENDING or (job.job_type == BATCH and not status.is_terminal)


def _event_text(event: Event) -> str:
    if event.kind == "log":
        return "\n".join(clean(line.get("text", "")) for line in event.data.get("lines", ()))
    if event.kind == "skipped":
        return ""
    progress = formatting.percent(event.progress) if event.progress is not None else ""
    kind = event.kind if event.kind not in ("progress", "stage", "snapshot") else ""
    if kind == "stalled":
        return clean(f"stalled  {event.data['stalled']}" if event.data.get("stalled") else f"running again  {progress}")
    if event.kind == "snapshot" and event.status is not None:
        kind = event.status.value
    return "  ".join(
        part
        for part in (
            kind,
            progress,
            _stage_text(event),
            clean(event.message or "") if event.kind != "snapshot" else "",
            clean(event.data.get("error") or "") if event.kind == "retrying" else "",
        )
        if part
    )


def _stage_text(event: Event) -> str:
    stage = _open_stage(event)
    if stage is None:
        return ""
    counted = formatting.units(stage.get("done", 0), stage.get("total"), stage.get("unit", "item"))
    return f"{stage_label(stage['name'])} {counted}".lstrip()


def _open_stage(event: Event) -> dict[str, Any] | None:
    stages = event.data.get("stages")
    if not isinstance(stages, list):
        return None
    return next((stage for stage in reversed(stages) if not stage.get("ended_at")), None)


def _live(context: CommandContext, follower: JobFollower, timeout: float | None) -> None:
    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.text import Text

    console = context.console
    lines = {job_id: JobProgress() for job_id in follower.jobs}
    ids = short_ids(list(follower.jobs.values()))

    def draw() -> RenderableType:
        jobs = follower.refresh()
        away = [Text(outage_text(follower.problem), STYLES["stalled"])] if follower.problem is not None else []
        running = [job for job in jobs if not job.is_terminal]
        for job in running:
            lines[job.job_id].sample(job)
        if len(jobs) == 1:
            return Group(*alone(jobs[0]), *away)
        rows = [(f"{ids[job.job_id]}  {clean(job.job_type)}", job, lines[job.job_id]) for job in running]
        drawn = dict(zip((job.job_id for job in running), progress_bars(console, rows, console.width), strict=True))
        return Group(*(drawn.get(job.job_id) or ended(job) for job in jobs), *away)

    def alone(job: Job) -> Iterator[RenderableType]:
        yield Text(clean(job.job_type), "bold").append(f"  {job.job_id}", MUTED)
        if job.stages or not job.is_terminal:
            yield lines[job.job_id].block(console, job, console.width)
        if job.is_terminal:
            yield ended_line(console, job)

    def ended(job: Job) -> Text:
        return Text(f"{ids[job.job_id]}  ", MUTED).append_text(ended_line(console, job))

    with Live(draw(), console=console, auto_refresh=False) as live:
        drawn_at = time.monotonic()
        for event in follower.events(timeout):
            if event is not None and event.kind == "log":
                whose = f"{ids[event.job_id]}  " if len(follower.jobs) > 1 else ""
                for line in event.data.get("lines", ()):
                    live.console.print(Text(whose + clean(line.get("text", "")), MUTED))
            if time.monotonic() - drawn_at >= 1 / FRAMES:
                live.update(draw(), refresh=True)
                drawn_at = time.monotonic()
        live.update(draw(), refresh=True)
