"""The test project: one backend for each kind of store; PostgreSQL is Django's own database."""

import json
import os

SECRET_KEY = "only for tests"
USE_TZ = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "milepost.django",
    "blog",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
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

try:
    import django.tasks as tasks_package
except ImportError:
    import django_tasks as tasks_package
IMMEDIATE_BACKEND = f"{tasks_package.__name__}.backends.immediate.ImmediateBackend"
