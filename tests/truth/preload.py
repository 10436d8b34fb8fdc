"""What the server of forked workers imports once. Nothing here starts a thread."""

import importlib

import celery  # noqa: F401
import django.core.asgi  # noqa: F401
import flask  # noqa: F401
import pydantic  # noqa: F401
import redis  # noqa: F401

import milepost.web
import milepost.worker.worker  # noqa: F401
from tests.truth.runner import HANDLERS

for name in HANDLERS:
    importlib.import_module(f"tests.truth.handlers.{name}")
