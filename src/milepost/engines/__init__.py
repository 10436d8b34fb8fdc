"""Hand the running of jobs to an engine that a team already has: `celery`, `rq`, `dramatiq`, `taskiq`, one module each.

Owns what each of them calls a message, a worker and a stop. When a job is recorded, and what a message that arrives may
do, is the seam's, in `milepost.worker`. `current_run()` is the run of the job that the calling code is part of.
"""

from milepost.worker.delivery import current_run
from milepost.worker.engine import Engine, EngineUnavailable

__all__ = ["Engine", "EngineUnavailable", "current_run"]
