"""What all shapes share: requests refuse fields that they do not know, answers may gain some."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["pending", "running", "completed", "failed", "cancelled"]
Ended = Literal["completed", "failed", "cancelled"]
Json = Any


class Asked(BaseModel):
    """A request: fields that are not known are refused, and what is not a number is not made one."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """An answer: clients must pass over fields that they do not know."""

    model_config = ConfigDict(extra="allow")
