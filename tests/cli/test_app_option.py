"""What `worker`, `run` and `submit` take from an application besides its handlers: its store, its settings, its task queue."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost import Job, Jobs, Settings
from tests.cli.conftest import addresses
from tests.cli.stores_fixture import STORES
from tests.cli.subprocesses import PATIENCE, CommandRunner, until

pytestmark = pytest.mark.timing

SHOP = """
import time
from milepost import {kind}, Run, Settings

jobs = {kind}({store!r}, options=Settings(redact="masks:mask", capture="stdout", lease=3600, namespace={namespace!r}))

@jobs.job("pay")
def pay(run: Run) -> int:
    run.log("charging 4111")
    print("printed 4111")
    raise ValueError("card 4111 refused")

@jobs.job("hold")
def hold(run: Run) -> None:
    while True:
        run.check()
        time.sleep(0.01)
"""
MASKS = """
def mask(text):
    return text.replace("4111", "[card]")
"""
FACTORY = """
from pathlib import Path
from milepost import {kind}, Run, Settings

class Belt:
    name, lost_after = "belt", 3600.0
    def serve(self, app, dispatcher): pass
    def send(self, job): Path("messages").write_text(job.job_id)
    def requeue(self, job_id, job_type, delay): pass
    def stop(self, message, *, hard): return None
    def is_exit(self, error): return False
    def close(self): pass

jobs = {kind}({store!r}, options=Settings(namespace={namespace!r}), task_queue=Belt())

@jobs.job("count")
def count(run: Run, n: int) -> int:
    return n
"""
OWN = """
from milepost import {kind}, Run, Settings

jobs = {kind}({store!r}, options=Settings(namespace={namespace!r}))

@jobs.job("ingestion")
def ingestion(run: Run, paths: list[str]) -> str:
    return " ".join(paths)
"""


class Scene:
    """The program without a store in its environment, and applications that name their store."""

    def __init__(self, program: CommandRunner, store: str, namespace: str) -> None:
        self.program = program
        self.store = store
        self.namespace = namespace
        self.jobs = Jobs(store, options=Settings(namespace=namespace))

    def write(self, name: str, text: str, kind: str = "Jobs") -> None:
        """Write the module of an application."""
        filled = text.format(kind=kind, store=self.store, namespace=self.namespace)
        (self.program.folder / f"{name}.py").write_text(filled)

    def log_lines(self, job: Job) -> list[str]:
        """Return the log lines of a job."""
        return [line["text"] for event in self.jobs.events(job.job_id) for line in event.data.get("lines", ())]


@pytest.fixture(params=STORES)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """Yield the program and a store of its own."""
    store = addresses(request, request.param)
    with CommandRunner(tmp_path, MILEPOST_LEASE="20") as program:
        made = Scene(program, store["MILEPOST_URL"], store.get("MILEPOST_NAMESPACE", "shop"))
        (tmp_path / "masks.py").write_text(MASKS)
        yield made
        made.jobs.close()


@pytest.mark.parametrize("kind", ["Jobs", "AsyncJobs"])
def test_worker_uses_application_settings(scene: Scene, kind: str) -> None:
    """A card number that the application's `redact` hides was in the log and the error of every job that
    `milepost worker` ran, and the lease was another than the application asks for."""
    scene.write("shop", SHOP, kind)
    worker = scene.program.start("worker", "shop:jobs")
    until(scene.jobs.job_types)
    paid = scene.jobs.wait(scene.jobs.submit("pay").job_id, timeout=PATIENCE)
    assert paid.error == "card [card] refused"
    assert scene.log_lines(paid) == ["charging [card]", "printed [card]"]
    held_id = scene.jobs.submit("hold").job_id

    def held() -> Job | None:
        job = scene.jobs.get_job(held_id)
        return job if job is not None and job.lease_expires_at is not None else None

    job: Job = until(held)
    assert job.lease_expires_at is not None
    assert job.started_at is not None
    assert (job.lease_expires_at - job.started_at).total_seconds() > 3000
    worker.signal(signal.SIGTERM)
    assert worker.finish()[0] == 0


@pytest.mark.parametrize("given", [(), ("--url",)])
def test_run_uses_application_settings(scene: Scene, given: tuple[str, ...]) -> None:
    """`milepost run --app` showed and recorded a card number that the application's `redact` hides."""
    scene.write("shop", SHOP)
    url = (*given, scene.store) if given else ()
    done = scene.program.run("run", "pay", "--app", "shop:jobs", *url)
    assert done.returncode == 1
    assert "card 4111" not in done.stdout + done.stderr  # what the code prints itself is its own
    job = scene.jobs.list_jobs()[0]
    assert job.error == "card [card] refused"
    assert scene.log_lines(job) == ["charging [card]", "printed [card]"]


def test_own_type_named_like_a_built_in_one_is_not_treated_as_one(scene: Scene) -> None:
    """`milepost run --app` made the paths of such a job absolute, and then advised to search the documents."""
    scene.write("own", OWN)
    out = scene.program.call("run", "--app", "own:jobs", "ingestion", "a.txt")
    assert scene.jobs.list_jobs()[0].result == "a.txt"
    assert "milepost show" in out
    assert "milepost search" not in out
    unknown = scene.program.error_line("run", "--app", "own:jobs", "ingestoin", "a.txt", code=2)
    assert unknown.count("ingestion") == 1


@pytest.mark.parametrize("kind", ["Jobs", "AsyncJobs"])
def test_submit_uses_application_task_queue(scene: Scene, kind: str) -> None:
    """`milepost submit --app` for an application with a task queue recorded a job for milepost's own workers, and the
    task queue's workers never ran it."""
    scene.write("factory", FACTORY, kind)
    job_id = scene.program.call("submit", "count", "n=4", "--app", "factory:jobs").strip()
    job = scene.jobs.get_job(job_id)
    assert job is not None
    assert (job.run_by, job.record["task_queue"], job.params) == ("external", "belt", {"n": 4})
    assert (scene.program.folder / "messages").read_text() == job_id


def test_submit_to_store_of_no_task_queue_is_rejected(scene: Scene, tmp_path: Path) -> None:
    """The workers of a task queue look in the application's store alone; a job elsewhere waits for ever."""
    scene.write("factory", FACTORY)
    words = ("submit", "count", "n=4", "--app", "factory:jobs", "--url", f"sqlite:///{tmp_path / 'other.db'}")
    assert "--url: belt workers only use the store of the application" in scene.program.error_line(*words, code=2)
    assert not (tmp_path / "messages").exists()
