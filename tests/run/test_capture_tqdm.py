"""Capture of tqdm bars as stages of the run, also in its threads."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from typing import Any

import pytest
from tqdm import tqdm, trange
from tqdm.asyncio import tqdm as async_tqdm

from milepost import AsyncJobManager, JobCancelled, JobManager, Settings
from milepost.run.capture.tqdm import MAX_BARS
from milepost.tqdm import tqdm as own_tqdm
from tests.run.conftest import Track, log_lines, names
from tests.run.tqdm_library import embed, log, nowhere
from tests.waiting import until


@pytest.fixture
def options(options: Settings) -> Settings:
    """Return settings that capture what is not captured by default."""
    return replace(options, capture=ALL)


@pytest.fixture
def track(track: Track) -> Track:
    """Return the function `track` with these settings."""

    def make(**options: Any) -> Any:
        return track(**{"capture": ALL, **options})

    return make


ALL = "logging,tqdm,threads"

# --- bars ----------------------------------------------------------------------------------------------------------


def test_bar_of_library_becomes_stage_of_job(manager: JobManager) -> None:
    half = threading.Event()
    proceed = threading.Event()

    def look(chunk: int) -> None:
        if chunk == 6:
            half.set()
            assert proceed.wait(60)

    def stages() -> list[tuple[Any, ...]]:
        job = manager.get_job(run.job_id)
        assert job is not None
        return [(s.name, s.done, s.total, s.unit, s.ended_at is None) for s in job.stages]

    def watch() -> None:
        assert half.wait(60)
        until(lambda: stages() == [("Embedding", 6, 12, "chunk", True)])
        proceed.set()

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        with manager.track("test") as run:
            assert embed(range(12), look) == 12
        watching.result()
    assert stages() == [("Embedding", 12, 12, "chunk", False)]
    lines = [line for event in manager.events(run.job_id) if event.kind == "log" for line in event.data["lines"]]
    assert [(line["level"], line["text"]) for line in lines] == [("warning", "embedded 12 chunks")]


def test_bar_that_rarely_draws_is_counted_exactly(track: Track) -> None:
    seen = []
    with track() as run:
        embed(range(50), lambda _: seen.append(run.stages[0].done), mininterval=3600, miniters=10**9)
    assert seen == list(range(50))


def test_nested_bars_become_nested_stages(track: Track) -> None:
    with track() as run:
        with run.stage("Own"):
            for epoch in trange(2, desc="Epoch", file=nowhere()):
                for _ in trange(3, desc="Batch", file=nowhere(), leave=False):
                    assert names(run)[:3] == [("Own", None), ("Epoch", "Own"), ("Batch", "Epoch")]
                    assert run._stage_name == "Batch"
                with run.stage(f"Eval {epoch}"):
                    embed(range(2))
        assert [stage.done for stage in run.stages if stage.name in ("Epoch", "Batch")] == [2, 3]
        assert ("Embedding", "Eval 1") in names(run)
        assert run._stage_name is None
    assert all(stage.ended_at for stage in run.stages)


def test_recurring_bar_is_one_stage(track: Track) -> None:
    with track() as run:
        for document in run.each(range(200)):
            embed(range(2), desc="Batches")
            assert names(run) == [("items", None), ("Batches", "items")]
            assert run.fraction == pytest.approx(document / 200)
        for number in range(3 * MAX_BARS):
            embed(range(2), desc=f"Part {number}")
        assert len(run.stages) <= MAX_BARS + 2


def test_recurring_bar_ends_with_what_is_around_it(track: Track) -> None:
    with track() as run:
        for epoch in trange(2, desc="Epoch", file=nowhere()):
            embed(range(2), desc="Batch")
            embed(range(2), desc="Check")
            recurs = epoch == 1
            assert [stage.name for stage in run.stages if stage.ended_at] == ([] if recurs else ["Batch", "Check"])
        ends = {stage.name: stage.ended_at for stage in run.stages}
        assert None not in ends.values()
        assert ends["Batch"] <= ends["Check"] <= ends["Epoch"]


def test_recurring_bar_ends_when_next_stage_begins(track: Track) -> None:
    with track() as run:
        for _ in range(2):
            embed(range(2), desc="Batch")
        assert run.stages[0].ended_at is None
        with run.stage("Writing"):
            batch, writing = run.stages
            assert batch.ended_at is not None
            assert batch.ended_at <= writing.started_at
        embed(range(3), desc="Batch")
        assert (run.stages[0].done, run.stages[0].ended_at) == (3, None)


def test_bars_set_progress_only_if_run_reports_none(track: Track) -> None:
    with track() as run:
        embed(range(4))
        assert run.fraction == 1.0  # the first loop is taken to be the whole
    with track() as run:
        run.progress(0.1)
        embed(range(4))
        assert run.fraction == 0.1
    with track() as run:
        with run.stage("Loading", weight=1):
            embed(range(4), lambda n: seen.append(run.fraction)) if (seen := []) is None else None
            embed(range(4), lambda n: seen.append(run.fraction))
        embed(range(4))
        assert run.fraction == 0.1
        assert seen == [0.0] * 4, "the shares of two bars within a stage are unknown"


def test_stage_ends_as_its_bar_ends(track: Track) -> None:
    with track() as run:
        for number in tqdm(range(10), desc="left early", file=nowhere()):
            if number == 3:
                break
        with pytest.raises(ZeroDivisionError), tqdm(total=10, desc="raised", file=nowhere()) as bar:  # noqa: PT012
            bar.update(2)
            1 // (bar.n - 2)
        bar = tqdm(total=5, desc="by hand", file=nowhere())
        bar.update(2)
        bar.reset(total=8)
        bar.update(3)
        bar.close()
        bar.close()
        dropped = tqdm(total=5, desc="dropped", file=nowhere())
        del dropped
        forgotten = tqdm(total=5, desc="forgotten", file=nowhere())
        forgotten.update(5)
    ends = {stage.name: (stage.done, stage.total, stage.ended_at is not None) for stage in run.stages}
    assert ends == {
        "left early": (3, 10, True),
        "raised": (2, 10, False),
        "by hand": (3, 8, True),
        "dropped": (0, 5, True),
        "forgotten": (5, 5, True),
    }
    forgotten.close()


def test_late_description_becomes_stage_name(track: Track) -> None:
    with track() as run:
        bar = tqdm(total=None, file=nowhere())
        assert names(run) == [("loop", None)]
        bar.set_description("Loading a.pdf")
        assert names(run) == [("Loading a.pdf", None)]
        bar.set_description("Loading b.pdf")
        assert names(run) == [("Loading a.pdf", None)]
        assert run.stages[0].total is None
        bar.close()


def test_disabled_bar_is_ignored_but_not_without_terminal(track: Track) -> None:
    with track() as run:
        embed(range(3), disable=True)
        assert names(run) == []
        out = nowhere()
        seen: list[float] = []
        embed(range(3), lambda _: seen.append(run.stages[0].done), disable=None, file=out)
        with tqdm(total=9, desc="By hand", disable=None, file=out) as bar:
            bar.update(4)
            assert run.stages[1].done == 4
    assert (out.getvalue(), seen) == ("", [0, 1, 2])
    assert [(stage.name, stage.done) for stage in run.stages] == [("Embedding", 3), ("By hand", 4)]


def test_terminal_output_is_unchanged(track: Track) -> None:
    def drawn() -> str:
        out = io.StringIO()
        options: dict[str, Any] = {"file": out, "bar_format": "{desc}{n}/{total}", "mininterval": 0, "miniters": 1}
        for _ in tqdm(range(2), desc="outer", **options):
            for _ in tqdm(range(2), desc="inner", leave=False, **options):
                pass
        with tqdm(total=3, **options) as bar:
            bar.update(2)
        return out.getvalue()

    before = drawn()
    with track():
        assert drawn() == before
    assert drawn() == before


async def test_bars_in_tasks_and_async_loops() -> None:
    manager = AsyncJobManager("memory://", options=Settings(capture=ALL))

    async def work(name: str) -> None:
        async for _ in async_tqdm(range(3), desc=name, file=nowhere()):
            for _ in tqdm(range(2), desc=f"in {name}", file=nowhere()):
                await asyncio.sleep(0)

    async with manager.track("test") as run:
        await asyncio.gather(work("a"), work("b"), asyncio.to_thread(embed, range(3)))
    assert sorted(names(run)) == [("Embedding", None), ("a", None), ("b", None), ("in a", "a"), ("in b", "b")]
    assert embed(range(2)) == 2
    assert len(run.stages) == 5
    await manager.close()


def test_bar_raises_when_run_is_stopped(track: Track) -> None:
    choices: list[dict[str, Any]] = [{}, {"disable": None}]
    for options in choices:
        with pytest.raises(JobCancelled, match="enough"), track() as run:
            embed(
                iter(int, 1), lambda _: run.stop(JobCancelled("enough")) if run.stages[0].done == 5 else None, **options
            )
        with pytest.raises(JobCancelled), track() as run, tqdm(file=nowhere(), **options) as bar:  # noqa: PT012
            bar.update()
            run.stop(JobCancelled("enough"))
            bar.update()
        with pytest.raises(JobCancelled), track() as run:  # noqa: PT012
            run.stop(JobCancelled("enough"))
            tqdm(range(3), file=nowhere(), **options)


def test_error_in_bar_capture_does_not_break_work(track: Track, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    class Odd:
        def __float__(self) -> float:
            raise TypeError("not a number")

    with track() as run:
        bar = tqdm(total=10, desc="odd", file=nowhere())
        bar.n, bar.total = Odd(), float("nan")  # type: ignore[assignment]
        assert [(stage.name, stage.done, stage.total) for stage in run.stages] == [("odd", 0, None)]
        bar.n, bar.total = 0, 10
        bar.close()
        monkeypatch.setattr("milepost.run.capture.tqdm._caller_id", lambda: 1 / 0)
        assert embed(range(3)) == 3
    assert len(run.stages) == 1
    assert "bar not captured" in caplog.text


def test_tqdm_imported_later_is_captured() -> None:
    program = """
import sys, io
from milepost import InMemoryJobManager, Settings
with InMemoryJobManager().track("before") as first:
    pass
assert "tqdm" not in sys.modules
with InMemoryJobManager(options=Settings(capture="tqdm")).track("test") as run:
    import tqdm.auto
    for _ in tqdm.auto.tqdm(range(3), desc="Later", file=io.StringIO()):
        pass
    from milepost.tqdm import trange
    list(trange(2, desc="Own", file=io.StringIO()))
print([(stage.name, stage.done) for stage in run.stages])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[('Later', 3), ('Own', 2)]", "")


def test_milepost_tqdm_is_captured_with_capture_off(track: Track) -> None:
    assert list(own_tqdm(range(3), file=nowhere())) == [0, 1, 2]
    with track(capture="none") as run:
        embed(range(3))
        with own_tqdm(range(3), desc="Own", file=nowhere()) as bar:
            assert isinstance(bar, tqdm)
            assert sum(bar) == 3
    assert names(run) == [("Own", None)]
    assert log_lines(run) == []


# --- threads -------------------------------------------------------------------------------------------------------


def test_threads_belong_to_their_run(track: Track) -> None:
    shared = ThreadPoolExecutor(1)  # older than both runs, and used by both
    both = threading.Barrier(2, timeout=60)
    lines: dict[str, list[str]] = {}

    def job(name: str) -> None:
        with track() as run:
            both.wait()
            later = ThreadPoolExecutor(1) if name == "a" else None
            threads = [threading.Thread(target=log.error, args=(f"{name} in a thread",)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for number in range(5):
                shared.submit(log.error, f"{name} in the pool {number}").result()
            for thread in threads:
                thread.join()
            if later is not None:
                later.submit(log.error, "a in its own").result()
                pools.append(later)
            made.wait(60) if name == "b" else made.set()
            if name == "b":
                pools[0].submit(log.error, "b in the pool of a").result()
            both.wait()
            lines[name] = log_lines(run)
            both.wait()

    pools: list[ThreadPoolExecutor] = []
    made = threading.Event()
    workers = [threading.Thread(target=job, args=(name,)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    shared.shutdown()
    pools[0].shutdown()
    assert {line[0] for line in lines["a"]} == {"a"}
    assert {line[0] for line in lines["b"]} == {"b"}
    assert (len(lines["a"]), len(lines["b"])) == (9, 9)


def test_unrelated_threads_do_not_belong_to_run(track: Track) -> None:
    asked, over = threading.Event(), threading.Event()

    def other() -> None:
        asked.wait(60)
        log.error("of another")
        embed(range(2))
        over.set()

    thread = threading.Thread(target=other)
    thread.start()
    with track() as run:
        asked.set()
        assert over.wait(60)
    thread.join()
    log.error("after the run")
    embed(range(2))
    assert (log_lines(run), names(run)) == ([], [])


def test_thread_belongs_to_run_in_copied_context(track: Track) -> None:
    with track(capture="logging") as run:
        for target, args in ((copy_context().run, (log.error, "copied")), (log.error, ("plain",))):
            thread = threading.Thread(target=target, args=args)
            thread.start()
            thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(copy_context().run, log.error, "pool, copied").result()
            pool.submit(log.error, "pool").result()
    assert log_lines(run) == ["copied", "pool, copied"]


def test_bars_of_tqdm_are_not_captured_by_default(manager: JobManager) -> None:
    default = JobManager(manager.store, options=replace(manager.settings, capture=None))
    with default.track("test") as run:
        embed(range(3))
        assert sum(own_tqdm(range(3), desc="Own", file=nowhere())) == 3
    assert names(run) == [("Own", None)]
    assert log_lines(run) == ["embedded 3 chunks"]
