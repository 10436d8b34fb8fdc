"""The model is asked once for each document, plus at most once for each killed worker; the approval continues the job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from milepost import Jobs
from tests.chaos.calibration import slowness
from tests.waiting import PATIENCE, current, until

pytestmark = pytest.mark.timing
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DOCUMENTS, KILLS = 6, (2, 4)


class Model:
    """A fake model on a port of its own: it counts what it is asked, and answers in capitals."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.allowed = 0
        """How many documents it answers; it holds the next one back."""
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][0]["content"].removeprefix("Summarise: ")
                model.asked[text] += 1
                until(lambda: len(model.asked) <= model.allowed)
                reply = json.dumps({"choices": [{"message": {"content": text.upper()}}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def model() -> Iterator[Model]:
    """Yield a fake model."""
    model = Model()
    yield model
    model.server.shutdown()
    model.server.server_close()


def kept(jobs: Jobs, job_id: str) -> int:
    """Return how many summaries are kept."""
    return [event.kind for event in jobs.events(job_id)].count("step")


def test_killed_workers_repeat_no_answer_of_the_model(tmp_path: Path, sqlite_url: str, model: Model) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    for number in range(DOCUMENTS):
        (folder / f"{number}.txt").write_text(f"text {number}")
    environment = {
        **os.environ,
        "MILEPOST_URL": sqlite_url,
        "LLM_URL": model.url,
        "MILEPOST_LEASE": str(2 * slowness()),  # a run that a pause of the machine interrupts asks again
        "PYTHONPATH": str(EXAMPLES),
    }
    command = [str(Path(sys.executable).with_name("milepost")), "worker", "llm_review:jobs"]
    jobs = Jobs(sqlite_url)
    job_id = jobs.enqueue("review", {"folder": str(folder)}, max_attempts=3).job_id
    worker = subprocess.Popen(command, env=environment)
    try:
        for count in KILLS:
            model.allowed = count
            until(lambda count=count: kept(jobs, job_id) == count and len(model.asked) == count + 1)  # type: ignore[misc]
            worker.send_signal(signal.SIGKILL)
            worker.wait(30)
            worker = subprocess.Popen(command, env=environment)
        model.allowed = DOCUMENTS
        until(lambda: "held" in current(jobs, job_id).record)
        worker.send_signal(signal.SIGKILL)
        worker.wait(30)
        jobs.answer(job_id, "publish", {"approved": True}, by="ana")
        worker = subprocess.Popen(command, env=environment)
        job = jobs.wait(job_id, PATIENCE)
    finally:
        worker.kill()
        worker.wait(30)
    assert job.result == {"summaries": DOCUMENTS, "published": True}, job.error
    assert json.loads((folder / "summaries.json").read_text())["0.txt"] == "TEXT 0"
    assert set(model.asked) == {f"text {number}" for number in range(DOCUMENTS)}
    assert sum(model.asked.values()) <= DOCUMENTS + len(KILLS)
