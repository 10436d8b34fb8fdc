"""The tree of errors, the backoff between attempts, and events as values."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from milepost.core import errors
from milepost.core.events import LIFECYCLE_KINDS, Event
from milepost.core.job import JobStatus
from milepost.run.retry_rules import BACKOFF_MAX, backoff


def tree() -> list[tuple[int, str, str]]:
    """Return the tree in the module docstring as (column, name, foreign base class)."""
    drawn = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"[|\s]*(?:\+-- )?([A-Z]\w+)(?: \((\w+)\))?(?=\s|$)", line)
        if found and hasattr(errors, found[1]):
            drawn.append((found.start(1), found[1], found[2] or ""))
    return drawn


def test_docstring_tree_matches_classes() -> None:
    classes = {n: c for n, c in vars(errors).items() if inspect.isclass(c) and c.__module__ == errors.__name__}
    drawn = tree()
    assert {name for _, name, _ in drawn} == set(classes)
    above: list[tuple[int, str]] = []
    for column, name, also in drawn:
        above = [place for place in above if place[0] < column]
        for base in [parent for _, parent in above[-1:]] + [also] * bool(also):
            assert base in [c.__name__ for c in classes[name].__mro__], f"{name} is no {base}"
        above.append((column, name))


def test_rejections_are_value_errors_and_stops_no_exceptions() -> None:
    assert issubclass(errors.RejectedError, ValueError)
    for stop in (errors.JobCancelled, errors.JobReleased, errors.LeaseLost, errors.JobTimedOut):
        assert issubclass(stop, BaseException)
        assert not issubclass(stop, Exception)
    assert issubclass(errors.MissingExtraError, ImportError)
    assert issubclass(errors.WaitTimeoutError, TimeoutError)
    assert not issubclass(errors.StoreError, ValueError)


def test_error_texts_name_remedy() -> None:
    assert str(errors.JobNotFoundError("a")) == "Job a not found"
    assert "pip install 'milepost[redis]'" in str(errors.MissingExtraError("redis", "a Redis store"))
    assert str(errors.InvalidInputError("metadata.a", "is bad")) == "metadata.a: is bad"
    assert "(published: a, b)" in str(errors.UnknownJobTypeError("x", ("a", "b")))
    assert "start a worker" in str(errors.UnknownJobTypeError("x"))
    text, caret = str(errors.FilterError("a:b c", 4, "no")).splitlines()[1:]
    assert caret.index("^") - 2 == 4
    assert text.strip() == "a:b c"
    assert errors.Retry().delay is None
    assert str(errors.Retry(3.0, reason="busy")) == "busy"


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidInputError("f", "p"),
        errors.JobNotFoundError("a"),
        errors.DuplicateJobError("d"),
        errors.UnknownJobTypeError("x", ("a",)),
        errors.FilterError("a", 0, "p"),
        errors.MissingExtraError("redis", "x"),
        errors.IllegalTransitionError("no"),
        errors.StoreUnavailableError("x"),
        errors.Retry(3.0, reason="busy"),
        errors.JobCancelled("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_a_pickle(error: BaseException) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


def test_backoff_doubles_with_full_jitter_up_to_maximum() -> None:
    assert [backoff(n, 1.0) for n in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 8.0]
    assert backoff(10, 1.0) == BACKOFF_MAX == 300.0
    assert backoff(10**6, 0.5) == 150.0
    assert backoff(5, 0.0) == 0.0
    assert backoff(3, 0.5, first=10.0, longest=15.0) == 7.5


def test_event_omits_untouched_fields() -> None:
    event = Event.stored("a", 3, "progress", 1_750_000_000_000_000, {"status": "running", "progress": "0.5"})
    assert event.to_dict() == {
        "job_id": "a", "version": 3, "kind": "progress", "at": "2025-06-15T15:06:40+00:00", "status": "running",
        "progress": 0.5,
    }  # fmt: skip
    assert event.status is JobStatus.RUNNING
    assert Event("a", 1, "skipped").to_dict() == {"job_id": "a", "version": 1, "kind": "skipped"}


def test_event_omits_unreadable_field() -> None:
    text = {"status": "?", "progress": "x", "message": "m", "data": "{", "stages": "[", "attempt": "2", "worker": "w"}
    event = Event.stored("a", 1, "running", 0, text)
    assert (event.status, event.progress, event.message) == (None, None, "m")
    assert dict(event.data) == {"attempt": 2, "worker": "w"}


@pytest.mark.parametrize(
    ("kind", "data", "last"),
    [
        ("completed", {}, True),
        ("failed", {}, True),
        ("deleted", {}, True),
        ("receipt", {}, True),
        ("cancelled", {}, False),
        ("cancelled", {"stop_confirmed": "1"}, True),
        ("cancelled", {"stop_confirmed": "0"}, True),
        ("retrying", {}, False),
        ("progress", {}, False),
    ],
)
def test_event_stream_ends_with_final_event(kind: str, data: dict[str, str], last: bool) -> None:
    assert Event("a", 1, kind, data=data).is_last_word is last
    assert kind == "progress" or kind in LIFECYCLE_KINDS
