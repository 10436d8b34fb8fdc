"""The permissions of jobs, under which the admin shows them. Jobs are in their store: this model has no table."""

from __future__ import annotations

from django.db import models


class Job(models.Model):
    """A job. Never queried: it gives the admin an entry, and users the permissions to see, change and delete jobs."""

    class Meta:
        """No table, and the permissions with their effect on jobs."""

        managed = False
        default_permissions = ()
        permissions = (
            ("view_job", "Can view jobs"),
            ("change_job", "Can submit, cancel and retry jobs"),
            ("delete_job", "Can delete jobs"),
        )
