"""The blocking and the async API have the same members, parameters and docstrings."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from milepost import AsyncJobManager, AsyncJobs, JobManager, Jobs

PAIRS = [(AsyncJobManager, JobManager), (AsyncJobs, Jobs)]
INSTANCE_ATTRIBUTES = {"store", "settings", "ttl", "handlers", "dispatcher"}
"""Attributes of the async API that are properties of the blocking one."""
DIFFERENT_TEXT = {"run_workers"}
INTERNAL = {"sweeper", "dispatch"}
"""Members of the async API that only milepost's own code needs."""


def public(cls: type) -> dict[str, Any]:
    """Return the public methods of a class, inherited ones included."""
    return {name: member for name, member in inspect.getmembers(cls, callable) if not name.startswith("_")}


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_blocking_api_has_every_member_of_the_async_api(asynchronous: type, blocking: type) -> None:
    missing = set(public(asynchronous)) - set(public(blocking)) - INTERNAL
    extra = set(public(blocking)) - set(public(asynchronous)) - INSTANCE_ATTRIBUTES
    assert (missing, extra) == (set(), set())


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_both_apis_have_the_same_parameters(asynchronous: type, blocking: type) -> None:
    for name in set(public(asynchronous)) & set(public(blocking)):
        pair = [list(inspect.signature(getattr(cls, name)).parameters.values()) for cls in (asynchronous, blocking)]
        assert pair[0] == pair[1], name


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_both_apis_have_the_same_docstrings(asynchronous: type, blocking: type) -> None:
    for name in set(public(asynchronous)) & set(public(blocking)) - DIFFERENT_TEXT:
        texts = [" ".join((getattr(cls, name).__doc__ or "").split()) for cls in (asynchronous, blocking)]
        assert texts[1], name
        assert texts[0].replace("``async with", "``with") == texts[1], name
