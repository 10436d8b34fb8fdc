"""ETA ranges: the history they are learned from, their values, and when there is none."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from milepost import JobManager
from milepost.core.errors import StoreUnavailableError
from milepost.core.serialization import to_json
from milepost.run.forecast.eta import Remaining, carry_over, remaining, spread
from milepost.run.forecast.forecast import Forecast
from milepost.run.forecast.history import (
    MAX_BYTES,
    MAX_PARTS,
    MAX_RUNS,
    STEPS,
    PartProfile,
    RunHistory,
    RunProfile,
    Timeline,
    decode_history,
    encode_history,
    history_key,
    read_profiles,
)
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import KeyValue
from milepost.stores.sync_bridge import run_sync
from tests.waiting import PATIENCE, current, until

pytestmark = pytest.mark.timing

BEGIN = 1_800_000_000.0


def at(seconds: float) -> str:
    return datetime.fromtimestamp(BEGIN + seconds, UTC).isoformat()


def stage(name: str, done: float, total: float | None, begins: float, ends: float | None = None, **more: Any) -> dict[str, Any]:  # fmt: skip
    shown = {"name": name, "done": done, "started_at": at(begins), **more}
    shown |= {"total": total} if total is not None else {}
    return shown | ({"ended_at": at(ends)} if ends is not None else {})


def report(*stages: dict[str, Any], fraction: float = 0.0) -> dict[str, str]:
    return {"progress": repr(fraction), "stages": to_json(list(stages), "stages")}


def two_stages(pace: float, curve: Callable[[float], float] = lambda share: share) -> RunProfile:
    """Return a profile of 10 s reading and 100 s embedding, times `pace`; `curve` is the progress of the second stage
    over time.
    """
    timeline = Timeline(BEGIN)
    for tenth in range(11):
        timeline.add(report(stage("Read", tenth, 10, 0)), BEGIN + tenth * pace)
    read = stage("Read", 10, 10, 0, 10 * pace)
    for tenth in range(11):
        now = (10 + 100 * curve(tenth / 10)) * pace
        timeline.add(report(read, stage("Embed", tenth * 50, 500, 10 * pace)), BEGIN + now)
    return timeline.profile(BEGIN + 110 * pace)


# --- the arithmetic ---


def test_profile_keeps_time_of_each_tenth() -> None:
    profile = two_stages(1.0, lambda share: share**2)
    assert [(one.name, one.total, one.span) for one in profile.parts] == [("Read", 10, 10), ("Embed", 500, 100)]
    assert profile.parts[1].curve == pytest.approx([100 * (tenth / 10) ** 2 for tenth in range(1, 11)], abs=0.01)
    assert (profile.seconds, profile.head) == (110, 0)


def test_nested_stages_merge_and_repeated_names_are_numbered() -> None:
    timeline = Timeline(BEGIN)
    whole = stage("Documents", 1, 3, 0)
    timeline.add(report(whole, stage("Embed", 4, 9, 1, parent="Documents")), BEGIN + 2)
    assert [part.name for part in timeline.parts] == ["Documents"]
    timeline.add(report(whole | {"ended_at": at(3)}, stage("Pass", 0, 2, 3), stage("Pass", 0, 2, 5)), BEGIN + 6)
    assert [part.name for part in timeline.parts] == ["Documents", "Pass", "Pass #2"]


def test_run_with_too_many_stages_is_measured_as_whole() -> None:
    timeline = Timeline(BEGIN)
    for number in range(1, MAX_PARTS + 2):
        stages = [stage(f"Page {n}", 0, 1, n) for n in range(number)]
        timeline.add(report(*stages, fraction=number / 20), BEGIN + number)
    profile = timeline.profile(BEGIN + 20)
    assert [(one.name, one.span) for one in profile.parts] == [("", 20)]
    assert profile.parts[0].curve[4] == pytest.approx(10, abs=0.1)


def test_eta_uses_rest_of_earlier_runs_at_same_position() -> None:
    """The second half of the stage takes three times as long as the first, so the own rate alone would be wrong."""
    profiles = [two_stages(0.9 + number / 50, lambda share: share**2) for number in range(12)]
    timeline = Timeline(BEGIN)
    read = stage("Read", 10, 10, 0, 10)
    for tenth in range(6):
        timeline.add(report(read, stage("Embed", tenth * 50, 500, 10)), BEGIN + 10 + 100 * (tenth / 10) ** 2)
    found = remaining(timeline, profiles)
    assert found is not None
    assert found.low < 75 < found.high < 90


def test_eta_uses_own_pace() -> None:
    profiles = [two_stages(pace) for pace in (0.5, 0.6, 0.8, 1.0, 1.1, 1.3, 1.6, 1.9, 2.2, 2.6)]
    timeline = Timeline(BEGIN)
    for tenth in range(11):
        timeline.add(report(stage("Read", tenth, 10, 0)), BEGIN + tenth * 2)
    found = remaining(timeline, profiles)
    assert found is not None
    assert found.low == pytest.approx(200, rel=0.15)
    assert found.high == pytest.approx(200, rel=0.15)


def test_eta_exponent_is_fitted() -> None:
    xs, ys = [10.0, 20.0, 40.0, 80.0], [100.0, 200.0, 400.0, 800.0]
    assert carry_over(40.0, xs, ys) == pytest.approx([400] * 4, rel=0.1)
    assert carry_over(40.0, xs, [200.0, 200.0, 200.0, 200.0]) == pytest.approx([200] * 4, rel=0.1)


def test_eta_of_run_slower_than_all_earlier_ones_follows_its_speed() -> None:
    """Regression: the rest of a run that was many times slower than before was as short as in the earlier runs."""
    xs, ys = [1.0, 2.0, 4.0, 8.0], [10.0, 11.0, 9.0, 10.0]  # the time so far says nothing about the rest
    assert carry_over(8.0, xs, ys) == pytest.approx([10] * 4, rel=0.15)
    assert carry_over(80.0, xs, ys) == pytest.approx([100] * 4, rel=0.2)
    assert carry_over(0.5, xs, ys) == pytest.approx([6.7] * 4, rel=0.2)


def test_few_runs_make_wide_range() -> None:
    one, two, many = spread([100.0]), spread([100.0, 100.0]), spread([100.0] * 12)
    assert one == Remaining(60, 140)
    assert one.low < two.low < many.low == 100 == many.high < two.high < one.high


def test_first_run_of_type_uses_own_rate() -> None:
    timeline = Timeline(BEGIN)
    for second in range(51):
        timeline.add({"progress": repr(second / 100)}, BEGIN + second)
    found = remaining(timeline, ())
    assert found is not None
    assert found.low < 50 < found.high < 100


def test_eta_is_none_if_remaining_work_is_unknown() -> None:
    timeline = Timeline(BEGIN)
    for tenth in range(10):
        timeline.add(report(stage("Read", tenth, 10, 0), fraction=tenth / 20), BEGIN + tenth)
    assert remaining(timeline, ()) is not None, "a first stage of known total is taken to be the whole"
    both = report(stage("Read", 10, 10, 0, 10), stage("Write", 0, 10, 10), fraction=0.5)
    timeline.add(both, BEGIN + 10)
    assert remaining(timeline, ()) is None
    assert remaining(timeline, (), planned=True) is not None
    silent = Timeline(BEGIN)
    silent.add({"progress": "0.0"}, BEGIN + 100)
    assert remaining(silent, ()) is None


def test_eta_of_silent_stage_uses_longer_runs() -> None:
    def of(seconds: float) -> RunProfile:
        return RunProfile(seconds, 0.0, (PartProfile("Build", None, seconds, (), seconds),))

    timeline = Timeline(BEGIN)
    for second in range(31):
        timeline.add(report(stage("Build", 0, None, 0)), BEGIN + second)
    found = remaining(timeline, [of(seconds) for seconds in (10.0, 20.0, 40.0, 50.0)])
    assert found is not None
    assert found.low < 10 < 20 < found.high < 40
    assert remaining(timeline, [of(10.0), of(20.0)]) is None


def test_eta_of_resumed_run_is_compared_from_its_start() -> None:
    profiles = [two_stages(1.0) for _ in range(10)]
    timeline = Timeline(BEGIN)
    for tenth in range(5, 9):
        timeline.add(report(stage("Embed", tenth * 50, 500, 0)), BEGIN + (tenth - 5) * 20)
    found = remaining(timeline, profiles, resumed=True)
    assert found is not None
    assert found.low == pytest.approx(40, rel=0.15)
    assert found.high == pytest.approx(40, rel=0.15)


class Known:
    """A run for a forecast."""

    job_type = "demo"
    resumed = False
    _planned = False


def test_eta_is_reported_only_when_changed() -> None:
    history = RunHistory(MemoryStore(blocking=True))
    for _ in range(12):
        history.record_profile("demo", two_stages(1.0))
    run_sync(history.sync(spacing=0))
    forecast = Forecast(Known(), BEGIN, history, 60.0)
    read = stage("Read", 10, 10, 0, 10)
    etas = set()
    for second in range(10, 60):
        log_lines = forecast.tick(report(read, stage("Embed", (second - 10) * 5, 500, 10)), BEGIN + second)
        etas.add(log_lines["eta"])
    assert 1 <= len(etas) <= 3, etas


# --- the digest ---


def test_history_is_small_and_round_trips() -> None:
    profiles = tuple(two_stages(1 + number / 10) for number in range(MAX_RUNS))
    text = encode_history(profiles)
    assert len(text) < 250 * MAX_RUNS
    back = decode_history(text)
    assert [profile.seconds for profile in back] == pytest.approx([profile.seconds for profile in profiles], rel=1e-3)
    assert back[3].parts[1].curve == pytest.approx(profiles[3].parts[1].curve, rel=0.02)
    many = PartProfile("x" * 180, 1.5, 1234.567, tuple(float(n) for n in range(STEPS)), 12.25)
    large = [
        RunProfile(9.0, 0.5, tuple(many._replace(name=f"{n} {m} {many.name}") for m in range(12)))
        for n in range(MAX_RUNS)
    ]
    assert len(encode_history(large).encode()) <= MAX_BYTES
    assert decode_history(encode_history(large))[-1].parts[0].name == large[-1].parts[0].name


@pytest.mark.parametrize(
    "text", ["", "{}", '{"form":2,"names":[],"runs":[]}', '{"form":1,"names":[],"runs":[[1]]}', "[]"]
)
def test_unreadable_history_is_ignored(text: str) -> None:
    assert decode_history(text) == ()


def test_concurrent_history_writes_lose_nothing() -> None:
    class Overtaken(MemoryStore):
        """A store where another process writes between a read and the next write."""

        other: RunHistory | None = None

        async def kv_get(self, key: str) -> KeyValue | None:
            item = await super().kv_get(key)
            if self.other is not None:
                other, self.other = self.other, None
                await other.sync(spacing=0)
            return item

    store = Overtaken(blocking=True)
    one, two = RunHistory(store), RunHistory(store)
    one.record_profile("demo", two_stages(1.0))
    two.record_profile("demo", two_stages(2.0))
    store.other = two
    run_sync(one.sync(spacing=0))
    assert sorted(round(profile.seconds) for profile in run_sync(read_profiles(store, "demo"))) == [110, 220]


def test_history_is_written_later_after_outage() -> None:
    class Away(MemoryStore):
        away = True

        async def kv_put(self, *args: Any, **kwargs: Any) -> int | None:
            if self.away:
                raise StoreUnavailableError("away")
            return await super().kv_put(*args, **kwargs)

    store = Away(blocking=True)
    history = RunHistory(store)
    history.record_profile("demo", two_stages(1.0))
    with pytest.raises(StoreUnavailableError):
        run_sync(history.sync(spacing=0))
    store.away = False
    run_sync(history.sync(spacing=0))
    assert len(run_sync(read_profiles(store, "demo"))) == 1


def test_history_sends_no_request_without_need() -> None:
    class Counting(MemoryStore):
        asked = written = 0

        async def kv_get(self, key: str) -> KeyValue | None:
            self.asked += 1
            return await super().kv_get(key)

        async def kv_put(self, *args: Any, **kwargs: Any) -> int | None:
            self.written += 1
            return await super().kv_put(*args, **kwargs)

    store = Counting(blocking=True)
    history = RunHistory(store)
    for _ in range(100):
        run_sync(history.sync())
    assert store.asked == 0
    for _ in range(100):
        run_sync(history.sync(["demo"]))
    assert store.asked == 1
    for _ in range(100):
        history.record_short_run("demo", 0.01)
        run_sync(history.sync(["demo"]))
    assert store.written == 1
    assert len(run_sync(read_profiles(store, "demo"))) == 1


# --- through a manager, on every store ---


def profiles_of(manager: JobManager, job_type: str) -> tuple[RunProfile, ...]:
    return run_sync(read_profiles(manager.store, job_type))


def test_forecast_uses_earlier_runs(manager: JobManager) -> None:
    for _ in range(2):
        with manager.track("demo") as run:
            with run.stage("Read"):
                time.sleep(0.1)
            for _ in run.each(range(10), stage="Work"):
                time.sleep(0.02)
    until(lambda: len(profiles_of(manager, "demo")) == 2)
    with manager.track("demo") as run:
        with run.stage("Read"):
            pass
        # The stages have no weights: only who knows the runs before can tell what is to come.
        with run.stage("Work", total=1000) as work:

            def expected() -> Any:
                work.advance(1)
                return current(manager, run.job_id).eta

            eta = until(expected)
            assert datetime.fromisoformat(eta.earliest) <= datetime.fromisoformat(eta.latest)
            assert datetime.fromisoformat(eta.latest) > current(manager, run.job_id).started_at
    assert current(manager, run.job_id).eta is None
    until(lambda: len(profiles_of(manager, "demo")) == 3)


def test_history_keeps_only_complete_runs(manager: JobManager) -> None:
    def fails() -> None:
        with manager.track("demo", unique_key="k") as run:
            run.checkpoint({"at": 1})
            raise ValueError(run.job_id)

    with pytest.raises(ValueError, match="-") as failed:
        fails()
    with manager.track("demo", unique_key="k") as again:
        assert (again.resumed, again.job_id) == (True, str(failed.value))
        time.sleep(0.1)  # long enough for a beat
    with manager.track("demo"):
        pass
    until(lambda: profiles_of(manager, "demo"))
    assert len(profiles_of(manager, "demo")) == 1


def test_history_is_written_at_exit(tmp_path: Any) -> None:
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
        assert len(profiles_of(manager, "demo")) == 1
        assert run_sync(manager.store.kv_get(history_key("demo"))) is not None
    finally:
        manager.close()
