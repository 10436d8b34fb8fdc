"""The stored OpenAPI document is current, and describes the responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripts.fields import openapi_document, openapi_text

from milepost.core.job import Job
from milepost.web.schemas import JobRecord
from milepost.web.schemas.fields import EXAMPLES, ResponseModel

ROOT = Path(__file__).resolve().parents[2]


def test_stored_document_equals_generated_one() -> None:
    kept = (ROOT / "docs" / "openapi.json").read_text("utf-8")
    if openapi_text() != kept:
        pytest.fail("docs/openapi.json is out of date: python scripts/fields.py")


def test_record_schema_has_the_job_fields_in_order() -> None:
    assert list(JobRecord.model_fields) == [*Job.__dataclass_fields__, "stage_progress", "activity"]


def json_answers() -> list[tuple[str, Any]]:
    """Yield each response with a JSON body, and its documentation."""
    found = []
    for path, calls in openapi_document()["paths"].items():
        for method, call in calls.items():
            for status, answer in call["responses"].items():
                for media, shown in answer.get("content", {}).items():
                    found.append((f"{method.upper()} {path} {status} {media}", shown))
    return found


def test_every_response_has_an_example() -> None:
    document = openapi_document()
    without = []
    for name, shown in json_answers():
        schema = shown.get("schema", {})
        schema = schema.get("items", schema)
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if "example" not in shown and "examples" not in schema:
            without.append(name)
    assert without == []


@pytest.fixture(scope="module")
def documented() -> dict[str, type[ResponseModel]]:
    """Return the schemas of responses by name."""
    openapi_document()  # imports the routes
    models = [ResponseModel]
    for model in models:
        models += model.__subclasses__()
    return {model.__name__: model for model in models}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example_matches_its_schema(name: str, documented: dict[str, type[ResponseModel]]) -> None:
    model = documented[name]
    given = model.model_validate(EXAMPLES[name])
    known = {field.alias or field_name for field_name, field in model.model_fields.items()}
    required = {field.alias or field_name for field_name, field in model.model_fields.items() if field.is_required()}
    assert required <= set(EXAMPLES[name])
    assert set(EXAMPLES[name]) <= known, "no field that the answer does not have"
    assert given


def test_document_routes_are_included() -> None:
    assert {"/api/documents/search", "/api/documents/neighbours"} <= set(openapi_document()["paths"])
