"""A checkpoint is in the store when its call returns, and raises if the store has rejected it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from milepost import JobManager, LeaseLost, Run, Settings
from milepost.core.errors import StoreFullError, StoreUnavailableError
from milepost.core.transitions import plan_lease_expired
from milepost.manager.manager import AsyncJobManager
from milepost.stores.factory import open_store
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from tests.waiting import PATIENCE, current, lose_lease

pytestmark = pytest.mark.timing


@pytest.fixture
async def amanager(url: str, options: Settings) -> AsyncIterator[AsyncJobManager]:
    """Yield an async manager whose heartbeat is too slow to stop a run."""
    slow = replace(options, lease=600.0, heartbeat=120.0, sweep=120.0)
    made = AsyncJobManager(open_store(url, namespace=options.namespace, blocking=False), options=slow)
    yield made
    await made.close()


async def lose(manager: AsyncJobManager, run: Run) -> None:
    """End a run as the sweeper does when its lease has expired."""
    await manager.store.renew([(run.job_id, run.token)], 0)
    await asyncio.sleep(0.01)
    plan = plan_lease_expired(new_operation_id(), error="gone", failure="{}", crash_loop="{}", crashes_left=None)
    assert (await manager.store.apply([Write(run.job_id, plan)])).outcomes[0].accepted


@pytest.mark.parametrize("in_a_task", [False, True])
async def test_awaited_checkpoint_raises_if_store_rejects_it(amanager: AsyncJobManager, in_a_task: bool) -> None:
    """Regression: after a lost lease, `await run.acheckpoint()` returned as if the checkpoint had been written."""
    went_on: list[int] = []

    async def work(run: Run) -> None:
        await run.acheckpoint({"page": 2})
        went_on.append(2)

    with pytest.raises(LeaseLost):  # noqa: PT012
        async with amanager.track() as run:
            await run.acheckpoint({"page": 1})
            at = run._checkpoint_at
            await lose(amanager, run)
            await (asyncio.gather(work(run)) if in_a_task else work(run))
    assert (went_on, run._checkpoint_at) == ([], at)
    job = await amanager.get_job(run.job_id)
    assert job is not None
    assert (job.status, job.error) == ("failed", "gone")


@pytest.mark.parametrize("is_async", [False, True])
async def test_kill_after_first_checkpoint_in_loop_leaves_its_place(amanager: AsyncJobManager, is_async: bool) -> None:
    """Regression: only the next heartbeat recorded that the checkpoint was made in a loop. After a kill before it, the
    next attempts refused `run.map`, as with a checkpoint outside of a loop.
    """
    with pytest.raises(LeaseLost):  # noqa: PT012
        async with amanager.track("walk", unique_key="k") as run:
            for page in run.each([1]):
                await run.acheckpoint(page) if is_async else await asyncio.to_thread(run.checkpoint, page)
                await lose(amanager, run)
    async with amanager.track("walk", unique_key="k") as run:
        assert run.last_checkpoint == 1
        assert run.map(str, [1]) == ["1"]


def test_checkpoint_after_a_lost_lease_raises(manager: JobManager) -> None:
    with pytest.raises(LeaseLost), manager.track() as run:  # noqa: PT012
        lose_lease(manager.store, run.job_id, run.token)
        run.checkpoint({"page": 1})
    assert run._checkpoint_at is None


@pytest.mark.parametrize("error", [StoreUnavailableError, StoreFullError])
def test_checkpoint_raises_if_store_did_not_write_it(
    manager: JobManager, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: `run.checkpoint()` returned during an outage, and the run showed the time of that checkpoint."""
    store = manager.runtime.heartbeat.store
    apply = store.apply

    async def refuses(writes: Any, *more: Any) -> Any:
        if any(write.change.transition.name == "checkpoint" for write in writes):
            raise error("away")
        return await apply(writes, *more)

    with manager.track() as run:
        monkeypatch.setattr(store, "apply", refuses)
        with pytest.raises(error, match="away"):
            run.checkpoint(1)
        assert run._checkpoint_at is None
        monkeypatch.setattr(store, "apply", apply)
        run.checkpoint(2)
    assert current(manager, run.job_id).status == "completed"


FORKS = """
import os, sys
from milepost import InvalidInputError, JobManager, Settings
manager = JobManager(sys.argv[1], options=Settings(namespace=sys.argv[2]))
way, child = sys.argv[3], -1
try:
    with manager.track() as run:
        run.checkpoint("parent")
        child = os.fork()
        if child == 0:
            if way == "exits":
                sys.exit(0)
            if way == "checkpoints":
                try:
                    run.checkpoint("child")
                except InvalidInputError as error:
                    os._exit(0 if "was forked from process" in str(error) else 3)
                os._exit(4)
            run.result = "child"
        else:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(code, manager.get_job(run.job_id).status)
            run.check()
            run.result = "parent"
finally:
    if child == 0:
        os._exit(0)
job = manager.get_job(run.job_id)
print(job.status, job.result)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("way", ["leaves the block", "exits", "checkpoints"])
def test_forked_child_does_not_write_parents_job(url: str, namespace: str, way: str) -> None:
    """Regression: a helper process that was forked inside a block and left the block ended the job of its parent."""
    command = [sys.executable, "-W", "ignore", "-c", FORKS, url, namespace, way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout.split("\n")[:2] == ["0 running", "completed parent"], done.stderr
