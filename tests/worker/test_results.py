"""Results that are not JSON: converted, or kept as text beside the reason, without failing the finished job."""

from __future__ import annotations

import dataclasses
import threading
from array import array
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import numpy as np
import pytest
from pydantic import BaseModel

from milepost import (
    AsyncJobs,
    InvalidInputError,
    Jobs,
    RejectedError,
    ResultNotSerialisableError,
    Run,
    Secret,
    Settings,
)
from milepost.worker.handlers import Handlers
from tests.waiting import PATIENCE
from tests.worker import application
from tests.worker.conftest import MakeJobs
from tests.worker.job_assertions import Signals, ended, kinds

NAN = float("nan")


class Page(BaseModel):
    number: int
    seen: datetime = datetime(2026, 1, 2)
    score: float = NAN


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Total:
    words: object


RESULTS: list[tuple[Any, Any]] = [
    ([Page(number=1)], [{"number": 1, "seen": "2026-01-02T00:00:00", "score": None}]),
    ({"pages": {Colour.RED: Total(words=(1, 2))}}, {"pages": {"red": {"words": [1, 2]}}}),
    ([datetime(2026, 1, 2), UUID(int=1), Path("a"), Decimal("1.5")],
     ["2026-01-02T00:00:00", "00000000-0000-0000-0000-000000000001", "a", "1.5"]),
    ({"rows": [{"mean": NAN}, {"mean": np.float32("-inf")}], "n": np.int64(3)},
     {"rows": [{"mean": None}, {"mean": None}], "n": 3}),
    (np.array([[1.5, NAN]]), [[1.5, None]]),
    (np.datetime64("2026-01-02T03:04", "ns"), "2026-01-02T03:04:00.000000000"),
    ({np.int64(7): {"a": 1}.keys()}, {"7": ["a"]}),
]  # fmt: skip


@pytest.mark.parametrize("is_async", [False, True])
def test_result_of_other_types_is_converted(jobs: Jobs, is_async: bool) -> None:
    """Regression: a job whose handler returned a pydantic model or NaN failed after all its work was done."""

    def give(run: Run, number: int) -> Any:
        return RESULTS[number][0]

    async def agive(run: Run, number: int) -> Any:
        return give(run, number)

    jobs.job("give")(agive if is_async else give)
    with jobs.run_workers():
        found = [ended(jobs, jobs.submit("give", {"number": number})) for number in range(len(RESULTS))]
    assert [job.result for job in found] == [expected for _, expected in RESULTS]
    assert {(job.status.value, job.result_error) for job in found} == {("completed", None)}


def test_values_stored_as_null_are_named_once_in_the_log(jobs: Jobs) -> None:
    @jobs.job("means")
    def means(run: Run) -> Any:
        return {"rows": [{"mean": 1.0}, {"mean": NAN}, {"mean": float("inf")}]}

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(means))
    lines = [line for event in jobs.events(job.job_id) for line in event.data.get("lines", ())]
    assert [(line["level"], line["text"]) for line in lines] == [
        ("warning", "stored as null, because JSON has no NaN or infinity: result.rows[1].mean and 1 more")
    ]


def test_missing_values_of_pandas_become_null(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        """Stands for pandas, which is not installed here: its NA and NaT are single objects."""

        NA, NaT = object(), object()

    monkeypatch.setitem(__import__("sys").modules, "pandas", Missing)

    @jobs.job("missing")
    def missing(run: Run) -> Any:
        return [Missing.NA, Missing.NaT, 1]

    with jobs.run_workers():
        assert ended(jobs, jobs.submit(missing)).result == [None, None, 1]


class Rude:
    def __repr__(self) -> str:
        raise LookupError("no repr")


LOST: list[tuple[Callable[[], Any], str, str]] = [
    (lambda: {"inner": [1, threading.Lock()]}, "result.inner[1]: lock is not JSON-serialisable; convert it", "{'inner': ["),
    (lambda: (n for n in range(3)), "result: generator is not JSON-serialisable; return list(...)", "<generator object"),
    (lambda: Total(words=b"abc"), "result.words: bytes is not JSON-serialisable; decode it", "Total(words=b'abc')"),
    (lambda: {"text": "x" * 5_000_000}, "result: 5000011 bytes of JSON, the limit is 1048576; store", "{'text': 'xxx"),
    (lambda: [NAN, *range(2_000_000)], "result: more than 1048576 bytes of JSON; store the data", "[nan, 0, 1, 2"),
    (lambda: {(1, 2): 3, "a": NAN}, "result: key '(1, 2)' is of type tuple; use a str", "{(1, 2): 3"),
    (lambda: {1: "one", "1": "two"}, "result: two keys are '1' in JSON; use different ones", "{1: 'one', '1': 'two'}"),
    (lambda: {1: NAN, "1": 2}, "result: two keys are '1' in JSON; use different ones", "{1: nan, '1': 2}"),
    (lambda: array("i", [1]), "result: array is not JSON-serialisable; return what its tolist() returns", "array('i', [1])"),
    (lambda: Rude(), "result: Rude is not JSON-serialisable; convert it", "<Rude whose repr() raised LookupError>"),
]  # fmt: skip


@pytest.mark.parametrize("is_async", [False, True])
def test_result_that_is_not_json_completes_job_with_text(jobs: Jobs, is_async: bool, signals: Signals) -> None:
    """Regression: a job that had done its work failed because of the type of its result."""

    def give(run: Run, number: int) -> Any:
        signals.calls += 1
        return LOST[number][0]()

    async def agive(run: Run, number: int) -> Any:
        return give(run, number)

    jobs.job("give", max_attempts=5)(agive if is_async else give)
    with jobs.run_workers(concurrency=1):
        found = [ended(jobs, jobs.submit("give", {"number": number})) for number in range(len(LOST))]
    assert signals.calls == len(LOST)
    for job, (_, error, text) in zip(found, LOST, strict=True):
        assert (job.status, job.result, job.error, job.failure) == ("completed", None, None, None)
        assert (job.result_error or "").startswith(error)
        assert (job.result_text or "").startswith(text)
        assert len((job.result_text or "").encode()) <= 8192
        assert "not stored" in job.activity
        with pytest.raises(ResultNotSerialisableError) as caught:
            jobs.result(job)
        assert (caught.value.text, caught.value.job) == (job.result_text, jobs.get_job(job.job_id))
        assert error in str(caught.value)
    assert (found[3].result_text or "").endswith("...")
    assert kinds(jobs, found[0])[-1] == "completed"


def test_text_of_result_has_no_secrets(jobs: Jobs) -> None:
    @jobs.job("leaky")
    def leaky(run: Run, key: Secret, filler: int) -> Any:
        return {f"key {key}": {"filler": "x" * filler, "more": f"{key}", "lock": threading.Lock()}}

    secret = "s3cret" * 20
    with jobs.run_workers():
        for filler in (0, *range(8192 - 300, 8192, 50)):
            job = ended(jobs, jobs.submit(leaky, key=Secret(secret), filler=filler))
            assert (job.status, job.result) == ("completed", None)
            assert "s3cret" not in job.to_json().decode(), filler


def test_child_process_reports_text_and_reason(
    make_jobs: MakeJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_LOG", str(tmp_path / "handlers.log"))
    jobs = make_jobs(grace=2.0)
    jobs.handlers.add(application.isolated)
    with jobs.run_workers():
        job = ended(
            jobs, jobs.submit(application.isolated.options(max_attempts=2), "unserialisable", Secret("hush-hush"))
        )
        nulls = ended(jobs, jobs.submit(application.isolated, "nan"))
    assert (job.status, job.attempt, job.result) == ("completed", 1, None)
    assert job.result_error == (
        "result: object is not JSON-serialisable; convert it to str, int, float, bool, None, list or dict"
    )
    assert (job.result_text or "").startswith("<object object at")
    assert (nulls.status, nulls.result) == ("completed", {"mean": None})
    lines = [line["text"] for event in jobs.events(nulls.job_id) for line in event.data.get("lines", ())]
    assert lines[-1] == "stored as null, because JSON has no NaN or infinity: result.mean"


def test_result_of_other_jobs_raises(jobs: Jobs, signals: Signals) -> None:
    @jobs.job("work")
    def work(run: Run, fails: bool) -> str:
        signals.began.set()
        signals.let_go.wait(PATIENCE)
        if fails:
            raise ValueError("no such page")
        return "done"

    job, failed, cancelled = (jobs.submit(work, fails=fails) for fails in (False, True, False))
    jobs.cancel_job(cancelled.job_id)
    with pytest.raises(RejectedError, match=r"it is (pending|running); wait\(\) returns when it has ended"):
        jobs.result(job.job_id)
    with jobs.run_workers():
        assert signals.began.wait(PATIENCE)
        signals.let_go.set()
        ended(jobs, job)
        ended(jobs, failed)
    assert jobs.result(job) == jobs.result(job.job_id) == "done"
    with pytest.raises(RejectedError, match=r"it is failed \(no such page\)") as caught:
        jobs.result(failed)
    assert caught.value.job == jobs.get_job(failed.job_id)
    with pytest.raises(RejectedError, match="it is cancelled"):
        jobs.result(cancelled)
    with pytest.raises(ValueError, match="not found"):
        jobs.result("nowhere")


async def test_async_api_returns_result_and_raises(url: str, namespace: str) -> None:
    jobs = AsyncJobs(url, options=Settings(namespace=namespace, grace=0.5))

    @jobs.job("give")
    async def give(run: Run, good: bool) -> Any:
        return {"n": 1} if good else {"n": object()}

    async with jobs.run_workers():
        good, bad = await jobs.submit(give, good=True), await jobs.submit(give, good=False)
        await jobs.wait(good.job_id, PATIENCE)
        assert await jobs.result(good) == {"n": 1}
        await jobs.wait(bad.job_id, PATIENCE)
        with pytest.raises(ResultNotSerialisableError, match=r"result\.n: object is not JSON-serialisable") as caught:
            await jobs.result(bad.job_id)
    assert caught.value.text.startswith("{'n': <object object at")
    await jobs.close()


def test_retry_of_completed_job_without_result_is_refused(make_jobs: MakeJobs) -> None:
    jobs = make_jobs()

    @jobs.job("odd")
    def odd(run: Run) -> Any:
        return object()

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(odd))
    with pytest.raises(ValueError, match="Cannot retry job with status completed"):
        jobs.retry_job(job.job_id)


# --- return annotations -----------------------------------------------------------------------------------------------


class Plain:
    """A class without a JSON form."""


class Base:
    """A class with a subclass that has one."""


@dataclasses.dataclass
class Derived(Base):
    number: int


@pytest.mark.parametrize(
    ("returns", "remedy"),
    [
        (Iterator[int], "return a list of the values"),
        (Plain, "return a model, a dataclass or a dict"),
        (bytes, "decode it, or write it to a file and return the path"),
        (Annotated[Plain, "doc"], "return a model"),
        (Plain | bytes, "return a model"),
        (type(threading.Lock()), "return a model"),
    ],
)
def test_return_annotation_that_is_never_json_is_refused(returns: Any, remedy: str) -> None:
    """Regression: that a result cannot be stored came out only after the first job had done its work."""

    def work(run: Run) -> Any: ...

    work.__annotations__["return"] = returns
    with pytest.raises(InvalidInputError, match="which is not JSON-serialisable") as caught:
        Handlers().job("work")(work)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    "returns",
    [None, Any, object, int, "Unknown", Page, Total, Colour, Base, Plain | None, list[Plain], dict[str, Any],
     tuple[int, ...], np.ndarray, np.float32, datetime, Path, Decimal, UUID, set[int]],
)  # fmt: skip
def test_return_annotation_that_may_be_json_is_accepted(returns: Any) -> None:
    def work(run: Run) -> Any: ...

    work.__annotations__["return"] = returns
    assert Handlers().job("work")(work).job_type == "work"
