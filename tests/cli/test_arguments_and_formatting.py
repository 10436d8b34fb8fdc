"""From words to parameters, and from numbers to words."""

from __future__ import annotations

import glob
import io
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click import UsageError
from rich.console import Console

from milepost import InMemoryJobManager
from milepost.cli import formatting
from milepost.cli.arguments import parse_arguments, usage
from milepost.cli.commands.stats import type_stats
from milepost.cli.job_selection import filter_text, is_filter
from milepost.cli.job_types import absolute_paths
from milepost.cli.local_run import job_key, title_of
from milepost.cli.rendering.progress import (
    JobProgress,
    RateMeter,
    left_text,
    progress_bars,
    remaining_range,
    start_range,
)
from milepost.cli.rendering.tables import plain_lines
from milepost.cli.rendering.terminal import bar, make_console
from milepost.core.job import Eta, Job, JobStatus, Stage
from milepost.core.values import Attempt
from milepost.query.filters import KEYS, parse_filter
from milepost.query.statistics import failure_groups

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "index": {"type": "string"},
        "size": {"type": "integer", "default": 64},
        "share": {"type": "number", "default": 0.5},
        "strict": {"type": "boolean", "default": False},
        "model": {"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}], "default": None},
        "options": {"type": "object", "default": {}},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "paths": {"type": "array", "items": {"type": "string"}, "default": []},
    },
    "required": ["index"],
}


@pytest.mark.parametrize(
    ("words", "params"),
    [
        (["docs"], {"index": "docs"}),
        (["docs", "8"], {"index": "docs", "size": 8}),
        (["docs", "share=1", "strict=yes"], {"index": "docs", "share": 1.0, "strict": True}),
        (["index=7"], {"index": "7"}),
        (["docs", "model=b", "limit=none"], {"index": "docs", "model": "b", "limit": None}),
        (["docs", "limit=3", 'options={"a": [1]}'], {"index": "docs", "limit": 3, "options": {"a": [1]}}),
        (["docs", "paths=x", "paths=y=z"], {"index": "docs", "paths": ["x", "y=z"]}),
        (["docs", 'paths=["x", "y"]'], {"index": "docs", "paths": ["x", "y"]}),
    ],
)
def test_arguments_become_parameters(words: list[str], params: dict[str, Any]) -> None:
    assert parse_arguments("reindex", SCHEMA, words) == params


def test_list_parameter_takes_remaining_arguments() -> None:
    schema = {"properties": {"paths": {"type": "array", "items": {"type": "string"}}}, "required": ["paths"]}
    assert parse_arguments("ingestion", schema, ["a", "b=c"[:1], "c"]) == {"paths": ["a", "b", "c"]}
    assert usage("ingestion", schema) == "usage: milepost run ingestion PATHS..."


@pytest.mark.parametrize(
    "words", [[], ["docs", "x"], ["docs", "strict=maybe"], ["docs", "model=c"], ["docs", "options=1"]]
)
def test_invalid_arguments_are_usage_errors(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_arguments("reindex", SCHEMA, words)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0123, "12 ms"), (0.99, "0.9 s"), (9.99, "9.9 s"), (59.99, "59 s"), (60, "1 min 0 s"), (65, "1 min 5 s"), (119.99, "1 min 59 s"),
        (3599.9, "59 min 59 s"), (7260, "2 h 1 min"), (90000, "1 d 1 h"), (-1, "0 ms"),
    ],
)  # fmt: skip
def test_durations_are_rounded_down(seconds: float, said: str) -> None:
    assert formatting.duration(seconds) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (5.2, 6.9, "about 5 to 7 s left"), (0.1, 0.9, "about 1 s left"), (61, 88, "about 60 to 90 s left"),
        (240, 400, "about 4 to 7 min left"), (7300, 9000, "about 2 to 3 h left"), (300000, 400000, "about 3 to 5 d left"),
    ],
)  # fmt: skip
def test_time_left_is_range(low: float, high: float, said: str) -> None:
    assert formatting.time_left(low, high) == said


def test_numbers_sizes_and_plurals() -> None:
    assert formatting.percent(0.9999) == "99%"
    assert formatting.percent(0.29) == "29%"
    assert formatting.units(254, 412, "chunk") == "254/412 chunks"
    assert formatting.units(1, 1, "entity") == "1/1 entity"
    assert formatting.units(812, 3_400_000, "byte") == "812 B of 3.4 MB"
    assert formatting.plural(10_482, "job") == "10,482 jobs"
    plurals = [formatting.plural(count, noun) for count, noun in ((20, "child"), (1, "item"), (2, "batch"), (3, "day"))]
    assert plurals == ["20 children", "1 item", "2 batches", "3 days"]
    as_written = ("Seite", "kB", "%", "\u30da\u30fc\u30b8", "p\u00e1gina", "\u0441\u0442\u0440\u043e\u043a\u0430")
    assert [formatting.pluralize(unit, 3) for unit in as_written] == list(as_written), "they are not English"
    assert [formatting.pluralize(unit, 3) for unit in ("URL", "API call")] == ["URLs", "API calls"]
    assert len(formatting.number(10**400)) == 401 + 133  # more than a float holds; results may have it
    assert [formatting.rate(r, "chunk") for r in (31.4, 3.14, 0.2, 0.001)] == ["31/s", "3.1/s", "12/min", "4/h"]
    now = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
    assert formatting.clock(datetime(2026, 11, 25, 9, 5, 1, tzinfo=UTC), utc=True, now=now) == "09:05:01Z"
    assert formatting.clock(datetime(2026, 11, 24, 9, 5, 1, tzinfo=UTC), utc=True, now=now) == "24 Nov 09:05Z"


def test_completed_job_does_not_show_default_message() -> None:
    job = Job("a", "t", JobStatus.COMPLETED, 1.0, "Job created", datetime.now(UTC))
    assert "Job created" not in plain_lines([job], utc=True)[1]


def test_rate_is_per_stage() -> None:
    pace = RateMeter()
    for second in range(3):
        pace.sample(Stage("fast", done=second * 100.0, total=1000), second)
    assert pace.rate() == pytest.approx(100)
    pace.sample(Stage("slow", done=0, total=100), 3)
    assert pace.rate() is None
    for second in range(1, 11):
        pace.sample(Stage("slow", done=float(second), total=100), 3 + second)
    assert pace.rate() == pytest.approx(1)


def test_rate_is_per_run() -> None:
    """Regression: a job that waited for its next run was shown with a rate, and that run with one that held the pause."""
    lines = JobProgress()
    rows = Stage("Rows", done=100, total=1000, unit="row", started_at="2026-11-25T12:00:00+00:00")
    running = Job("a", "t", JobStatus.RUNNING, 0.1, "", datetime.now(UTC), stages=(rows,))
    lines.pace.sample(rows, 0)
    lines.pace.sample(replace(rows, done=200), 2)
    assert "50/s" in lines.line(running)
    again = replace(rows, done=200, started_at="2026-11-25T12:01:00+00:00")
    lines.pace.sample(again, 60)
    lines.pace.sample(replace(again, done=300), 62)
    assert "50/s" in lines.line(running)
    ended = Attempt(1, "w", datetime.now(UTC), datetime.now(UTC))
    waiting = replace(running, status=JobStatus.PENDING, progress=0.0, attempts=(ended,))
    lines.sample(waiting)
    assert lines.line(waiting) == "Waiting  0%"


def test_forecasts_come_from_record() -> None:
    now = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
    soon = Eta("2026-11-25T12:02:00+00:00", "2026-11-25T12:04:00+00:00")
    running = Job("a", "t", JobStatus.RUNNING, 0.5, "", now, now, eta=soon)
    assert remaining_range(running, now) == (120, 240)
    assert remaining_range(replace(running, eta=None), now) is None
    assert remaining_range(replace(running, stalled="no progress"), now) is None
    assert remaining_range(running, now + timedelta(minutes=5)) is None
    known = replace(running, updated_at=now)
    assert (
        left_text(known, now + timedelta(seconds=9)) == "about 2 to 4 min left"
    )  # not counted down: its worker may be gone
    assert left_text(known, now + timedelta(seconds=100)) == "about 2 to 4 min left as of 1 min ago"
    assert left_text(known, now + timedelta(minutes=5)) == ""
    assert remaining_range(replace(known, updated_at=now + timedelta(seconds=90)), now + timedelta(seconds=95)) == (
        30,
        150,
    )
    waiting = Job("b", "t", JobStatus.PENDING, 0.0, "", now, expected_start=soon)
    assert formatting.start_text(start_range(waiting, now)) == "in about 2 to 4 min"
    assert formatting.start_text(start_range(waiting, now + timedelta(minutes=5))) == "now"
    assert formatting.start_text(start_range(running, now)) == ""


def test_same_command_has_same_unique_key() -> None:
    assert job_key("a", {"x": 1, "y": 2}) == job_key("a", {"y": 2, "x": 1}) != job_key("b", {"x": 1, "y": 2})
    assert len(job_key("a", {"paths": ["p" * 500]})) < 100
    assert title_of({"n": 1, "paths": ["/data/papers/", "b"]}) == "papers and 1 more"


@pytest.mark.parametrize("key", [*(key.replace("NAME", "owner") for key in KEYS), "not.worker"])
def test_each_key_begins_a_filter_and_no_id(key: str) -> None:
    assert is_filter(f"{key}:x")
    assert not is_filter(f"a-{key}:x")
    assert filter_text([f"{key}:out of memory"]) == f'{key}:"out of memory"'
    assert filter_text([f"status:failed {key}:x"]) == f"status:failed {key}:x"


@pytest.mark.parametrize("error", ['no file "x" here', 'one"two', "C\\x y", "a, b", "plain", "it's (odd) *"])
def test_failure_group_filter_matches_its_jobs(error: str) -> None:
    manager = InMemoryJobManager()
    for job_id, text in (("a", error), ("b", "else")):
        manager.create_job(job_id)
        manager.update_job(job_id, status="failed", error=text)
    [group] = [group for group in failure_groups(manager.list_jobs()) if group.job_id == "a"]
    terms = shlex.split(shlex.join(group.q.split(" ", 1)))
    for text in (group.q, filter_text(terms)):
        assert [job.job_id for job in manager.find(parse_filter(text).query).jobs] == ["a"], text


def test_glob_in_working_directory_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "papers [2026]"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    monkeypatch.chdir(folder)
    schema = {"properties": {"paths": {"type": "array"}, "database": {"type": "string", "readOnly": True}}}
    for pattern in ("*.txt", "../papers*/a.txt", "a.txt"):
        [path] = absolute_paths("ingestion", schema, {"paths": [pattern]})["paths"]
        assert [Path(found).name for found in glob.glob(path) or [path]] == ["a.txt"]
    assert absolute_paths("ingestion", schema, {"paths": ["a.txt"]}) == {"paths": [str(folder / "a.txt")]}
    [path] = absolute_paths("ingestion", schema, {"paths": ["*.txt"]})["paths"]
    assert glob.glob(path) == [str(folder / "a.txt")]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (120, "254/412 chunks"),
        (84, "254/412 chunks  about 4 to 5 h left"),
        (60, "61%  about 4 to 5 h left"),
        (30, "61%"),
    ],
)
def test_multiple_bars_align_and_fit(width: int, shown: str) -> None:
    now = datetime.now(UTC)
    eta = Eta((now + timedelta(hours=4.5)).isoformat(), (now + timedelta(hours=4.9)).isoformat())
    embedding, loading = Stage("Embedding", 1, 254, 412, "chunk"), Stage("Loading", 1, 1, 9, "file")
    long = Job("a", "ingestion", JobStatus.RUNNING, 0.61, "", now, stages=(embedding,), eta=eta)
    short = Job("b", "ingestion", JobStatus.RUNNING, 0.05, "", now, stages=(loading,))
    jobs = [("01a21260-0093  ingestion", long, JobProgress()), ("01a2125c-75c4  ingestion", short, JobProgress())]
    first, second = (line.plain for line in progress_bars(make_console(), jobs, width))
    assert len(first) <= width
    assert shown in first
    assert first.index(" 61%") == second.index("  5%")


def test_wide_characters_keep_bar_aligned() -> None:
    now = datetime.now(UTC)
    eta = Eta((now + timedelta(hours=4.5)).isoformat(), (now + timedelta(hours=4.9)).isoformat())
    reading = Stage(
        "\u6587\u66f8\u3092\u8aad\u307f\u8fbc\u3093\u3067\u3044\u307e\u3059", 1, 254, 412, "\u30da\u30fc\u30b8"
    )
    job = Job("a", "ingestion", JobStatus.RUNNING, 0.61, "\u8aad" * 60, now, stages=(reading,), eta=eta)
    console, lines = make_console(), JobProgress()
    lines.sample(job)
    for width in (40, 80, 160):
        line = lines.bar(console, job, width)
        assert line.cell_len <= width
        assert line.plain.endswith("left" if width > 60 else "61%")
        [several] = progress_bars(console, [("id", job, lines)], width)
        assert several.cell_len <= width
        assert "61%" in several.plain
        with console.capture() as drawn:
            console.print(lines.block(console, job, width))
        said = drawn.get().splitlines()[-1].rstrip()
        assert said.endswith("\u8aad" if width > 122 else "\u2026")


@pytest.mark.parametrize("stages", [(), (Stage("One", done=1, total=1, ended_at="2026-11-25T12:00:00+00:00"),)])
def test_message_uses_full_width_without_stage(stages: tuple[Stage, ...]) -> None:
    console, lines = make_console(), JobProgress()
    message = "Reading page 16 of the annual report of the year 1843, which is about the Analytical Engine"
    job = Job("a", "talk", JobStatus.RUNNING, 0.5, message, datetime.now(UTC), stages=stages)
    lines.sample(job)

    def drawn(width: int, job: Job) -> list[str]:
        with console.capture() as text:
            console.print(lines.block(console, job, width))
        return [line.rstrip() for line in text.get().splitlines()]

    assert drawn(160, job)[-1] == f"  {message}"
    assert drawn(80, job)[-1] == f"  {message[:77]}…"
    assert "Working" in drawn(80, job)[-2]
    ended = drawn(80, replace(job, status=JobStatus.FAILED))
    assert message[:10] not in "".join(ended)
    assert "talk" in ended[-1]


def test_stats_count_no_earlier_run_as_wait() -> None:
    """Regression: the time of a run that was lost was shown as time in the queue, and so was a delay that the caller chose."""
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    last = begun + timedelta(seconds=100)
    lost = Attempt(1, "w", begun + timedelta(seconds=2), begun + timedelta(seconds=90))
    job = Job("a", "t", JobStatus.COMPLETED, 1.0, "", begun, last, last + timedelta(seconds=7), attempt=1)
    (of_type,) = type_stats([replace(job, attempts=(lost, Attempt(1, "w", last)))])
    (delayed,) = type_stats([replace(job, not_before=begun + timedelta(seconds=60))])
    assert (of_type.waited, of_type.ran, delayed.waited) == ([12.0], [7.0], [40.0])


def test_stats_are_by_nearest_rank() -> None:
    """The median of an even number of jobs was the upper one of the middle."""
    begun = datetime(2026, 1, 1, tzinfo=UTC)

    def shown(count: int) -> tuple[float, float]:
        ends = [begun + timedelta(seconds=n) for n in range(1, count + 1)]
        jobs = [Job(str(end), "t", JobStatus.COMPLETED, 1.0, "", begun, begun, end, attempt=1) for end in ends]
        (of_type,) = type_stats(jobs)
        found = of_type.to_dict()
        return found["ran_p50"], found["ran_p95"]

    assert [shown(count) for count in (1, 2, 3, 20, 21)] == [(1, 1), (1, 2), (2, 3), (10, 19), (11, 20)]


@pytest.mark.parametrize("colours", [{"no_color": True}, {"color_system": None}])
def test_bar_without_colour_shows_its_rest_by_other_characters(colours: dict[str, Any]) -> None:
    """Regression: with NO_COLOR the bar of a job at 0 % looked full, since rich then has a colour system that it does not use."""
    console = Console(file=io.StringIO(), force_terminal=True, **{"color_system": "standard", **colours})
    assert bar(console, 0.0, 4, "red").plain == "····"
    assert bar(console, 0.5, 4, "red").plain == "━━··"
