"""The decorator `task` of Django 6, or of the package django-tasks."""

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

__all__ = ["task"]
