"""The OpenAPI document: kept in the repository, and true of what the interface answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from milepost.core.job import Job
from milepost.web import openapi
from milepost.web.models import JobRecord

ROOT = Path(__file__).resolve().parents[2]


def test_the_kept_document_is_the_one_that_is_generated() -> None:
    kept = (ROOT / "docs" / "openapi.json").read_text("utf-8")
    if openapi.text() != kept:
        pytest.fail("docs/openapi.json is out of date: python -m milepost.web.openapi docs/openapi.json")


def test_the_record_has_the_fields_of_a_job_in_their_order() -> None:
    assert list(JobRecord.model_fields) == list(Job.__dataclass_fields__)
