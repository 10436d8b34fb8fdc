"""`milepost logs ID`: what a job has logged, and what it logs next."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click

from milepost.cli import exits, wording
from milepost.cli.drawing.console import MUTED, STYLES, clean
from milepost.cli.drawing.views import Outages, ended_text, leave_with_reader, say
from milepost.cli.following import Following
from milepost.cli.naming import JobId, one_job
from milepost.cli.session import Session, current, session_options
from milepost.core.events import Event

LEVELS = {"warning": STYLES["stalled"], "error": STYLES["failed"], "critical": STYLES["failed"], "debug": MUTED}
BATCH = 1000


@click.command("logs")
@click.argument("word", metavar="[ID|@last]", type=JobId(), default="@last")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended; Ctrl-C leaves it alone.")
@session_options
def command(word: str, follow: bool) -> int:
    """Print the log of a job; of the newest one when no ID is given."""
    session = current()
    job = one_job(session, word)
    seen = 0
    while events := session.manager.events(job.job_id, seen, BATCH):
        _print(session, events)
        seen = events[-1].version
        if len(events) < BATCH:
            break
    if follow and not job.is_terminal:
        try:
            following, outages = Following(session, [job], seen), Outages()
            for event in following.events():
                outages.tell(following.problem)
                if event is None:
                    leave_with_reader()
                else:
                    _print(session, (event,))
        except KeyboardInterrupt:
            return exits.INTERRUPTED
        latest = session.manager.get_job(job.job_id)
        if latest is not None and not session.json and session.console.is_terminal:
            session.console.print(ended_text(latest), style=STYLES[latest.status.value])
    return exits.OK


def _print(session: Session, events: Iterable[Event]) -> None:
    for event in events:
        if event.kind == "log":
            for line in event.data.get("lines", ()):
                _print_line(session, event.job_id, line)


def _print_line(session: Session, job_id: str, line: dict[str, Any]) -> None:
    if session.json:
        say(json.dumps({"job_id": job_id, **line}, ensure_ascii=False))
        return
    from rich.text import Text

    level, text = str(line.get("level", "info")), clean(line.get("text", ""))
    when = wording.clock(datetime.fromisoformat(line["at"]), utc=session.utc) if line.get("at") else ""
    if not session.console.is_terminal:
        say(f"{when}  {level.upper():7}  {text}")
        return
    shown = Text(f"{when}  ", MUTED)
    session.console.print(shown.append(text, LEVELS.get(level, "")), soft_wrap=True)
