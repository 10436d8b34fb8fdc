"""Chains, chords, links and retries with worker deaths: tracked tasks have the results of bare Celery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.calibration import slowness
from tests.integrations.conftest import PATIENCE, Deployment
from tests.redis_server import RedisServer

pytest.importorskip("celery")

CANVAS = (
    "-m", "celery", "-A", "tests.integrations.celery_canvas_app", "worker", "--concurrency={concurrency}", "--loglevel=INFO",
    "--without-gossip", "--without-mingle", "--queues=celery,other",
)  # fmt: skip
THREADS = ("--pool=threads",)
KINDS = ("bare", "tracked")


@pytest.fixture
def deployment(make_deployment: Callable[..., Deployment], broker: RedisServer) -> Deployment:
    """Return an application whose broker delivers a message again after twice the lease."""
    made = make_deployment("tests.integrations.celery_canvas_app", CANVAS, broker.url)
    lease = 2 * slowness()
    made.environment |= {
        "TEST_RESULTS": broker.url,
        "TEST_VISIBILITY": f"{2 * lease:g}",
        "MILEPOST_LEASE": f"{lease:g}",
    }
    return made


def open_gate(deployment: Deployment) -> None:
    """Let waiting tasks continue."""
    Path(f"{deployment.log}.open").touch()


def both(make: Callable[[Any], Any], deployment: Deployment) -> dict[str, Any]:
    """Return the results of one workflow as it is and tracked, by kind."""
    sent = {kind: make(deployment.app.tasks[kind]) for kind in KINDS}
    return {kind: result.get(timeout=PATIENCE) for kind, result in sent.items()}


def stored(deployment: Deployment, result: Any) -> Any:
    """Return a result when it is stored.

    `result.get()` may give the result of the first use of a task id: its announcement can arrive after `forget()`.
    """

    def meta() -> dict[str, Any]:
        found: dict[str, Any] = deployment.app.app.backend.get_task_meta(result.id, cache=False)
        return found

    deployment.until(lambda: meta()["status"] == "SUCCESS", f"the result of {result.id} is stored")
    return meta()["result"]


@pytest.mark.timing
def test_worker_death_in_workflow_matches_bare_celery(deployment: Deployment) -> None:
    """The message that was sent again lacked chain, chord, link and routing, so the rest of the workflow never ran."""
    from celery import chain, chord, group

    workflows: dict[str, Callable[[Any], Any]] = {
        "chain": lambda t: chain(t.held.s(2, 2), t.add.s(40))(),
        "chord": lambda t: chord([t.held.s(3, 3), t.add.s(1, 1)], t.total.s())(),
        "group": lambda t: group([t.held.s(4, 4), t.add.s(1, 1)])(),
        "link": lambda t: t.held.apply_async((5, 5), link=t.add.s(5000)),
        "chord of chains": lambda t: chain(
            chord([chain(t.held.s(6, 6), t.add.s(1)), t.add.s(2, 2)], t.total.s()), t.add.s(70)
        )(),
        "routed": lambda t: t.routed.apply_async(
            queue="other", priority=6, time_limit=50, soft_time_limit=40, headers={"tenant": "acme"}
        ),
    }
    worker = deployment.start(16, *THREADS)
    sent = {(name, kind): make(deployment.app.tasks[kind]) for name, make in workflows.items() for kind in KINDS}
    for kind in KINDS:
        deployment.wait_for_lines(f"{kind} held", 5)
        deployment.wait_for_lines(f"{kind} routed")
    deployment.kill(worker)
    open_gate(deployment)
    deployment.start(16, *THREADS)
    results = {key: result.get(timeout=PATIENCE) for key, result in sent.items()}
    for name in workflows:
        assert results[name, "tracked"] == results[name, "bare"], name
    assert results["chain", "tracked"] == 44
    assert results["routed", "tracked"] == ["other", 6, [50, 40], "acme"]
    deployment.wait_for_lines("bare add 10 5000")
    deployment.wait_for_lines("tracked add 10 5000")
    for job in deployment.jobs.list_jobs(limit=100):
        deployment.ended(job.job_id)
    assert sum(line.startswith("tracked held") for line in deployment.lines()) == 10, "each twice: killed once"


@pytest.mark.timing
def test_worker_death_before_next_link_keeps_result(deployment: Deployment) -> None:
    """A worker killed between the end in the record and Celery's next step lost the result and the rest of the chain."""
    from celery import chain

    deployment.environment["TEST_WORKER"] = "1"
    Path(f"{deployment.log}.window").touch()
    worker = deployment.start(1, "--pool=solo")
    sent = {
        kind: chain(deployment.app.tasks[kind].pair.s(4), deployment.app.tasks[kind].kind_of.s())() for kind in KINDS
    }
    worker.wait(PATIENCE)
    deployment.start(1, "--pool=solo")
    results = {kind: result.get(timeout=PATIENCE) for kind, result in sent.items()}
    assert results == {"bare": "int datetime", "tracked": "int datetime"}
    assert sent["tracked"].parent.get(timeout=PATIENCE) == sent["bare"].parent.get(timeout=PATIENCE)
    assert deployment.lines().count("tracked pair 4") == 1, "its result was recorded, so it did not run again"


@pytest.mark.timing
@pytest.mark.parametrize("lease", [PATIENCE, pytest.param(2.0, marks=pytest.mark.slow)])
def test_task_failed_by_celery_is_not_rerun(lease: float, deployment: Deployment) -> None:
    """Celery failed a task for its hard time limit or its dead process, and the record ran it two more times.

    A short lease ends before Celery says that the process is gone, so the worker keeps it until then.
    """
    from celery.exceptions import TimeLimitExceeded, WorkerLostError

    deployment.environment |= {"MILEPOST_LEASE": f"{lease:g}", "TEST_VISIBILITY": "3600"}
    deployment.start(2)
    for name, error, kind in (("too_long", TimeLimitExceeded, "timeout"), ("dies", WorkerLostError, "killed")):
        sent = {kind: getattr(deployment.app.tasks[kind], name).delay() for kind in KINDS}
        for result in sent.values():
            with pytest.raises(error):
                result.get(timeout=PATIENCE)
        job = deployment.ended(sent["tracked"].id)
        assert job.failure is not None
        assert (job.status, job.failure.kind) == ("failed", kind)
        assert [deployment.lines().count(f"{kind} {name}") for kind in KINDS] == [1, 1]


@pytest.mark.timing
def test_redelivered_task_continues_its_chain(deployment: Deployment) -> None:
    """With reject_on_worker_lost the message came again at once, met the dead run's lease and was thrown away."""
    from celery import chain

    deployment.environment["TEST_VISIBILITY"] = "3600"
    deployment.start(2)
    assert both(lambda t: chain(t.dies_once.s(1), t.add.s(500))(), deployment) == {"bare": 501, "tracked": 501}


def test_workflows_match_bare_celery(deployment: Deployment) -> None:
    """A task that replaced itself, retried at once or used a task id again was dropped, and its result never came."""
    from celery import chain, chord

    workflows: dict[str, tuple[Callable[[Any], Any], Any]] = {
        "replace": (lambda t: t.replacing.delay(1), 101),
        "replace by a chain": (lambda t: t.replacing_twice.delay(1), 1101),
        "replace in a chain": (lambda t: chain(t.replacing.s(1), t.add.s(5))(), 106),
        "replace in a chord": (lambda t: chord([t.replacing.s(1), t.add.s(1, 1)], t.total.s())(), 103),
        "retry in a chain": (lambda t: chain(t.at_once.s(2), t.add.s(5))(), 7),
    }
    deployment.environment["TEST_VISIBILITY"] = "3600"
    deployment.start(4, *THREADS)
    for name, (make, expected) in workflows.items():
        assert both(make, deployment) == {"bare": expected, "tracked": expected}, name
    retries = {kind: [deployment.app.tasks[kind].at_once.delay(3) for _ in range(10)] for kind in KINDS}
    for kind in KINDS:
        assert [result.get(timeout=PATIENCE) for result in retries[kind]] == [3] * 10
    for kind in KINDS:
        task = deployment.app.tasks[kind]
        assert stored(deployment, task.add.apply_async((1, 2), task_id=f"nightly-{kind}")) == 3
        deployment.app.app.backend.forget(f"nightly-{kind}")
        assert stored(deployment, task.add.apply_async((3, 4), task_id=f"nightly-{kind}")) == 7
        task.broken.apply_async(link_error=task.remember.s())
        deployment.wait_for_lines(f"{kind} remember KeyError")
    jobs = [job for job in deployment.jobs.list_jobs(limit=100) if job.metadata == {"celery_id": "nightly-tracked"}]
    jobs = [deployment.ended(job.job_id) for job in jobs]
    assert sorted(job.result for job in jobs) == [3, 7], "each use of the task id is a job of its own"


def test_record_names_parent_and_group_of_task(deployment: Deployment) -> None:
    from celery import chain, group

    deployment.environment["TEST_VISIBILITY"] = "3600"
    deployment.start(2, *THREADS)
    tasks = deployment.app.tasks["tracked"]
    last = chain(tasks.add.s(1, 1), tasks.add.s(5))()
    members = group([tasks.add.s(1, 2), tasks.add.s(3, 4)])()
    alone = tasks.add.delay(7, 8)
    assert (last.get(timeout=PATIENCE), members.get(timeout=PATIENCE)) == (7, [3, 7])
    second = deployment.ended(last.id)
    first = deployment.ended(last.parent.id)
    assert (first.parent_id, second.parent_id, second.group) == (None, first.job_id, None)
    assert [deployment.ended(one.id).group for one in members.results] == [members.id, members.id]
    assert (deployment.ended(alone.id).parent_id, deployment.ended(alone.id).group) == (None, None)
