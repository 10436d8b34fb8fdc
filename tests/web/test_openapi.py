"""The OpenAPI document: kept in the repository, and true of what the interface answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from milepost.core.job import Job
from milepost.web import models, openapi
from milepost.web.models import JobRecord
from milepost.web.models.examples import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]


def test_the_kept_document_is_the_one_that_is_generated() -> None:
    kept = (ROOT / "docs" / "openapi.json").read_text("utf-8")
    if openapi.text() != kept:
        pytest.fail("docs/openapi.json is out of date: python -m milepost.web.openapi docs/openapi.json")


def test_the_record_has_the_fields_of_a_job_in_their_order() -> None:
    assert list(JobRecord.model_fields) == list(Job.__dataclass_fields__)


def json_answers() -> list[tuple[str, Any]]:
    """Each answer that has a body of ours, with how the document shows it."""
    found = []
    for path, calls in openapi.document()["paths"].items():
        for method, call in calls.items():
            for status, answer in call["responses"].items():
                for media, shown in answer.get("content", {}).items():
                    found.append((f"{method.upper()} {path} {status} {media}", shown))
    return found


def test_every_answer_has_an_example() -> None:
    document = openapi.document()
    without = []
    for name, shown in json_answers():
        schema = shown.get("schema", {})
        schema = schema.get("items", schema)
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if "example" not in shown and "examples" not in schema:
            without.append(name)
    assert without == []


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_is_what_it_is_an_example_of(name: str) -> None:
    model = getattr(models, name)
    given = model.model_validate(EXAMPLES[name])
    known = {field.alias or field_name for field_name, field in model.model_fields.items()}
    required = {field.alias or field_name for field_name, field in model.model_fields.items() if field.is_required()}
    assert required <= set(EXAMPLES[name])
    assert set(EXAMPLES[name]) <= known, "no field that the answer does not have"
    assert given


def test_the_documents_are_in_it() -> None:
    assert {"/api/documents/search", "/api/documents/neighbours"} <= set(openapi.document()["paths"])
