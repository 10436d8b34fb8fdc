"""`milepost watch ID...`: follow jobs to their end; the exit code says how they ended."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from milepost.cli import exits, wording
from milepost.cli.drawing.console import MUTED, STYLES, clean, is_live
from milepost.cli.drawing.running import JobLines
from milepost.cli.drawing.several import bars
from milepost.cli.drawing.views import Outages, Steps, away_text, ended_line, ended_text, leave_with_reader, say
from milepost.cli.following import MOST, Following
from milepost.cli.naming import JobId, chosen_jobs, short_ids
from milepost.cli.session import Session, current, session_options
from milepost.core.encoding import seconds
from milepost.core.events import Event
from milepost.core.job import Job

FRAMES = 5


@click.command("watch", epilog=exits.EXPLAINED)
@click.argument("words", metavar="[ID|@last|FILTER|-]...", type=JobId(), nargs=-1)
@click.option("--timeout", metavar="TIME", help="Give up after so long (90, 2h): exit code 124. The jobs go on.")
@session_options
def command(words: tuple[str, ...], timeout: str | None) -> int:
    """Follow jobs until each has ended; the newest one when none is given.

    Exits with 0 when all completed, 1 when any failed, 3 when one was cancelled, 124 when the time was over.
    """
    session = current()
    limit = None if timeout is None else seconds(timeout, "--timeout")
    jobs, _ = chosen_jobs(session, words or ("@last",))
    if len(jobs) > MOST:
        raise click.UsageError(
            f"{wording.plural(len(jobs), 'job')} are more than the {MOST} that can be watched; narrow it"
        )
    if not jobs:
        sys.stderr.write("milepost: nothing matches, so there is nothing to watch\n")
        return exits.OK
    return follow(session, jobs, limit)


def follow(
    session: Session, jobs: list[Job], timeout: float | None, *, on_interrupt: Callable[[], int | None] | None = None
) -> int:
    """Draw the jobs until they have ended. Ctrl-C leaves them alone, or does as `on_interrupt`: None goes on watching."""
    while True:
        following = Following(session, jobs)
        try:
            if session.json:
                _json(following, timeout)
            elif is_live(session.console):
                _live(session, following, timeout)
            else:
                _plain(session, following, timeout)
            break
        except KeyboardInterrupt:
            if on_interrupt is not None:
                code = on_interrupt()
                if code is None:
                    continue
                return code
            if not session.json:
                sys.stderr.write("milepost: no longer watching; the jobs go on\n")
            return exits.INTERRUPTED
    code = following.exit_code()
    if session.json:
        for job in following.jobs.values():
            say(json.dumps(job.to_dict(), ensure_ascii=False))
    elif code == exits.TIMED_OUT:
        sys.stderr.write(f"milepost: not over after {wording.duration(timeout or 0)}; the jobs go on\n")
    return code


def _json(following: Following, timeout: float | None) -> None:
    outages = Outages()
    for event in following.events(timeout):
        outages.tell(following.problem)
        if event is None:
            leave_with_reader()
        else:
            say(json.dumps(event.to_dict(), ensure_ascii=False))


def _plain(session: Session, following: Following, timeout: float | None) -> None:
    """A line for each event that tells something new, and how each job has ended."""
    several = len(following.jobs) > 1
    ids = short_ids(list(following.jobs.values()))
    told: dict[str, Steps] = {}
    outages = Outages()
    for event in following.events(timeout):
        outages.tell(following.problem)
        if event is None:
            leave_with_reader()
            continue
        text = _event_text(event)
        if not text:
            continue
        steps = told.setdefault(event.job_id, Steps())
        if event.kind in ("progress", "stage") and not steps.is_new(_open_stage(event), event.progress):
            continue
        when = wording.clock(event.at, utc=session.utc) + "  " if event.at is not None else ""
        say(when + (ids[event.job_id] + "  " if several else "") + text)
    for job in following.refresh():
        if job.is_terminal:
            say((ids[job.job_id] + "  " if several else "") + ended_text(job))


def _event_text(event: Event) -> str:
    if event.kind == "log":
        return "\n".join(clean(line.get("text", "")) for line in event.data.get("lines", ()))
    if event.kind == "skipped":
        return ""
    progress = wording.percent(event.progress) if event.progress is not None else ""
    kind = event.kind if event.kind not in ("progress", "stage", "snapshot") else ""
    if kind == "stalled":
        return clean(f"stalled  {event.data['stalled']}" if event.data.get("stalled") else f"goes on  {progress}")
    if event.kind == "snapshot" and event.status is not None:
        kind = event.status.value
    return "  ".join(
        part
        for part in (
            kind,
            progress,
            _stage_text(event),
            "" if event.message == "Job created" else clean(event.message or ""),
        )
        if part
    )


def _stage_text(event: Event) -> str:
    stages = event.data.get("stages")
    if not isinstance(stages, list):
        return ""
    stage = next((s for s in reversed(stages) if not s.get("ended_at")), None)
    if stage is None:
        return ""
    return (
        f"{clean(stage['name'])} {wording.units(stage.get('done', 0), stage.get('total'), stage.get('unit', 'item'))}"
    )


def _open_stage(event: Event) -> dict[str, Any] | None:
    stages = event.data.get("stages")
    if not isinstance(stages, list):
        return None
    return next((stage for stage in reversed(stages) if not stage.get("ended_at")), None)


def _live(session: Session, following: Following, timeout: float | None) -> None:
    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.text import Text

    console = session.console
    lines = {job_id: JobLines() for job_id in following.jobs}
    ids = short_ids(list(following.jobs.values()))

    def draw() -> RenderableType:
        jobs = following.refresh()
        away = [Text(away_text(following.problem), STYLES["stalled"])] if following.problem is not None else []
        running = [job for job in jobs if not job.is_terminal]
        for job in running:
            lines[job.job_id].sample(job)
        if len(jobs) == 1:
            return Group(*alone(jobs[0]), *away)
        rows = [(f"{ids[job.job_id]}  {clean(job.job_type)}", job, lines[job.job_id]) for job in running]
        drawn = dict(zip((job.job_id for job in running), bars(console, rows, console.width), strict=True))
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
        for event in following.events(timeout):
            if event is not None and event.kind == "log":
                whose = f"{ids[event.job_id]}  " if len(following.jobs) > 1 else ""
                for line in event.data.get("lines", ()):
                    live.console.print(Text(whose + clean(line.get("text", "")), MUTED))
            if time.monotonic() - drawn_at >= 1 / FRAMES:
                live.update(draw(), refresh=True)
                drawn_at = time.monotonic()
        live.update(draw(), refresh=True)
