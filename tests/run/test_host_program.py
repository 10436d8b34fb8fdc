"""Nothing of the standard library or of other packages is replaced in the host program unless the settings ask for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, logging, sys, threading
from concurrent.futures import ThreadPoolExecutor

import tqdm
from starlette.testclient import TestClient

def attributes():
    return {
        "threads": [threading.Thread.start, threading.Thread.run, ThreadPoolExecutor.submit],
        "imports": [*sys.meta_path, *sys.path_hooks, __import__],
        "tqdm": [tqdm.tqdm, {n: v for n, v in vars(tqdm.tqdm).items() if callable(v) or hasattr(v, "__func__") or "init" in n}],
        "streams": [sys.stdout, sys.stderr, print],
        "logging": [logging.Logger.callHandlers, logging.Logger.handle, logging.Handler.handle, *logging.root.handlers],
    }

before = attributes()
import milepost.tqdm
from milepost import InMemoryJobManager, Jobs
from milepost.web import auth, create_app

with InMemoryJobManager().track("tracked") as run:
    sum(milepost.tqdm.tqdm(range(3)))
    run.map(abs, [1, 2], concurrency=2)
jobs = Jobs()

@jobs.job
def handler(run):
    sum(tqdm.tqdm(range(3)))
    logging.getLogger("library").error("logged")

with TestClient(create_app(jobs, auth=auth.none())) as client, jobs.run_workers():
    job = jobs.wait(jobs.submit(handler).job_id, 60)
    assert client.get(f"/api/jobs/{job.job_id}").json()["status"] == "completed"
after = attributes()
print(json.dumps([name for name in before if before[name] != after[name]]))
"""


@pytest.mark.parametrize(
    ("capture", "changed"),
    [(None, []), ("none", []), ("logging", []), ("threads", ["threads"]), ("tqdm", ["tqdm"])],
)
def test_host_is_unchanged_unless_capture_asks(capture: str | None, changed: list[str]) -> None:
    environment = {} if capture is None else {"MILEPOST_CAPTURE": capture}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == changed
