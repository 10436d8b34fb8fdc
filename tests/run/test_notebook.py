"""Runs and jobs in a notebook, in a real kernel, with all text escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from milepost import InMemoryJobManager, Job, JobManager
from milepost.testing import fake_run

pytestmark = pytest.mark.timing

HOSTILE = '<img src=x onerror="alert(1)">&amp;'


STAGES_JSON = json.dumps(
    [
        {"name": "Unpack", "done": 1, "unit": "file"},
        {"name": "Copy", "done": 3_400_000, "total": 80_100_000, "unit": "byte"},
    ]
)


class Tags(HTMLParser):
    """Parses the HTML as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_job_html_shows_bar_and_stages(manager: JobManager) -> None:
    with manager.track("ingestion") as run:
        with run.stage("Loading"):
            pass
        stage = run.stage("Embedding", total=4000, unit="chunk")
        stage.advance(1000)
        run.progress(0.25, "half way there")
    job = manager.get_job(run.job_id)
    assert job is not None
    seen = Tags(job._repr_html_())
    for part in (
        "ingestion",
        "completed",
        "100%",
        "✓ Loading",
        "▸ Embedding",
        "1,000 of 4,000 chunks",
    ):
        assert part in seen.text
    assert seen.tags == {"div", "b", "span", "code"}


def test_html_rounds_progress_and_counts_units_as_the_command_line_does() -> None:
    record = {"type": "t", "status": "running", "progress": "0.29", "created": "0", "stages": STAGES_JSON}
    text = Tags(Job.stored("j", record)._repr_html_()).text
    for part in ("29%", "Unpack1 file", "Copy3.4 MB of 80.1 MB"):
        assert part in text


def test_job_html_escapes_text() -> None:
    run = fake_run(job_type="x")
    run.job_type = HOSTILE
    run.stage(HOSTILE, unit=HOSTILE).advance(2)
    run.progress(0.5, HOSTILE)
    record = {"type": HOSTILE, "status": "failed", "error": HOSTILE, "progress": "0.5", "created": "0"}
    for html in (run._repr_html_(), Job.stored("j", record)._repr_html_()):
        seen = Tags(html)
        assert seen.tags == {"div", "b", "span", "code"}
        assert seen.text.count(HOSTILE) >= 2


def test_run_html_hides_secrets() -> None:
    run = fake_run()
    run._secret_values = ("hunter2",)
    run.progress(0.5, "with hunter2")
    assert "hunter2" not in run._repr_html_()


def test_html_of_ended_run_does_not_say_that_it_runs() -> None:
    """Regression: the bar of a run that had ended said "Running"."""
    with InMemoryJobManager().track("t") as run:
        assert "Running" in Tags(run._repr_html_()).text
        list(run.each(range(3)))
    shown = Tags(run._repr_html_()).text
    assert "✓ items3 of 3 items" in shown
    assert "Running" not in shown


def test_run_works_without_ipython() -> None:
    assert repr(fake_run()).startswith("<Run test fake")
    manager = InMemoryJobManager()
    assert repr(manager.create_job()).startswith("Job(")


# --- a real kernel -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """Yield a client of an IPython kernel in another process."""
    manager = KernelManager()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run_cell(kernel: Any, code: str) -> list[tuple[str, str]]:
    """Run a cell; return each output or update as its display id and HTML."""
    drawn: list[tuple[str, str]] = []

    def hear(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "error":
            raise AssertionError("\n".join(content["traceback"]))
        if message["msg_type"] in ("display_data", "update_display_data", "execute_result"):
            place = content.get("transient", {}).get("display_id", "")
            drawn.append((place, content["data"].get("text/html", "")))

    kernel.execute_interactive(code, timeout=90, output_hook=hear)
    return drawn


def percents(drawn: list[tuple[str, str]]) -> list[int]:
    """Return the progress of each output."""
    return [int(re.findall(r'aria-valuenow="(\d+)"', html)[0]) for _, html in drawn]


def test_run_bar_moves_while_cell_runs(kernel: Any) -> None:
    drawn = run_cell(kernel, """
import threading
import time
from IPython.display import display
from milepost import InMemoryJobManager
manager = InMemoryJobManager()
with manager.track("ingestion") as run:
    display(run)
    for _ in run.each(range(20)):
        time.sleep(0.1)
[drawing] = [thread for thread in threading.enumerate() if thread.name == "milepost-notebook"]
drawing.join()
""")  # fmt: skip
    assert len({place for place, _ in drawn}) == 1
    assert drawn[0][0]
    shown = percents(drawn)
    assert shown[0] == 0
    assert shown[-1] == 100
    assert shown == sorted(shown)
    assert len(set(shown)) > 3
    assert "ended" in drawn[-1][1]


def test_job_running_elsewhere_is_followed(kernel: Any) -> None:
    drawn = run_cell(kernel, """
import time
from milepost import Jobs, Run
from milepost.notebook import afollow, follow
jobs = Jobs("memory://")
@jobs.job("count")
def count(run: Run, n: int) -> int:
    for _ in run.each(range(n)):
        time.sleep(0.05)
    return n
job = follow(jobs, jobs.submit(count, n=40).job_id)
assert job.result == 40
""")  # fmt: skip
    shown = percents(drawn)
    assert len({place for place, _ in drawn}) == 1
    assert shown[-1] == 100
    assert len(set(shown)) > 3
    assert "completed" in drawn[-1][1]
    static = run_cell(kernel, "job")
    assert percents(static) == [100]
    drawn = run_cell(kernel, """
from milepost import AsyncJobManager
manager = AsyncJobManager(jobs.store.with_blocking(blocking=False))
made = await manager.create_job(job_type="by-hand")
await manager.update_job(made.job_id, status="running", progress=0.4)
import asyncio
async def later():
    await asyncio.sleep(0.5)
    await manager.update_job(made.job_id, status="completed")
ending = asyncio.create_task(later())
ended = await afollow(manager, made.job_id)
""")  # fmt: skip
    assert percents(drawn) == [40, 100]
