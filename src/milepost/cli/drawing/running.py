"""A job that runs, as lines that move: finished stages, then the bar. Owns what is dropped when there is little room.

One line of a job has a stage, a bar, a percentage, a count, a rate and the time left, as far as each is known.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from milepost.cli import wording
from milepost.cli.drawing.console import MUTED, STYLES, bar, cells, clean, cut, glyph, padded
from milepost.cli.pace import Pace, leaf, left_of
from milepost.core.job import Job, JobStatus, Stage

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

STAGES_SHOWN = 8
BAR_MOST, BAR_LEAST = 40, 8
LEFT_WIDTH = len("about 100 to 115 s left")


class JobLines:
    """How one job is drawn; keeps its pace between two drawings."""

    def __init__(self) -> None:
        self.pace = Pace()
        self._label = len("Embedding")
        self._said: tuple[str, object] = ("", None)

    def sample(self, job: Job) -> None:
        """Look at the job as it is now."""
        stage = leaf(job.stages)
        self.pace.sample(stage)
        if job.message != self._said[0]:
            self._said = (job.message, _place(job))

    def left(self, job: Job) -> tuple[float, float] | None:
        """How long the job still needs."""
        return left_of(job)

    def parts(self, job: Job) -> tuple[str, str, str, str, str]:
        """Stage, percentage, count, rate and time left as text; what is unknown is empty."""
        stage = leaf(job.stages)
        rate, left = self.pace.rate(), self.left(job)
        counted = stage is not None and (stage.total or stage.done)
        return (
            clean(stage.name if stage is not None else job.message if not job.stages else "Working", 200),
            wording.percent(job.progress),
            wording.units(stage.done, stage.total, stage.unit) if stage is not None and counted else "",
            wording.rate(rate, stage.unit) if stage is not None and rate is not None and counted else "",
            wording.time_left(*left) if left is not None else "",
        )

    def line(self, job: Job) -> str:
        """The same in plain text."""
        return "  ".join(part for part in self.parts(job) if part)

    def bar(self, console: Console, job: Job, width: int) -> Text:
        """One line with a bar, at most `width` cells wide."""
        from rich.text import Text

        stage, percent, count, rate, left = self.parts(job)
        if leaf(job.stages) is None:  # a message is longer than a name: it has a line of its own
            stage = clean(job.job_type, 200) if job.is_terminal else "Working"
        self._label = min(max(self._label, cells(stage)), max(12, width // 4))
        name = cut(console, stage, self._label)
        fields, room = self._fitted(job, width - self._label - 2, percent, count, rate, left)
        drawn = Text(no_wrap=True, overflow="crop")
        drawn.append(padded(name, self._label) + "  ")
        drawn.append_text(bar(console, job.progress, max(4, min(BAR_MOST, room)), style_of(job)))
        for text, size, side in fields:
            drawn.append("  " + padded(text, size, side))
        drawn.rstrip()
        return drawn

    def _fitted(
        self, job: Job, width: int, percent: str, count: str, rate: str, left: str
    ) -> tuple[list[tuple[str, int, str]], int]:
        """What stands behind the bar, with its width and side, and the cells left for the bar: as much as there is room for."""
        stage = leaf(job.stages)
        total = stage.total if stage is not None else None
        widest = cells(wording.units(total, total, stage.unit)) if stage is not None and total else cells(count)
        begin, end = (percent, 5, ">"), (left, LEFT_WIDTH, "<")
        if not job.stages:
            fields = [begin, end]
            return fields, width - sum(size + 2 for _, size, _ in fields)
        bare = count.rpartition(" ")[0] if total else count
        tries = (
            [begin, (count, max(widest, cells(count)), ">"), (rate, 7, ">"), end],
            [begin, (count, cells(count), ">"), (rate, 5, ">"), (left, len(left), "<")],
            [begin, (count, cells(count), ">"), (left, len(left), "<")],
            [begin, (bare, cells(bare), ">"), (left, len(left), "<")],
            [begin, (left, len(left), "<")],
            [begin],
        )
        for fields in tries:
            room = width - sum(size + 2 for text, size, _ in fields if size)
            if room >= BAR_LEAST:
                break
        return [field for field in fields if field[1]], room

    def block(self, console: Console, job: Job, width: int) -> RenderableType:
        """All lines of a running job: the stages that are done, the bar, and what it does now."""
        from rich.console import Group
        from rich.text import Text

        lines: list[Text] = []
        done = [stage for stage in job.stages if stage.ended_at is not None and stage.parent is None]
        if len(done) > STAGES_SHOWN:
            lines.append(Text(f"  {wording.plural(len(done) - STAGES_SHOWN, 'stage')} before", MUTED))
        lines += [stage_line(console, stage, self._label) for stage in done[-STAGES_SHOWN:]]
        if job.status is not JobStatus.COMPLETED or not done:
            lines.append(Text("  ").append_text(self.bar(console, job, width - 2)))
        stage = leaf(job.stages)
        # A message that a stage before has left is no longer true; one of this stage's name says nothing new.
        old = any(job.message.startswith(known.name) for known in (*done, *([stage] if stage is not None else [])))
        fresh = self._said == (job.message, _place(job)) and not old
        if job.stalled and not job.is_terminal:
            lines.append(Text(f"  {cut(console, clean(job.stalled), width - 2)}", style_of(job), no_wrap=True))
        elif fresh and job.message not in ("", "Job created") and not job.is_terminal:
            lines.append(Text(f"  {cut(console, clean(job.message), width - 2)}", MUTED, no_wrap=True))
        return Group(*lines)


def stage_line(console: Console, stage: Stage, label: int) -> Text:
    """A stage that is done: what it counted and how long it took."""
    from rich.text import Text

    line = Text(no_wrap=True).append(glyph(console, "completed") + " ", STYLES["completed"])
    line.append(padded(cut(console, clean(stage.name, 200), max(label, 24)), label) + "  ")
    return line.append(f" {glyph(console, 'dot')} ".join(stage_facts(stage)), MUTED)


def stage_facts(stage: Stage) -> list[str]:
    """What a stage that is done has counted, and how long it took."""
    facts = []
    if stage.done:
        facts.append(wording.size(stage.done) if stage.unit == "byte" else wording.plural(stage.done, stage.unit))
    if stage.started_at and stage.ended_at:
        spent = datetime.fromisoformat(stage.ended_at) - datetime.fromisoformat(stage.started_at)
        facts.append(wording.duration(spent.total_seconds()))
    return facts


def _place(job: Job) -> object:
    """Where in its stages a job is, to tell what it said there from what it said before."""
    stage = leaf(job.stages)
    return stage.name if stage is not None else len(job.stages)


def style_of(job: Job) -> str:
    """The colour of a job: that of its status, or of a stall."""
    return STYLES["stalled" if job.stalled and not job.is_terminal else job.status.value]
