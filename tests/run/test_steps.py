"""Steps: the next attempt gets the value that was kept, on every store, and only a run under its lease keeps one."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from milepost import InputChangedError, InvalidInputError, Job, JobCancelled, JobManager, LeaseLost, Run
from milepost.core.errors import JobReleased, RunStop
from milepost.run import steps
from milepost.run.run import current_run
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FakeRun, fake_run
from tests.run.conftest import log_lines
from tests.waiting import current, lose_lease, until


@dataclasses.dataclass
class Quote:
    """What no plain JSON is, by its declared type."""

    words: tuple[str, ...]
    usd: float


class Away(Exception):
    """What interrupts an attempt."""


def again(run: FakeRun, **more: str) -> FakeRun:
    """Return the run of the next attempt."""
    record = {"type": "test", "status": "running", "created": "0", "attempt": "2", **more}
    return FakeRun(Job.stored("fake", {**record, **({"steps": run._kept_steps} if run._kept_steps else {})}))


class Service:
    """A service that counts its calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def quote(self, *words: str) -> Quote:
        self.calls.append(words)
        return Quote(words, 0.5 * len(self.calls))

    async def aquote(self, *words: str) -> Quote:
        return self.quote(*words)


@pytest.mark.timing
@pytest.mark.parametrize("is_async", [False, True])
def test_next_attempt_gets_kept_value_without_a_call(manager: JobManager, is_async: bool) -> None:
    service = Service()
    found: list[Quote] = []

    def step(run: Run) -> Quote:
        if is_async:
            return asyncio.run(run.step("quote", service.aquote, "docs"))
        return run.step("quote", service.quote, "docs")

    for attempt in (1, 2):
        with contextlib.suppress(Away), manager.track("steps", unique_key="k") as run:
            assert run.resumed is (attempt == 2)
            found.append(step(run))
            assert run.resumed is (attempt == 2), "a step of this attempt is none of an earlier one"
            if attempt == 1:
                record = current(manager, run).record
                assert '"quote"' in record["steps"], "the store has the value when the call returns"
                raise Away
    assert found == [Quote(("docs",), 0.5)] * 2
    assert service.calls == [("docs",)]
    job = current(manager, run)
    assert (job.status, "steps" in job.record) == ("completed", False)
    events = [event.data for event in manager.events(run.job_id) if event.kind == "step"]
    assert events == [{"key": "quote"}]


@pytest.mark.timing
def test_many_and_large_values_are_kept_beside_the_record(manager: JobManager) -> None:
    calls: list[int] = []

    def work(number: int) -> str:
        calls.append(number)
        return str(number) * 9000

    def prefix_of(job_id: str) -> list[Any]:
        return run_sync(manager.store.with_blocking(blocking=True).kv_scan(f"results/{job_id}/"))

    for attempt in (1, 2, 3):
        with contextlib.suppress(Away), manager.track("steps", unique_key="k") as run:
            values = [run.step(f"n:{number}", work, number) for number in range(4 * attempt)]
            assert [value[:2] for value in values] == [
                str(number)[0:1] * 2 if number < 10 else str(number) for number in range(4 * attempt)
            ]
            assert len(current(manager, run).record["steps"]) < 64 * 1024
            assert prefix_of(run.job_id) or attempt == 1
            if attempt < 3:
                raise Away
    assert calls == list(range(12))
    until(lambda: prefix_of(run.job_id) == [])


@pytest.mark.timing
def test_deleted_job_leaves_no_kept_steps(manager: JobManager) -> None:
    store = manager.store.with_blocking(blocking=True)
    with contextlib.suppress(JobCancelled), manager.track("steps") as run:
        run.step("a", lambda: "x" * 40_000)
        assert run_sync(store.kv_scan(f"results/{run.job_id}/"))
        run.step("b", lambda: manager.delete_job(run.job_id) or "x" * 40_000)
    assert run_sync(store.kv_scan(f"results/{run.job_id}/")) == []


@pytest.mark.timing
def test_run_that_lost_its_lease_keeps_nothing(manager: JobManager) -> None:
    """A late run added a value that the next attempt then got instead of its own."""
    with pytest.raises(LeaseLost), manager.track("steps") as run:  # noqa: PT012
        run.step("a", lambda: 1)
        lose_lease(manager.store, run.job_id, run.token)
        run.step("b", lambda: 2)
    assert '"b"' not in current(manager, run).record["steps"]


@pytest.mark.timing
async def test_steps_of_many_tasks_and_threads_are_all_kept(manager: JobManager) -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        return number

    with contextlib.suppress(Away), manager.track("steps") as run:
        found = await asyncio.gather(*[run.step(f"task:{number}", work, number) for number in range(20)])
        with ThreadPoolExecutor(4) as pool:
            found += list(pool.map(lambda number: run.step(f"thread:{number}", int, number), range(20)))
        raise Away
    assert found == [*range(20), *range(20)]
    kept = json.loads(current(manager, run).record["steps"])["values"]
    assert sorted(entry[0] for entry in kept) == sorted(
        f"{kind}:{number}" for kind in ("task", "thread") for number in range(20)
    )


def test_key_used_twice_in_an_attempt_raises() -> None:
    run = fake_run()
    run.step("embed", lambda: 1)
    with pytest.raises(
        InvalidInputError, match=r"key: 'embed' was used twice; add the item to it, for example f'embed:\{doc.id\}'"
    ):
        run.step("embed", lambda: 2)
    assert again(run).step("embed", lambda: 3) == 1


def test_call_that_raised_may_be_repeated_under_its_key() -> None:
    run, calls = fake_run(), []

    def fetch() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise Away
        return 7

    with pytest.raises(Away):
        run.step("fetch", fetch)
    assert run.step("fetch", fetch) == 7
    assert run.steps == ["fetch"]


def test_other_arguments_raise_unless_the_step_may_rerun() -> None:
    service, run = Service(), fake_run()
    run.step("quote", service.quote, "docs")
    with pytest.raises(
        InputChangedError,
        match=r"step 'quote': was called with \('docs',\) in an earlier attempt, now with \('papers',\); give on_change=\"rerun\"",
    ):
        again(run).step("quote", service.quote, "papers")
    other = again(run)
    assert other.step("quote", service.quote, "papers", on_change="rerun") == Quote(("papers",), 1.0)
    last = again(other)
    assert last.step("quote", service.quote, "papers") == Quote(("papers",), 1.0)
    assert len(service.calls) == 2
    assert log_lines(last) == ["resumed with 1 kept step"]


def test_argument_without_lasting_content_is_not_compared() -> None:
    run = fake_run()
    assert run.step("a", lambda client, n: n, object(), 1) == 1
    assert again(run).step("a", lambda client, n: n, object(), 1) == 1
    with pytest.raises(InputChangedError):
        again(run).step("a", lambda client, n: n, object(), 2)


def test_run_as_argument_is_not_compared() -> None:
    """Regression: a function that reports to its run got it as an argument, and no later attempt could continue the job."""
    run = fake_run()
    assert run.step("a", lambda run, n: n, run, 1) == 1
    later = again(run)
    later.progress(0.5)
    assert later.step("a", lambda run, n: n, later, 1) == 1
    with pytest.raises(InputChangedError):
        again(run).step("a", lambda run, n: n, run, 2)


def test_argument_that_holds_the_run_is_not_compared() -> None:
    keys: list[str] = []

    def pay(tools: dict[str, Any], n: int) -> int:
        keys.append(tools["run"].step_key)
        return n

    run = fake_run()
    run.step("a", pay, {"run": run}, 1)
    later = again(run)
    assert later.step("a", pay, {"run": later}, 1) == 1
    with pytest.raises(InputChangedError):
        again(run).step("a", pay, {"run": run}, 2)
    from_nothing = again(fake_run())
    from_nothing.step("a", pay, {"run": from_nothing}, 1)
    assert len(keys) == 2
    assert keys[0] == keys[1], "the idempotency key is the same in each attempt"


def test_value_is_as_read_back_also_the_first_time() -> None:
    kept: list[list[int]] = [[1]]
    run = fake_run()
    value = run.step("list", lambda: kept)
    kept[0].append(2)
    assert value == [[1]]
    quote = Quote(("a",), 1.0)
    assert fake_run().step("quote", Service().quote, "a") is not quote


@pytest.mark.parametrize("value", [{1, 2}, (1,), {1: 2}, object()])
def test_value_that_would_not_come_back_equal_is_refused(value: Any) -> None:
    run = fake_run()
    with pytest.raises(InvalidInputError, match="value of step a"):
        run.step("a", lambda: value)
    assert run.steps == []


def test_limits_of_a_job_are_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"value of step a: 1048579 bytes, the limit is 1048576; keep large"):
        fake_run().step("a", lambda: "x" * 1024 * 1024 + "y")
    run = fake_run()
    for number in range(8):
        run.step(str(number), lambda: "x" * 1000 * 1024)
    with pytest.raises(InvalidInputError, match=r"step '9': the kept values of this job take .* limit is 8388608"):
        run.step("9", lambda: "x" * 1000 * 1024)
    monkeypatch.setattr(steps, "MAX_STEPS", 2)
    run = fake_run(steps={"a": 1, "b": 2})
    with pytest.raises(InvalidInputError, match=r"3 steps, the limit of a job is 2; use run\.map"):
        run.step("c", int)


@pytest.mark.parametrize(
    ("key", "function", "on_change", "field"),
    [("", int, "raise", "key"), ("x" * 201, int, "raise", "key"), (7, int, "raise", "key"), ("a", 7, "raise", "function"),
     ("a", int, "later", "on_change")],
)  # fmt: skip
def test_bad_input_is_refused_by_name(key: Any, function: Any, on_change: Any, field: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{field}: "):
        fake_run().step(key, function, on_change=on_change)


def test_step_key_is_the_same_in_each_attempt_only() -> None:
    def key_of(run: FakeRun, name: str, *arguments: Any) -> str:
        found: list[str] = []
        with contextlib.suppress(Away):
            run.step(name, lambda *_: found.append(run.step_key) or _fail(), *arguments)
        return found[0]

    def _fail() -> None:
        raise Away

    run = fake_run()
    first = key_of(run, "pay", 10)
    assert key_of(again(run), "pay", 10) == first
    others = [key_of(run, "pay", 11), key_of(run, "other", 10), key_of(again(run, restarts="1"), "pay", 10)]
    assert len({first, *others}) == 4
    assert len(first) == 32
    with pytest.raises(InvalidInputError, match="step_key"):
        _ = run.step_key


async def test_step_key_of_concurrent_steps_is_their_own() -> None:
    run = fake_run()

    async def pay() -> str:
        await asyncio.sleep(0)
        return run.step_key

    keys = await asyncio.gather(*[run.step(f"pay:{number}", pay) for number in range(5)])
    assert len(set(keys)) == 5


def test_step_is_a_cancellation_point() -> None:
    run, calls = fake_run(), []
    run.cancel()
    with pytest.raises(BaseException, match="cancelled by the test"):
        run.step("a", calls.append, 1)
    assert calls == []


def test_value_is_kept_although_the_run_was_stopped_meanwhile() -> None:
    """A paid answer that came after SIGTERM was thrown away."""
    run = fake_run()
    with pytest.raises(BaseException, match="cancelled by the test"):
        run.step("a", run.cancel)
    assert run.steps == ["a"]


def test_value_with_usage_is_kept_at_a_deploy() -> None:
    """Regression: `add_usage` in a step raised at SIGTERM, so the paid answer was lost, and paid for again."""
    run = fake_run()

    def pay() -> str:
        run.stop(JobReleased("shutting down"))
        run.add_usage(usd=1)
        return "answer"

    with pytest.raises(JobReleased):
        run.step("a", pay)
    assert run.steps == ["a"]


@pytest.mark.parametrize(("reason", "kept"), [(JobReleased("shutting down"), 3), (JobCancelled("by ana"), 0)])
async def test_async_steps_under_way_are_kept_at_a_deploy(reason: RunStop, kept: int) -> None:
    """Regression: calls under way were cut off at SIGTERM, so they were paid for again. A cancel cuts them off."""
    run, begun, answered, calls = fake_run(), asyncio.Event(), asyncio.Event(), []

    async def pay(number: int) -> int:
        calls.append(number)
        if len(calls) == 3:
            begun.set()
        await answered.wait()
        return number

    async def handler() -> None:
        steps = [run.step(f"page {number}", pay, number) for number in range(3)]
        await asyncio.gather(*steps, return_exceptions=True)  # without it, it ends with the first one

    task = asyncio.create_task(handler())
    await begun.wait()
    run.stop(reason)
    task.cancel()
    await asyncio.sleep(0)
    answered.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(run.steps) == kept


def test_step_outside_of_a_job_calls_its_function() -> None:
    assert current_run().step("a", lambda: [1]) == [1]


def test_fake_run_takes_kept_steps() -> None:
    run = fake_run(steps={"quote": {"usd": 3}})
    assert run.step("quote", Service().quote, "docs") == {"usd": 3}
    assert run.resumed


def test_next_attempt_of_a_fake_run_gets_many_steps() -> None:
    run = fake_run()
    for number in range(20):
        run.step(str(number), lambda: "x" * 9000)
    again = run.next_attempt()
    assert [len(again.step(str(number), int)) for number in range(20)] == [9000] * 20
