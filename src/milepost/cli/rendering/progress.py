"""A running job as live lines: finished stages, then the progress bar; or several jobs as one bar each.

A bar has the stage, percentage, count, rate and remaining time, as far as they are known and fit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from milepost.cli import formatting
from milepost.cli.rendering.terminal import MUTED, STYLES, bar, cells, clean, glyph, pad, truncate
from milepost.core.activity import LOOP_STAGE, is_between_runs, open_stage, own_message, progress_text
from milepost.core.job import Eta, Job, JobStatus, Stage
from milepost.core.values import MemberCounts

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

MAX_STAGES = 8
MAX_BAR_WIDTH, MIN_BAR_WIDTH = 40, 8
TIME_LEFT_WIDTH = len("about 100 to 115 s left")
NEWS_SECONDS = 10.0
"""The age of an update from which on it is said."""
RATE_WINDOW = 15.0
"""Seconds of samples from which a rate is computed."""
MIN_SAMPLE_SECONDS = 1.5
"""Seconds of samples of one stage below which no rate is shown."""


class JobProgress:
    """Draws one job; keeps its samples between two frames."""

    def __init__(self) -> None:
        self.pace = RateMeter()
        self._label = len("Embedding")
        self._last_message: tuple[str, object] = ("", None)

    def sample(self, job: Job) -> None:
        """Take a sample of the job."""
        self.pace.sample(open_stage(job.stages) if job.status is JobStatus.RUNNING else None)
        if job.message != self._last_message[0]:
            self._last_message = (job.message, _stage_position(job))

    def parts(self, job: Job) -> tuple[str, str, str, str, str]:
        """Return stage, percentage, count, rate and remaining time as text; unknown ones are empty."""
        counts = member_counts(job)
        if counts is not None:
            jobs = "child" if job.status is JobStatus.PENDING else "job"
            return ("Waiting", progress_text(job), formatting.units(counts.ended, counts.total, jobs), "", "")
        if is_between_runs(job):
            return ("Waiting", progress_text(job), "", "", "")
        stage = open_stage(job.stages)
        rate = self.pace.rate()
        counted = stage is not None and (stage.total or stage.done)
        name = stage_label(stage.name) if stage is not None else ""
        return (
            name or "Working" if job.stages else clean(job.message, 200),
            progress_text(job),
            formatting.units(stage.done, stage.total, stage.unit) if stage is not None and counted else "",
            formatting.rate(rate, stage.unit) if stage is not None and rate is not None and counted else "",
            left_text(job),
        )

    def line(self, job: Job) -> str:
        """Return the parts as one line of plain text."""
        return "  ".join(part for part in self.parts(job) if part)

    def bar(self, console: Console, job: Job, width: int) -> Text:
        """Return one line with a progress bar, at most `width` cells wide."""
        from rich.text import Text

        stage, percent, count, rate, left = self.parts(job)
        if open_stage(job.stages) is None and not count:  # a message is longer than a name: it has a line of its own
            stage = clean(job.job_type, 200) if job.is_terminal else "Working"
        self._label = min(max(self._label, cells(stage)), max(12, width // 4))
        name = truncate(console, stage, self._label)
        fields, bar_width = self._fit_fields(job, width - self._label - 2, percent, count, rate, left)
        drawn = Text(no_wrap=True, overflow="crop")
        drawn.append(pad(name, self._label) + "  ")
        drawn.append_text(bar(console, job.progress, max(4, min(MAX_BAR_WIDTH, bar_width)), style_of(job)))
        for text, size, side in fields:
            drawn.append("  " + pad(text, size, side))
        drawn.rstrip()
        return drawn

    def _fit_fields(
        self, job: Job, width: int, percent: str, count: str, rate: str, left: str
    ) -> tuple[list[tuple[str, int, str]], int]:
        """Return the fields after the bar that fit, as (text, width, alignment), and the cells left for the bar."""
        stage = open_stage(job.stages)
        total = stage.total if stage is not None else None
        widest = cells(formatting.units(total, total, stage.unit)) if stage is not None and total else cells(count)
        begin, end = (percent, 4, ">"), (left, max(TIME_LEFT_WIDTH, cells(left)), "<")
        if not job.stages and not count:
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
            bar_width = width - sum(size + 2 for text, size, _ in fields if size)
            if bar_width >= MIN_BAR_WIDTH:
                break
        return [field for field in fields if field[1]], bar_width

    def block(self, console: Console, job: Job, width: int) -> RenderableType:
        """Return all lines of a job: finished stages, the bar and the current message."""
        from rich.console import Group
        from rich.text import Text

        lines: list[Text] = []
        done = [stage for stage in job.stages if stage.ended_at is not None and stage.parent is None]
        if len(done) > MAX_STAGES:
            lines.append(Text(f"  {formatting.plural(len(done) - MAX_STAGES, 'earlier stage')}", MUTED))
        lines += [stage_line(console, stage, self._label) for stage in done[-MAX_STAGES:]]
        if job.status is not JobStatus.COMPLETED or not done:
            lines.append(Text("  ").append_text(self.bar(console, job, width - 2)))
        fresh = self._last_message == (
            job.message,
            _stage_position(job),
        )  # a message that an earlier stage has left is no longer true
        if job.stalled and not job.is_terminal:
            lines.append(Text(f"  {truncate(console, clean(job.stalled), width - 2)}", style_of(job), no_wrap=True))
        elif member_counts(job) is not None or is_between_runs(job):
            lines.append(Text(f"  {truncate(console, clean(job.activity), width - 2)}", MUTED, no_wrap=True))
        elif fresh and (message := own_message(job)) and not job.is_terminal:
            lines.append(Text(f"  {truncate(console, clean(message), width - 2)}", MUTED, no_wrap=True))
        return Group(*lines)


def member_counts(job: Job) -> MemberCounts | None:
    """Return the numbers of the children that a job waits for, or of the jobs of a batch; None for any other job."""
    return None if job.waiting_for is None else job.waiting_for.members


def stage_line(console: Console, stage: Stage, label: int) -> Text:
    """Return the line of a finished stage with its count and duration."""
    from rich.text import Text

    line = Text(no_wrap=True).append(glyph(console, "completed") + " ", STYLES["completed"])
    if name := stage_label(stage.name):
        line.append(pad(truncate(console, name, max(label, 24)), label) + "  ")
    return line.append(f" {glyph(console, 'dot')} ".join(stage_facts(stage)), MUTED)


def stage_facts(stage: Stage) -> list[str]:
    """Return the count and duration of a finished stage."""
    facts = []
    if stage.done:
        facts.append(formatting.units(stage.done, None, stage.unit))
    if stage.started_at and stage.ended_at:
        spent = datetime.fromisoformat(stage.ended_at) - datetime.fromisoformat(stage.started_at)
        facts.append(formatting.duration(spent.total_seconds()))
    return facts


def stage_label(name: str) -> str:
    """Return the name of a stage for people; empty for an unnamed loop, whose name would only repeat the unit."""
    return "" if name == LOOP_STAGE else clean(name, 200)


def _stage_position(job: Job) -> object:
    """Return the position of a job in its stages, to detect messages of earlier stages."""
    stage = open_stage(job.stages)
    return stage.name if stage is not None else len(job.stages)


def state_of(job: Job) -> str:
    """Return the status of a job, or ``stalled``."""
    return "stalled" if job.stalled and not job.is_terminal else job.status.value


def style_of(job: Job) -> str:
    """Return the colour of a job's status, or of a stall."""
    return STYLES[state_of(job)]


GAP: Final = 2


class Row(NamedTuple):
    """The columns beside the bar of one job; unknown ones are empty."""

    percent: str
    counted: str
    rate: str
    left: str


ALL_COLUMNS: Final = ("percent", "counted", "rate", "left")
NARROWER_COLUMNS: Final = (("percent", "counted", "left"), ("percent", "left"), ("percent",))
ALIGNMENT: Final = {"percent": ">", "counted": ">", "rate": ">", "left": "<"}


def progress_bars(console: Console, jobs: Sequence[tuple[str, Job, JobProgress]], width: int) -> list[Text]:
    """Return a labelled line for each job, at most `width` cells wide. Narrow terminals get fewer columns."""
    from rich.text import Text

    labels = [label for label, _, _ in jobs]
    label_width = min(max(map(cells, labels), default=0), max(12, width // 3))
    rows = [Row(*lines.parts(job)[1:]) for _, job, lines in jobs]
    for columns in (ALL_COLUMNS, *NARROWER_COLUMNS):
        sizes = {name: max((cells(getattr(row, name)) for row in rows), default=0) for name in columns}
        bar_width = width - label_width - GAP - sum(size + GAP for size in sizes.values() if size)
        if bar_width >= MIN_BAR_WIDTH:
            break
    drawn: list[Text] = []
    for (label, job, _), row in zip(jobs, rows, strict=True):
        line = Text(pad(truncate(console, label, label_width), label_width + GAP), no_wrap=True, overflow="crop")
        line.append_text(bar(console, job.progress, max(4, min(MAX_BAR_WIDTH, bar_width)), style_of(job)))
        for name, size in sizes.items():
            if size:
                line.append(" " * GAP + pad(getattr(row, name), size, ALIGNMENT[name]))
        line.rstrip()
        drawn.append(line)
    return drawn


class RateMeter:
    """Samples of one job, reset at each stage and each run of it because these have their own rates."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()
        self._stage: tuple[str, str | None] | None = None

    def sample(self, stage: Stage | None, now: float | None = None) -> None:
        """Add a sample."""
        at = time.monotonic() if now is None else now
        name = (stage.name, stage.started_at) if stage is not None else None
        done = stage.done if stage is not None else 0.0
        if name != self._stage or (self._samples and done < self._samples[-1][1]):
            self._samples.clear()
            self._stage = name
        self._samples.append((at, done))
        while at - self._samples[0][0] > RATE_WINDOW and len(self._samples) > 2:
            self._samples.popleft()

    def rate(self) -> float | None:
        """Return the units per second over the window, or None with too few samples."""
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        spent, grown = last[0] - first[0], last[1] - first[1]
        return grown / spent if spent >= MIN_SAMPLE_SECONDS and grown > 0 else None


def eta_range(eta: Eta | None, now: datetime) -> tuple[float, float] | None:
    """Return the earliest and latest remaining seconds of a forecast, or None without a current one."""
    if eta is None:
        return None
    low = (datetime.fromisoformat(eta.earliest) - now).total_seconds()
    high = (datetime.fromisoformat(eta.latest) - now).total_seconds()
    return (max(0.0, low), high) if high > 0 else None


def remaining_range(job: Job, now: datetime | None = None) -> tuple[float, float] | None:
    """Return the remaining seconds of a running job as a range, as of its last update; None if unknown, or if the range is over.

    Between two updates it is not counted down: the worker may be gone, and until its lease ends nothing says so.
    """
    now = now or datetime.now(UTC)
    if job.status != "running" or job.stalled or eta_range(job.eta, now) is None:
        return None
    return eta_range(job.eta, job.updated_at or now)


def as_of(job: Job, now: datetime | None = None) -> str:
    """Return how old the last update of a running job is, if it is not new: `` as of 12 s ago``."""
    now = now or datetime.now(UTC)
    if job.updated_at is None or (now - job.updated_at).total_seconds() < NEWS_SECONDS:
        return ""
    return f" as of {formatting.age(job.updated_at, now)}"


def left_text(job: Job, now: datetime | None = None) -> str:
    """Return the remaining time of a running job with its age, or an empty string if it is unknown."""
    left = remaining_range(job, now)
    return "" if left is None else formatting.time_left(*left) + as_of(job, now)


def start_range(job: Job, now: datetime | None = None) -> tuple[float, float] | None:
    """Return the seconds until a pending job is expected to start as a range, or None."""
    expected = job.expected_start if job.status == "pending" else None
    return None if expected is None else eta_range(expected, now or datetime.now(UTC)) or (0.0, 0.0)
