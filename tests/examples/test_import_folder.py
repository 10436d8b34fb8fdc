"""The example with children, whose workers are killed again and again: each file is imported, and the parent ends once."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from milepost import JobManager, Settings
from tests.chaos.calibration import slowness
from tests.cli.subprocesses import COMMAND
from tests.waiting import PATIENCE, until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES, KILLS = 24, 2

pytestmark = pytest.mark.timing


def start(url: str, lease: float) -> subprocess.Popen[bytes]:
    """Start a worker of the example."""
    environment = {**os.environ, "MILEPOST_URL": url, "MILEPOST_LEASE": str(lease)}
    command = [*COMMAND, "worker", "import_folder:jobs", "-c", "2"]
    return subprocess.Popen(
        command, env=environment, cwd=EXAMPLES, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_import_survives_kills_of_its_workers(tmp_path: Path, sqlite_url: str) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:03}.txt").write_text("one two\nthree\n" * (number + 1))
    lease = 2 * slowness()
    manager = JobManager(sqlite_url, options=Settings(lease=lease))
    job_id = manager.enqueue("import", {"folder": str(folder)}, max_attempts=3).job_id
    worker = start(sqlite_url, lease)
    try:
        for kill in range(1, KILLS + 1):
            until(lambda kill=kill: ended(manager, job_id) >= kill * FILES // (KILLS + 1))  # type: ignore[misc]
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            worker = start(sqlite_url, lease)
        job = manager.wait(job_id, PATIENCE)
    finally:
        worker.kill()
        worker.wait()
    assert job.result == {"files": FILES, "words": 3 * sum(range(1, FILES + 1))}, job.error
    assert manager.count_jobs("import.file") == FILES
    assert sum(event.kind == "completed" for event in manager.events(job_id)) == 1
    manager.close()


def ended(manager: JobManager, job_id: str) -> int:
    """Return how many files are imported; all once the parent has ended."""
    job = manager.get_job(job_id)
    return FILES if job is not None and job.is_terminal else manager.count_jobs("import.file", "completed")
