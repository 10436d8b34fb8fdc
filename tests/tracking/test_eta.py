"""Ranges of finish times: what is learned, what is said, and when nothing is said. On every store."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from milepost import JobManager
from milepost.core.encoding import to_json
from milepost.core.errors import StoreUnavailable
from milepost.core.job import Job
from milepost.stores.driving import drive
from milepost.stores.memory import MemoryStore
from milepost.stores.protocol import Item
from milepost.tracking.digests import BYTES, RUNS_KEPT, Digests, decoded, encoded, key_of, read_lessons
from milepost.tracking.eta import Left, carried, left, spread
from milepost.tracking.outlook import Outlook
from milepost.tracking.timeline import PARTS_MAX, STEPS, Lesson, PartLesson, Timeline
from tests.waiting import PATIENCE, until

BEGIN = 1_800_000_000.0


def at(seconds: float) -> str:
    return datetime.fromtimestamp(BEGIN + seconds, UTC).isoformat()


def stage(name: str, done: float, total: float | None, begins: float, ends: float | None = None, **more: Any) -> dict[str, Any]:  # fmt: skip
    shown = {"name": name, "done": done, "started_at": at(begins), **more}
    shown |= {"total": total} if total is not None else {}
    return shown | ({"ended_at": at(ends)} if ends is not None else {})


def report(*stages: dict[str, Any], fraction: float = 0.0) -> dict[str, str]:
    return {"progress": repr(fraction), "stages": to_json(list(stages), "stages")}


def two_stages(pace: float, curve: Callable[[float], float] = lambda share: share) -> Lesson:
    """A run of 10 s of reading and 100 s of embedding, times a pace; `curve` is when a share of the second is done."""
    timeline = Timeline(BEGIN)
    for tenth in range(11):
        timeline.add(report(stage("Read", tenth, 10, 0)), BEGIN + tenth * pace)
    read = stage("Read", 10, 10, 0, 10 * pace)
    for tenth in range(11):
        now = (10 + 100 * curve(tenth / 10)) * pace
        timeline.add(report(read, stage("Embed", tenth * 50, 500, 10 * pace)), BEGIN + now)
    return timeline.lesson(BEGIN + 110 * pace)


# --- the arithmetic ---


def test_a_timeline_keeps_when_each_tenth_was_done() -> None:
    lesson = two_stages(1.0, lambda share: share**2)
    assert [(one.name, one.total, one.span) for one in lesson.parts] == [("Read", 10, 10), ("Embed", 500, 100)]
    assert lesson.parts[1].curve == pytest.approx([100 * (tenth / 10) ** 2 for tenth in range(1, 11)], abs=0.01)
    assert (lesson.seconds, lesson.head) == (110, 0)


def test_stages_within_a_counted_one_are_counted_in_it_and_those_of_one_name_are_told_apart() -> None:
    timeline = Timeline(BEGIN)
    whole = stage("Documents", 1, 3, 0)
    timeline.add(report(whole, stage("Embed", 4, 9, 1, parent="Documents")), BEGIN + 2)
    assert [part.name for part in timeline.parts] == ["Documents"]
    timeline.add(report(whole | {"ended_at": at(3)}, stage("Pass", 0, 2, 3), stage("Pass", 0, 2, 5)), BEGIN + 6)
    assert [part.name for part in timeline.parts] == ["Documents", "Pass", "Pass #2"]


def test_a_run_of_too_many_stages_is_measured_as_a_whole() -> None:
    timeline = Timeline(BEGIN)
    for number in range(1, PARTS_MAX + 2):
        stages = [stage(f"Page {n}", 0, 1, n) for n in range(number)]
        timeline.add(report(*stages, fraction=number / 20), BEGIN + number)
    lesson = timeline.lesson(BEGIN + 20)
    assert [(one.name, one.span) for one in lesson.parts] == [("", 20)]
    assert lesson.parts[0].curve[4] == pytest.approx(10, abs=0.1)


def test_what_remained_of_earlier_runs_counts_at_the_same_place() -> None:
    """The second half of a stage takes three times the first: the rate alone would be wrong by that."""
    lessons = [two_stages(0.9 + number / 50, lambda share: share**2) for number in range(12)]
    timeline = Timeline(BEGIN)
    read = stage("Read", 10, 10, 0, 10)
    for tenth in range(6):
        timeline.add(report(read, stage("Embed", tenth * 50, 500, 10)), BEGIN + 10 + 100 * (tenth / 10) ** 2)
    found = left(timeline, lessons)
    assert found is not None
    assert found.low < 75 < found.high < 90


def test_the_own_pace_counts_too() -> None:
    lessons = [two_stages(pace) for pace in (0.5, 0.6, 0.8, 1.0, 1.1, 1.3, 1.6, 1.9, 2.2, 2.6)]
    timeline = Timeline(BEGIN)
    for tenth in range(11):
        timeline.add(report(stage("Read", tenth, 10, 0)), BEGIN + tenth * 2)
    found = left(timeline, lessons)
    assert found is not None
    assert found.low == pytest.approx(200, rel=0.15)
    assert found.high == pytest.approx(200, rel=0.15)


def test_the_exponent_is_learned() -> None:
    xs, ys = [10.0, 20.0, 40.0, 80.0], [100.0, 200.0, 400.0, 800.0]
    assert carried(40.0, xs, ys) == pytest.approx([400] * 4, rel=0.1)
    assert carried(40.0, xs, [200.0, 200.0, 200.0, 200.0]) == pytest.approx([200] * 4, rel=0.1)


def test_few_runs_make_a_wide_range() -> None:
    one, two, many = spread([100.0]), spread([100.0, 100.0]), spread([100.0] * 12)
    assert one == Left(60, 140)
    assert one.low < two.low < many.low == 100 == many.high < two.high < one.high


def test_the_first_run_of_a_type_has_its_own_rate() -> None:
    timeline = Timeline(BEGIN)
    for second in range(51):
        timeline.add({"progress": repr(second / 100)}, BEGIN + second)
    found = left(timeline, ())
    assert found is not None
    assert found.low < 50 < found.high < 100


def test_nothing_is_said_where_nobody_knows_what_is_to_come() -> None:
    timeline = Timeline(BEGIN)
    for tenth in range(10):
        timeline.add(report(stage("Read", tenth, 10, 0), fraction=tenth / 20), BEGIN + tenth)
    assert left(timeline, ()) is None
    assert left(timeline, (), planned=True) is not None
    silent = Timeline(BEGIN)
    silent.add({"progress": "0.0"}, BEGIN + 100)
    assert left(silent, ()) is None


def test_a_silent_stage_counts_on_those_that_lasted_longer() -> None:
    def of(seconds: float) -> Lesson:
        return Lesson(seconds, 0.0, (PartLesson("Build", None, seconds, (), seconds),))

    timeline = Timeline(BEGIN)
    for second in range(31):
        timeline.add(report(stage("Build", 0, None, 0)), BEGIN + second)
    found = left(timeline, [of(seconds) for seconds in (10.0, 20.0, 40.0, 50.0)])
    assert found is not None
    assert found.low < 10 < 20 < found.high < 40
    assert left(timeline, [of(10.0), of(20.0)]) is None


def test_a_run_that_was_taken_up_again_is_compared_from_where_it_begins() -> None:
    lessons = [two_stages(1.0) for _ in range(10)]
    timeline = Timeline(BEGIN)
    for tenth in range(5, 9):
        timeline.add(report(stage("Embed", tenth * 50, 500, 0)), BEGIN + (tenth - 5) * 20)
    found = left(timeline, lessons, resumed=True)
    assert found is not None
    assert found.low == pytest.approx(40, rel=0.15)
    assert found.high == pytest.approx(40, rel=0.15)


class Known:
    """A run, for an outlook."""

    job_type = "demo"
    resumed = False
    planned = False


def test_a_range_is_told_again_only_when_it_has_moved() -> None:
    digests = Digests(MemoryStore(blocking=True))
    for _ in range(12):
        digests.learn("demo", two_stages(1.0))
    drive(digests.tend(spacing=0))
    outlook = Outlook(Known(), BEGIN, digests, 60.0)
    read = stage("Read", 10, 10, 0, 10)
    told = set()
    for second in range(10, 60):
        said = outlook.look(report(read, stage("Embed", (second - 10) * 5, 500, 10)), BEGIN + second)
        told.add(said["eta"])
    assert 1 <= len(told) <= 3, told


# --- the digest ---


def test_a_digest_is_small_and_gives_back_what_it_was_given() -> None:
    lessons = tuple(two_stages(1 + number / 10) for number in range(RUNS_KEPT))
    text = encoded(lessons)
    assert len(text) < 250 * RUNS_KEPT
    back = decoded(text)
    assert [lesson.seconds for lesson in back] == pytest.approx([lesson.seconds for lesson in lessons], rel=1e-3)
    assert back[3].parts[1].curve == pytest.approx(lessons[3].parts[1].curve, rel=0.02)
    many = PartLesson("x" * 180, 1.5, 1234.567, tuple(float(n) for n in range(STEPS)), 12.25)
    large = [
        Lesson(9.0, 0.5, tuple(many._replace(name=f"{n} {m} {many.name}") for m in range(12))) for n in range(RUNS_KEPT)
    ]
    assert len(encoded(large).encode()) <= BYTES
    assert decoded(encoded(large))[-1].parts[0].name == large[-1].parts[0].name


@pytest.mark.parametrize(
    "text", ["", "{}", '{"form":2,"names":[],"runs":[]}', '{"form":1,"names":[],"runs":[[1]]}', "[]"]
)
def test_what_cannot_be_read_is_nothing(text: str) -> None:
    assert decoded(text) == ()


def test_two_processes_that_learn_at_once_lose_nothing() -> None:
    class Overtaken(MemoryStore):
        """Between a read and the write after it another process writes."""

        other: Digests | None = None

        async def shelf_get(self, key: str) -> Item | None:
            item = await super().shelf_get(key)
            if self.other is not None:
                other, self.other = self.other, None
                await other.tend(spacing=0)
            return item

    store = Overtaken(blocking=True)
    one, two = Digests(store), Digests(store)
    one.learn("demo", two_stages(1.0))
    two.learn("demo", two_stages(2.0))
    store.other = two
    drive(one.tend(spacing=0))
    assert sorted(round(lesson.seconds) for lesson in drive(read_lessons(store, "demo"))) == [110, 220]


def test_what_a_store_did_not_take_is_written_later() -> None:
    class Away(MemoryStore):
        away = True

        async def shelf_put(self, *args: Any, **kwargs: Any) -> int | None:
            if self.away:
                raise StoreUnavailable("away")
            return await super().shelf_put(*args, **kwargs)

    store = Away(blocking=True)
    digests = Digests(store)
    digests.learn("demo", two_stages(1.0))
    with pytest.raises(StoreUnavailable):
        drive(digests.tend(spacing=0))
    store.away = False
    drive(digests.tend(spacing=0))
    assert len(drive(read_lessons(store, "demo"))) == 1


def test_the_store_is_asked_for_nothing_while_there_is_nothing_to_know() -> None:
    class Counting(MemoryStore):
        asked = written = 0

        async def shelf_get(self, key: str) -> Item | None:
            self.asked += 1
            return await super().shelf_get(key)

        async def shelf_put(self, *args: Any, **kwargs: Any) -> int | None:
            self.written += 1
            return await super().shelf_put(*args, **kwargs)

    store = Counting(blocking=True)
    digests = Digests(store)
    for _ in range(100):
        drive(digests.tend())
    assert store.asked == 0
    for _ in range(100):
        drive(digests.tend(["demo"]))
    assert store.asked == 1
    for _ in range(100):
        digests.learn_short("demo", 0.01)
        drive(digests.tend(["demo"]))
    assert store.written == 1
    assert len(drive(read_lessons(store, "demo"))) == 1


# --- through a manager, on every store ---


def lessons_of(manager: JobManager, job_type: str) -> tuple[Lesson, ...]:
    return drive(read_lessons(manager.store, job_type))


def seen(manager: JobManager, job_id: str) -> Job:
    job = manager.get_job(job_id)
    assert job is not None
    return job


def test_a_run_learns_from_those_before_it(manager: JobManager) -> None:
    for _ in range(2):
        with manager.track("demo") as run:
            with run.stage("Read"):
                time.sleep(0.1)
            for _ in run.each(range(10), stage="Work"):
                time.sleep(0.02)
    until(lambda: len(lessons_of(manager, "demo")) == 2)
    with manager.track("demo") as run:
        with run.stage("Read"):
            pass
        # The stages have no weights: only who knows the runs before can tell what is to come.
        with run.stage("Work", total=1000) as work:

            def expected() -> Any:
                work.advance(1)
                return seen(manager, run.job_id).eta

            eta = until(expected)
            assert datetime.fromisoformat(eta.earliest) <= datetime.fromisoformat(eta.latest)
            assert datetime.fromisoformat(eta.latest) > datetime.now(UTC) - timedelta(seconds=1)
    assert seen(manager, run.job_id).eta is None
    until(lambda: len(lessons_of(manager, "demo")) == 3)


def test_only_whole_runs_that_completed_teach(manager: JobManager) -> None:
    def fails() -> None:
        with manager.track("demo", key="k") as run:
            run.checkpoint({"at": 1})
            raise ValueError(run.job_id)

    with pytest.raises(ValueError, match="-") as failed:
        fails()
    with manager.track("demo", key="k") as again:
        assert (again.resumed, again.job_id) == (True, str(failed.value))
        time.sleep(0.1)  # so long that the pulse has looked at it
    with manager.track("demo"):
        pass
    until(lambda: lessons_of(manager, "demo"))
    assert len(lessons_of(manager, "demo")) == 1


def test_a_process_keeps_what_it_learned_when_it_ends_at_once(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    program = f"""
        from milepost import JobManager
        with JobManager({url!r}).track("demo") as run:
            for _ in run.each(range(10)):
                pass
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=PATIENCE)
    manager = JobManager(url)
    try:
        assert len(lessons_of(manager, "demo")) == 1
        assert drive(manager.store.shelf_get(key_of("demo"))) is not None
    finally:
        manager.close()
