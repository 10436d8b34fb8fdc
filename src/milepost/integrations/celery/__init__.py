"""Celery: `CeleryTaskQueue(app)` runs submitted jobs on Celery workers; `@tracked` gives existing tasks a job record.

The message of a submitted job is acknowledged on arrival, so that no broker delivers it again while it runs. A tracked
task keeps its own settings; its lease prevents a duplicate message from running it twice.
"""

from milepost.core.errors import MissingExtraError

try:
    from milepost.integrations.celery.task_queue import CeleryTaskQueue
    from milepost.integrations.celery.tracked import _jobs_of as _jobs_of
    from milepost.integrations.celery.tracked import tracked
except ImportError as missing:
    if (missing.name or "").partition(".")[0] not in ("celery", "kombu", "billiard"):
        raise
    raise MissingExtraError("celery", "milepost.integrations.celery") from missing

from milepost.run.run import current_run

__all__ = ["CeleryTaskQueue", "current_run", "tracked"]
