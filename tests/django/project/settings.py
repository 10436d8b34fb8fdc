"""The test project: one backend for each kind of store; PostgreSQL is Django's own database."""

import json
import os

SECRET_KEY = "only for tests"
USE_TZ = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "milepost.django", "blog"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", **json.loads(os.environ["TEST_DATABASE"])}}
DATABASES["default"]["TEST"] = {"NAME": os.environ["TEST_DATABASE_NAME"]}


def backend(queues: tuple[str, ...] = ("default", "slow"), **options: str) -> dict[str, object]:
    """Return the entry of TASKS for the options of a backend."""
    return {"BACKEND": "milepost.django.Backend", "QUEUES": list(queues), "OPTIONS": options}


TASKS = {
    "default": backend(database="default"),
    "sqlite": backend(url=os.environ["TEST_SQLITE"]),
    "redis": backend(url=os.environ["TEST_REDIS"], namespace=os.environ["TEST_NAMESPACE"]),
    "memory": backend(url="memory://"),
}
