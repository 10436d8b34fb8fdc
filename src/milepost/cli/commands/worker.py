"""`milepost worker [MODULE:APP]`: run submitted jobs; a live summary on a terminal, JSON log lines otherwise."""

from __future__ import annotations

import json
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

import click

from milepost.cli import exits, wording
from milepost.cli.drawing.console import MUTED, STYLES, clean, glyph, is_live
from milepost.cli.drawing.running import JobLines
from milepost.cli.drawing.several import bars
from milepost.cli.drawing.views import say
from milepost.cli.known_types import application
from milepost.cli.naming import short_ids
from milepost.cli.session import Session, current, session_options
from milepost.cli.working import WorkerNews
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.tracking.logs import JsonFormatter
from milepost.tracking.tracing import trace_id

if TYPE_CHECKING:
    from rich.console import RenderableType

    from milepost.worker.loop import Worker

FRAMES = 4
BARS = 20


@click.command("worker")
@click.argument("app", metavar="[MODULE:APP]", required=False)
@click.option("-c", "--concurrency", type=click.IntRange(1, 10_000), help="The most jobs at once (default 10).")
@click.option("-q", "--queue", "queues", metavar="TYPE", multiple=True, help="Serve only this type; may be repeated.")
@session_options
def command(app: str | None, concurrency: int | None, queues: tuple[str, ...]) -> int:
    """Run the jobs that were submitted, until SIGTERM or Ctrl-C.

    MODULE:APP is a Jobs object, as in myapp:jobs; without it milepost's own types are served. The first Ctrl-C drains:
    running code stops at its next cancel point, and its jobs go back at no cost. The second stops at once.
    """
    session = current()
    if session.is_server:
        raise click.UsageError("a worker needs the store itself; give it with --url (sqlite:///..., redis://...)")
    jobs = application(session, app)
    if not jobs.handlers:
        raise click.UsageError(f"{app} has no job types; write @jobs.job above a function")
    worker: Worker = jobs.worker(concurrency=concurrency, queues=queues or None)
    manager = session.open()
    if is_live(session.console) and not session.json:
        return _with_summary(session, worker, manager)
    return _with_log(worker, manager)


class JsonLog(logging.Handler):
    """Log records as JSON lines on stdout."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            say(self.format(record))
        except (OSError, ValueError):
            return  # whoever read this has gone; the work goes on


def _with_log(worker: Worker, manager: Any) -> int:
    """Run and log each start and end of a job, and what loggers say from INFO up."""
    logging.basicConfig(level=logging.INFO, handlers=[JsonLog()], force=True)

    def tell(event: Event, job: Job) -> None:
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
        say(json.dumps(line, ensure_ascii=False))

    news = WorkerNews(manager, tell)
    news.start()
    try:
        return worker.run()
    finally:
        news.stop()


def _with_summary(session: Session, worker: Worker, manager: Any) -> int:
    """Run beside a block that is drawn over: what runs, with bars, and what has ended."""
    from rich.live import Live

    console = session.console
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    drawn = Summary(session, worker, WorkerNews(manager))
    drawn.news.start()
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
            drawn.news.stop()
            over.set()
            thread.join()
            live.update(drawn.draw(), refresh=True)
    return code if code else exits.OK


class Summary:
    """The worker in a few lines."""

    def __init__(self, session: Session, worker: Worker, news: WorkerNews) -> None:
        self.news = news
        self._session = session
        self._worker = worker
        self._lines: dict[str, JobLines] = {}

    def draw(self) -> RenderableType:
        """What is so now."""
        from rich.console import Group
        from rich.text import Text

        console, news = self._session.console, self.news
        running = news.refresh()
        self._lines = {job.job_id: self._lines.get(job.job_id) or JobLines() for job in running}
        dot = f" {glyph(console, 'dot')} "
        head = Text("milepost worker  ", "bold")
        state = "draining, Ctrl-C again stops at once" if self._worker.is_stopping and not self._worker.closed else ""
        facts = [state] if state else []
        facts += [f"{len(news.running)}/{self._worker.concurrency} running", f"{news.per_minute()} a minute"]
        facts += [
            f"{wording.number(news.ended[kind])} {kind}"
            for kind in ("completed", "failed", "cancelled", "released", "retrying")
            if news.ended[kind]
        ]
        head.append(dot.join(facts), "bold")
        lines: list[RenderableType] = [
            head,
            Text(f"serves {', '.join(self._worker.handlers)} from {self._session.shown_place}", MUTED),
        ]
        if news.problem is not None:
            lines.append(Text(clean(news.problem), STYLES["stalled"]))
        ids = short_ids(running)
        shown = running[:BARS]
        for job in shown:
            self._lines[job.job_id].sample(job)
        rows = [(f"  {ids[job.job_id]}  {clean(job.job_type)}", job, self._lines[job.job_id]) for job in shown]
        lines += bars(console, rows, console.width)
        if len(running) > BARS:
            lines.append(Text(f"  and {len(running) - BARS} more", MUTED))
        return Group(*lines)
