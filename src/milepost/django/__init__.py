"""The Tasks API of Django on milepost: a backend with progress and cancellation, its worker, and the jobs in the admin.

Requires Django 6, or Django 5.2 with the package `django-tasks`: the extra `django`.
"""

from milepost.core.errors import MissingExtraError

try:
    from milepost.django.backend import Backend
    from milepost.django.task import MilepostTask, TaskContext
except ImportError as missing:
    if missing.name is None or missing.name.partition(".")[0] not in ("django", "django_tasks"):
        raise
    raise MissingExtraError("django", "milepost.django") from missing

__all__ = ["Backend", "MilepostTask", "TaskContext"]
