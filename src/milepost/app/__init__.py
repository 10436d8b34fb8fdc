"""Jobs and AsyncJobs: the jobs of an application, with their handlers and workers."""

from milepost.app.jobs import AsyncJobs
from milepost.app.sync import Jobs

__all__ = ["AsyncJobs", "Jobs"]
