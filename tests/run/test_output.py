"""Output: readers get each character once and in order, on every store, in threads, event loops and child processes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest

from milepost import (
    AsyncRun,
    InMemoryJobManager,
    InvalidInputError,
    Job,
    JobCancelled,
    JobManager,
    JobNotFoundError,
    Jobs,
    Retry,
    Run,
)
from milepost.core.output import OutputPosition
from milepost.run.output import BUFFERED_CHARACTERS, CHUNK_CHARACTERS, Output
from milepost.stores.ids import new_operation_id
from milepost.testing import fake_run
from milepost.worker.handlers import Handlers
from tests.waiting import PATIENCE, until

TEXT = "".join(f"token {number} \u00e9\n" for number in range(2000))


def run_of(attempt: int = 1, fence: int = 1, **more: str) -> Run:
    """Return a run whose output is written by the test."""
    record = {"type": "test", "status": "running", "created": "0", "attempt": str(attempt), **more}
    run = fake_run()
    run._job, run.attempt, run.token = Job.stored("fake", record), attempt, f"{fence}:x"
    return run


def chunks(output: Output) -> list[tuple[int, str]]:
    """Return the offset and the stored form of each chunk that the output writes."""
    stored = [write.change.values[2] or "" for write in output.writes(new_operation_id)]
    return [(int(text.partition('"offset":')[2].partition(",")[0]), text) for text in stored]


def test_output_is_followed_in_order_and_read_later(manager: JobManager) -> None:
    with manager.track("chat") as run:
        for start in range(0, len(TEXT), 100):
            run.output(TEXT[start : start + 100])
    assert "".join(chunk.text for chunk in manager.follow_output(run.job_id)) == TEXT
    whole = manager.output(run.job_id)
    assert [chunk.starts_over for chunk in whole] == [True] + [False] * (len(whole) - 1)
    for at in (0, len(whole) // 2):
        rest = manager.output(run.job_id, after=whole[at].position)
        assert "".join(chunk.text for chunk in rest) == "".join(chunk.text for chunk in whole[at + 1 :])
    assert manager.output(run.job_id, after=whole[-1].position) == []
    job = manager.get_job(run.job_id)
    assert job is not None
    assert job.output_bytes == len(TEXT.encode())


def test_output_of_next_attempt_starts_over(manager: JobManager) -> None:
    def fail(run: Run) -> None:
        run.output("first")
        raise RuntimeError

    with pytest.raises(RuntimeError), manager.track("chat", unique_key="k") as run:
        fail(run)
    with manager.track("chat", unique_key="k") as run:
        run.output("second")
    found = [(chunk.text, chunk.attempt, chunk.starts_over) for chunk in manager.output(run.job_id)]
    assert found == [("first", 1, True), ("second", 2, True)]


def test_first_output_after_suspension_of_next_attempt_starts_over(manager: JobManager) -> None:
    jobs = Jobs(manager)

    @jobs.job("chat", max_attempts=3)
    def chat(run: Run) -> None:
        if run.attempt == 1:
            run.output("first")
        if run.attempt < 3:
            raise Retry(0)
        for segment in ("a", "b"):
            run.sleep(segment, 0.05)
            run.output(segment)

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(chat), PATIENCE)
    found = jobs.output(job.job_id)
    expected = [("first", 1, True), ("a", 3, True), ("ab", 3, False)]
    assert [(chunk.text, chunk.attempt, chunk.starts_over) for chunk in found] == expected
    assert [chunk.starts_over for chunk in jobs.output(job.job_id, after=found[0].position)] == [True, False]
    assert [chunk.starts_over for chunk in jobs.output(job.job_id, after=found[1].position)] == [False]


@pytest.mark.parametrize("beats", [True, False])
def test_ring_keeps_newest_text_of_all_attempts(
    manager: JobManager, monkeypatch: pytest.MonkeyPatch, beats: bool
) -> None:
    monkeypatch.setattr(manager.runtime.heartbeat, "_output_bytes", 4 * CHUNK_CHARACTERS)
    for attempt in range(3):
        try:
            with manager.track("chat", unique_key="k") as run:
                run.output(str(attempt) * 2 * CHUNK_CHARACTERS)
                if beats:
                    manager.runtime.heartbeat.beat()
                if attempt < 2:
                    raise RuntimeError
        except RuntimeError:
            pass
    text = "".join(chunk.text for chunk in manager.output(run.job_id))
    assert text == "1" * CHUNK_CHARACTERS + "2" * 2 * CHUNK_CHARACTERS


def test_output_of_missing_job_is_an_error(manager: JobManager) -> None:
    with pytest.raises(JobNotFoundError):
        manager.output("nothing")
    with pytest.raises(JobNotFoundError):
        list(manager.follow_output("nothing"))
    with pytest.raises(InvalidInputError, match="after: 'x' is not a position"):
        manager.output("nothing", after="x")
    with pytest.raises(InvalidInputError, match="limit"):
        manager.output("nothing", limit=0)


def test_chunk_grows_until_it_is_full() -> None:
    output = Output(run_of(), 1 << 20)
    output.add("one ")
    assert [offset for offset, _ in chunks(output)] == [0]
    output.add("two ")
    assert [(offset, "one two " in text) for offset, text in chunks(output)] == [(0, True)]
    output.add("x" * 5000)
    output.add("y" * CHUNK_CHARACTERS)
    assert [offset for offset, _ in chunks(output)] == [0, CHUNK_CHARACTERS]
    assert chunks(output) == []


def test_text_beyond_buffer_is_dropped_and_counted() -> None:
    output = Output(run_of(), 1 << 20)
    output.add("kept before")
    chunks(output)
    output.add("a" * 10)
    output.add("b" * BUFFERED_CHARACTERS)
    output.add("cc")
    assert output.take() == ("b" * (BUFFERED_CHARACTERS - 2) + "cc", 12)
    output.add("d", lost=7)
    assert [offset for offset, _ in chunks(output)] == [len("kept before") + 7]


def test_newest_characters_of_long_text_are_kept() -> None:
    manager = InMemoryJobManager()
    with manager.track("chat") as run:
        run.output("old" + "n" * BUFFERED_CHARACTERS)
    found = manager.output(run.job_id)
    assert (found[0].offset, "".join(chunk.text for chunk in found)) == (3, "n" * BUFFERED_CHARACTERS)
    manager.close()


def test_wrong_text_is_refused() -> None:
    run = fake_run()
    with pytest.raises(InvalidInputError, match=r"text: 3 is not a str; write run.output\(str\(value\)\)"):
        run.output(3)  # type: ignore[arg-type]
    run.output("kept")
    run.cancel()
    with pytest.raises(JobCancelled):
        run.output("never")
    assert run.outputs == ["kept"]


def test_keys_are_in_order_of_output() -> None:
    places = [OutputPosition(fence, number) for fence in (1, 9, 10**17) for number in (0, 9, 10, 10**8)]
    keys = [place.key("a") for place in places]
    assert keys == sorted(keys)
    for at, place in enumerate(places):
        assert [key for key in keys if key > place.before("a") and key >= keys[at]] == keys[at:]


HANDLERS = Handlers()


@HANDLERS.job("words", stream=True)
def words(run: Run, count: int) -> Generator[str, None, int]:
    """Yield words, and return how many there were."""
    for number in range(count):
        yield f"w{number} "
    return count


@HANDLERS.job("words_in_process", stream=True, isolation="process")
def words_in_process(run: Run, count: int) -> Generator[str, None, int]:
    """Do the same in a child process."""
    for number in range(count):
        yield f"w{number} "
    return count


@HANDLERS.job("words_in_loop", stream=True)
async def words_in_loop(run: AsyncRun, count: int) -> AsyncIterator[str]:
    """Yield words in an event loop."""
    for number in range(count):
        yield f"w{number} "


def test_texts_of_generator_are_output(manager: JobManager) -> None:
    jobs = Jobs(manager, handlers=HANDLERS)
    with jobs.run_workers():
        for name, result in (("words", 3), ("words_in_process", 3), ("words_in_loop", None)):
            job = jobs.wait(jobs.submit(name, {"count": 3}), PATIENCE)
            text = "".join(chunk.text for chunk in jobs.output(job.job_id))
            assert (job.status, job.result, text) == ("completed", result, "w0 w1 w2 ")


def test_generator_has_cleaned_up_when_its_run_ends(manager: JobManager) -> None:
    """What stops it, or refuses its text, is raised at its `yield`."""
    jobs, seen, began = Jobs(manager), dict[str, str](), threading.Event()

    @jobs.job("sync", stream=True)
    def until_stopped(run: Run) -> Iterator[str]:
        try:
            while True:
                began.set()
                time.sleep(0.005)
                yield "text"
        except BaseException as error:
            time.sleep(0.1)
            seen["sync"] = type(error).__name__
            raise

    @jobs.job("async", stream=True)
    async def wrong(run: AsyncRun) -> AsyncIterator[Any]:
        try:
            yield 5
        except Exception as error:
            await asyncio.sleep(0.1)
            seen["async"] = type(error).__name__
            raise

    with jobs.run_workers():
        job = jobs.submit(until_stopped)
        assert began.wait(PATIENCE)
        jobs.cancel_job(job.job_id)
        until(lambda: jobs.get_job(job.job_id).receipt.confirmed)
        assert seen == {"sync": "JobCancelled"}
        assert jobs.wait(jobs.submit(wrong), PATIENCE).status == "failed"
        assert seen == {"sync": "JobCancelled", "async": "InvalidInputError"}


def test_generator_and_option_must_agree() -> None:
    def plain(run: Run) -> None:
        """Yield nothing."""

    def texts(run: Run) -> Iterator[str]:
        yield "text"

    with pytest.raises(InvalidInputError, match="yields no text, but has stream=True"):
        Handlers().job("plain", stream=True)(plain)
    with pytest.raises(InvalidInputError, match="is a generator; give stream=True"):
        Handlers().job("texts")(texts)
