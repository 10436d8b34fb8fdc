"""Live bars in notebooks: `display(run)` follows a run of this kernel, `follow` a job that runs elsewhere.

Owns when a picture is drawn anew; the picture itself is of `core.html`. IPython is imported when something is shown.
"""

from __future__ import annotations

import logging
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.core.job import Job
    from milepost.manager.asynchronous import AsyncJobManager
    from milepost.manager.synchronous import JobManager
    from milepost.tracking.run import Run

log = logging.getLogger("milepost.notebook")
log.addHandler(logging.NullHandler())

EVERY = 0.3
"""Seconds between two looks at a run."""


def follow(manager: JobManager, job_id: str) -> Job:
    """Show a job with a bar that moves, until its end; the ended job. Interrupting the cell leaves the job alone.

    Raises JobNotFound.
    """
    picture: _Picture | None = None
    for _ in manager.watch(job_id):
        picture = _drawn(picture, manager.get_job(job_id))
    job = manager.wait(job_id)
    _drawn(picture, job)
    return job


async def afollow(manager: AsyncJobManager, job_id: str) -> Job:
    """`follow` for an AsyncJobManager: ``await afollow(jobs, job.job_id)``."""
    picture: _Picture | None = None
    async for _ in manager.watch(job_id):
        picture = _drawn(picture, await manager.get_job(job_id))
    job = await manager.wait(job_id)
    _drawn(picture, job)
    return job


def show_run(run: Run) -> None:
    """Show a run of this process with a bar that moves until its end; a thread looks at it a few times a second."""
    picture = _Picture(run._repr_html_())
    if run.captures is not None:
        threading.Thread(target=_keep, args=(run, picture), name="milepost-notebook", daemon=True).start()


def _keep(run: Run, picture: _Picture) -> None:
    try:
        while run.captures is not None:
            time.sleep(EVERY)
            picture.draw(run._repr_html_())
    except Exception:
        log.warning("the bar of job %s cannot be drawn anew", run.job_id, exc_info=True)


def _drawn(picture: _Picture | None, job: Job | None) -> _Picture | None:
    if job is None:
        return picture
    if picture is None:
        return _Picture(job._repr_html_())
    picture.draw(job._repr_html_())
    return picture


class _Picture:
    """One place in the notebook, with what is drawn there."""

    def __init__(self, html: str) -> None:
        notebook: Any = import_module("IPython.display")
        self._html = notebook.HTML
        self._drawn = html
        self._handle = notebook.display(notebook.HTML(html), display_id=True)

    def draw(self, html: str) -> None:
        """Draw anew, if that makes a difference."""
        if html != self._drawn and self._handle is not None:
            self._drawn = html
            self._handle.update(self._html(html))
