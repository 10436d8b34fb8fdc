"""What all shapes share: requests refuse fields that they do not know, answers may gain some."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from milepost.web.models.examples import EXAMPLES

Status = Literal["pending", "running", "completed", "failed", "cancelled"]
Ended = Literal["completed", "failed", "cancelled"]
Json = Any

TYPE_PATTERN = r"^[A-Za-z0-9._:/-]{1,128}$"
ID_PATTERN = r"^[A-Za-z0-9._:-]{1,128}$"


def _text_only(value: Any) -> Any:
    """Numbers are no times: nobody would know their unit."""
    if value is not None and not (isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value)):
        raise ValueError("write a time as ISO 8601 text")
    return value


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 4.0 is the whole number 4."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


Whole = Annotated[int, BeforeValidator(_whole)]
When = Annotated[datetime, Field(strict=False), BeforeValidator(_text_only)]


class Asked(BaseModel):
    """A request: fields that are not known are refused, and what is not a number is not made one."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """An answer: clients must pass over fields that they do not know."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The shape with its example."""
        shown = handler(schema)
        if cls.__name__ in EXAMPLES:
            handler.resolve_ref_schema(shown)["examples"] = [EXAMPLES[cls.__name__]]
        return shown
