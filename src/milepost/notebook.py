"""Live progress bars in notebooks: `display(run)` for a run of this kernel, `follow` for a job that runs elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.app import AsyncJobs, Jobs
    from milepost.core.job import Job
    from milepost.manager.manager import AsyncJobManager
    from milepost.manager.sync import JobManager
    from milepost.run.run import Run

log = logging.getLogger("milepost.notebook")
log.addHandler(logging.NullHandler())

REFRESH_INTERVAL = 0.3
"""Seconds between two updates of a bar."""


def follow(manager: JobManager | Jobs, job_id: str) -> Job:
    """Show a live bar for a job until it ends, and return the job. Interrupting the cell does not stop the job.

    Raises JobNotFoundError.
    """
    display: _Display | None = None
    for _ in manager.watch(job_id):
        display = _draw(display, manager.get_job(job_id))
    job = manager.wait(job_id)
    _draw(display, job)
    return job


async def afollow(manager: AsyncJobManager | AsyncJobs, job_id: str) -> Job:
    """Show a live bar for a job of an AsyncJobManager until it ends, and return the job."""
    display: _Display | None = None
    async for _ in manager.watch(job_id):
        display = _draw(display, await manager.get_job(job_id))
    job = await manager.wait(job_id)
    _draw(display, job)
    return job


def show_run(run: Run) -> None:
    """Show a live bar for a run of this process until it ends. A thread updates it a few times a second."""
    display = _Display(run._repr_html_())
    if run._captures is not None:
        threading.Thread(target=_refresh, args=(run, display), name="milepost-notebook", daemon=True).start()


def _refresh(run: Run, display: _Display) -> None:
    try:
        has_ended = False
        while not has_ended:
            time.sleep(REFRESH_INTERVAL)
            has_ended = run._captures is None  # looked at first: the last bar is that of the end
            display.draw(run._repr_html_())
    except Exception:
        log.warning("job %s: progress bar not updated", run.job_id, exc_info=True)


def _draw(display: _Display | None, job: Job | None) -> _Display | None:
    if job is None:
        return display
    if display is None:
        return _Display(job._repr_html_())
    display.draw(job._repr_html_())
    return display


class _Display:
    """An output area of the notebook and what it shows."""

    def __init__(self, html: str) -> None:
        notebook: Any = import_module("IPython.display")
        self._html = notebook.HTML
        self._shown = html
        self._handle = notebook.display(notebook.HTML(html), display_id=True)

    def draw(self, html: str) -> None:
        """Update the output if it has changed."""
        if html != self._shown and self._handle is not None:
            self._shown = html
            self._handle.update(self._html(html))
