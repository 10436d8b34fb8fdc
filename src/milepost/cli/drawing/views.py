"""Views of a job that runs in this process: a live block on a terminal, plain lines in a pipe, JSON lines for programs.

Each is a context manager beside the running code, with a thread of its own. Owns when something is printed; the words
are those of `running`.
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

from milepost.cli import wording
from milepost.cli.drawing.console import MUTED, STYLES, clean, glyph
from milepost.cli.drawing.running import JobLines, stage_facts
from milepost.cli.pace import leaf
from milepost.core.errors import MilepostError
from milepost.core.job import Job

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

    from milepost.cli.execution import Execution
    from milepost.cli.session import Session

FRAMES = 8
PLAIN_STEP, PLAIN_SECONDS = 0.1, 10.0
JSON_WAIT = 5.0


class LiveView:
    """Drawn over in place, eight times a second."""

    def __init__(self, console: Console, execution: Execution) -> None:
        self._console = console
        self._execution = execution
        self._lines = JobLines()
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

        parts: list[RenderableType] = [Text(clean(notice), STYLES["stalled"]) for notice in self._execution.notices]
        job = self.ended or self._execution.job
        if job is None:
            return Group(*parts, Text("Starting", MUTED))
        if self.ended is None:
            self._lines.sample(job)
        parts.append(self._lines.block(self._console, job, self._console.width))
        if self.ended is not None:
            parts.append(ended_line(self._console, job))
        elif self._execution.stopping:
            parts.append(Text("  Stopping at the next cancel point; Ctrl-C again ends it at once", STYLES["cancelled"]))
        return Group(*parts)


class Steps:
    """Which moments of a job are worth a line: a new stage, a tenth more, ten seconds."""

    def __init__(self) -> None:
        self._said: tuple[object, int, float] = (None, -1, 0.0)

    def is_new(self, stage: Mapping[str, Any] | None, progress: float | None) -> bool:
        """Whether to say it; then it is the newest that was said."""
        old_name, old_step, old_at = self._said
        name = stage.get("name") if stage is not None else old_name
        step = int(progress / PLAIN_STEP) if progress is not None else old_step
        now = time.monotonic()
        if name == old_name and step <= old_step and now - old_at < PLAIN_SECONDS:
            return False
        self._said = (name, step, now)
        return True


class PlainView:
    """A line for each stage, each tenth of the way, and each ten seconds."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._lines = JobLines()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="milepost-view", daemon=True)
        self._told = 0
        self._steps = Steps()
        self._over: set[str] = set()
        self.ended: Job | None = None

    def __enter__(self) -> PlainView:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self._look()
        if self.ended is not None:
            say(ended_text(self.ended))

    def _follow(self) -> None:
        while not self._done.wait(0.1):
            self._look()

    def _look(self) -> None:
        for notice in self._execution.notices[self._told :]:
            say(clean(notice))
            self._told += 1
        job = self.ended or self._execution.job
        if job is None:
            return
        for over in job.stages:
            mark = f"{over.name} {over.started_at}"
            if over.ended_at is not None and mark not in self._over:
                self._over.add(mark)
                say("  ".join(part for part in (clean(over.name), "done", *stage_facts(over)) if part))
        if self.ended is not None:
            return
        self._lines.sample(job)
        stage = leaf(job.stages)
        if stage is None and job.progress >= 1.0:
            return  # its last words come with its end
        known = {"name": stage.name} if stage is not None else None
        if (job.stages or job.message) and self._steps.is_new(known, job.progress):
            say(self._lines.line(job))


class JsonView:
    """One line for each event of the job, as watchers hear them."""

    def __init__(self, session: Session, execution: Execution) -> None:
        self._session = session
        self._execution = execution
        self._thread = threading.Thread(target=self._follow, name="milepost-view", daemon=True)
        self._over = threading.Event()
        self.ended: Job | None = None

    def __enter__(self) -> JsonView:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(JSON_WAIT)

    def _follow(self) -> None:
        while self._execution.run is None:
            if self._over.wait(0.05):
                return
        manager = self._session.open()
        try:
            for event in manager.watch(self._execution.run.job_id):
                say(json.dumps(event.to_dict(), ensure_ascii=False))
        except MilepostError:
            return  # the record says how it ended, and is printed last
        finally:
            manager.close()


def say(line: str) -> None:
    """Print one line at once, though stdout may be a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def away_text(problem: str) -> str:
    """What is said while the store is away and something is followed."""
    return f"{clean(' '.join(problem.split()))}; trying again until Ctrl-C"


class Outages:
    """Says on stderr, once each time, that the store is away."""

    def __init__(self) -> None:
        self._told = False

    def tell(self, problem: str | None) -> None:
        """Look whether there is something new to say."""
        if problem is not None and not self._told:
            sys.stderr.write(f"milepost: {away_text(problem)}\n")
        self._told = problem is not None


def leave_with_reader() -> None:
    """Raise BrokenPipeError when whoever read our output has gone; else only the next line would tell, if one comes."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (AttributeError, OSError):  # not on this system, or no file at all
        return
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        raise BrokenPipeError(errno.EPIPE, "the reader has gone")


def took(job: Job) -> str:
    """How long an ended job has run, or an empty text."""
    begun = min((s.started_at for s in job.stages if s.started_at), default=None)
    start = datetime.fromisoformat(begun) if begun else job.started_at
    end = job.completed_at or datetime.now(UTC)
    return wording.duration((end - start).total_seconds()) if start is not None else ""


def ended_text(job: Job) -> str:
    """How a job has ended, in one line."""
    spent = took(job)
    match job.status.value:
        case "completed":
            counts = job.item_counts
            failed = f", {wording.plural(counts.failed, 'item')} failed" if counts is not None and counts.failed else ""
            return f"Completed in {spent}{failed}" if spent else f"Completed{failed}"
        case "failed":
            where = f" in {clean(job.failure.last_stage)}" if job.failure is not None and job.failure.last_stage else ""
            return f"Failed{where} after {spent}: {clean(job.error or job.message)}".replace(" after :", ":")
        case "cancelled":
            return f"Cancelled{receipt_text(job)}"
    return f"{job.status.value.capitalize()}  {wording.percent(job.progress)}  {clean(job.message)}".rstrip()


def receipt_text(job: Job) -> str:
    """Who cancelled a job, why, and how it stopped, to be put after the word Cancelled."""
    receipt = job.receipt
    if receipt is None:
        return ""
    by = f" by {clean(receipt.requested_by)}" if receipt.requested_by else ""
    why = f" ({clean(receipt.reason)})" if receipt.reason else ""
    if receipt.confirmed is None:
        how = ", its code has not answered yet"
    elif receipt.stopped_at is not None and receipt.requested_at is not None:
        delay = (receipt.stopped_at - receipt.requested_at).total_seconds()
        how = f", stopped {wording.duration(delay)} later ({receipt.how})"
    else:
        how = f", {receipt.how}"
    return f"{by}{why}{how if receipt.confirmed is not False else how + ' (not confirmed)'}"


def ended_line(console: Console, job: Job) -> Text:
    """The same with its sign and its colour."""
    from rich.text import Text

    text = Text(glyph(console, job.status.value) + " ", STYLES[job.status.value])
    return text.append(ended_text(job), STYLES[job.status.value])
