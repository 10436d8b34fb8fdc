"""Schemas of usage."""

from __future__ import annotations

from typing import Literal

from milepost.web.schemas.fields import ResponseModel


class Usage(ResponseModel):
    """What jobs spent from the day `since` to the day `until`, both included, in UTC: amounts by name, by group and in all.

    Groups are types, days, or values of a label; jobs without the label are under "". `complete` is false if earlier days
    of the period are no longer kept. `label_names` has the names of the labels of these jobs.
    """

    since: str
    until: str
    by: str
    groups: dict[str, dict[str, float]]
    total: dict[str, float]
    complete: bool
    label_names: list[str]


class JobUsage(ResponseModel):
    """What the runs of a job, its descendants, and both have spent: amounts by name. And the budget of the job, which covers
    its descendants, with what happens once it is spent; null without a budget."""

    own: dict[str, float]
    descendants: dict[str, float]
    total: dict[str, float]
    budget: dict[str, float]
    on_budget: Literal["fail", "ask"] | None
