"""The filter grammar: what each term selects, and where errors point."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost import InMemoryJobManager
from milepost.core.errors import FilterError
from milepost.core.job import Job, JobStatus
from milepost.core.placement import is_waiting
from milepost.query.filters import parse_filter, title
from milepost.stores.protocol import Select


@pytest.fixture(scope="module")
def manager() -> InMemoryJobManager:
    manager = InMemoryJobManager()
    manager.create_job("done-1", "ingestion", {"file_path": "/a/Annual Report.pdf"}, labels={"owner": "ana"})
    manager.update_job("done-1", "running")
    manager.update_job("done-1", "completed")
    manager.create_job("bad-1", "ingestion", labels={"owner": "bob", "team": "a b"})
    manager.update_job("bad-1", "failed", error="TimeoutError: too slow", message="Embedding failed")
    manager.create_job("wait-1", "web/crawl", {"title": "Crawl of http://example.org"})
    return manager


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", ["wait-1", "bad-1", "done-1"]),
        ("status:failed", ["bad-1"]),
        ("status:failed,completed", ["bad-1", "done-1"]),
        ("status:failed status:completed", ["bad-1", "done-1"]),
        ("not.status:failed", ["wait-1", "done-1"]),
        ("status:failed not.status:failed", []),
        ("is:active", ["wait-1"]),
        ("is:ended not.status:completed", ["bad-1"]),
        ("is:ended is:active", []),
        ("not.is:ended", ["wait-1"]),
        ("is:stalled", []),
        ("not.is:stalled type:ingestion", ["bad-1", "done-1"]),
        ("type:web/crawl", ["wait-1"]),
        ("not.type:ingestion", ["wait-1"]),
        ("label.owner:ana", ["done-1"]),
        ('label.team:"a b"', ["bad-1"]),
        ("not.label.owner:ana", ["wait-1", "bad-1"]),
        ("id:done", ["done-1"]),
        ("id:done,bad", ["bad-1", "done-1"]),
        ("error:timeout", ["bad-1"]),
        ("not.error:timeout", ["wait-1", "done-1"]),
        ("failure:TimeoutError", ["bad-1"]),
        ("annual", ["done-1"]),
        ('"annual report"', ["done-1"]),
        ("http://example.org", ["wait-1"]),
        ("embedding type:ingestion", ["bad-1"]),
        ("done-", ["done-1"]),
        ("created:1d", ["wait-1", "bad-1", "done-1"]),
        ("created:1h..1d", []),
        ("created:..1d", ["wait-1", "bad-1", "done-1"]),
        ("created:1d..", []),
        ("created:2020-01-01..2020-02-01", []),
        ("created:2020-01-01..", ["wait-1", "bad-1", "done-1"]),
        ("not.created:1d", []),
        ("duration:..5m", ["bad-1", "done-1"]),
        ("duration:5m..", []),
        ("is:stopping", []),
        ("worker:host-1", []),
        ("not.worker:host-1", ["wait-1", "bad-1", "done-1"]),
    ],
)
def test_filter_selects_jobs(manager: InMemoryJobManager, text: str, ids: list[str]) -> None:
    assert [job.job_id for job in manager.find(parse_filter(text).query).jobs] == ids


def test_waiting_jobs_are_selected() -> None:
    manager = InMemoryJobManager()
    manager.create_job("first")
    manager.create_job("then", after=["job:first"])
    assert [job.job_id for job in manager.find(parse_filter("is:waiting").query).jobs] == ["then"]
    assert [job.job_id for job in manager.find(parse_filter("not.is:waiting").query).jobs] == ["first"]
    manager.update_job("first", "completed")
    assert manager.find(parse_filter("is:waiting").query).jobs == []


def test_suspended_job_waits_until_its_time_has_come() -> None:
    for fields, waits in (({"wake_at": "9"}, True), ({"wake_at": "5"}, False), ({"wait_groups": "job:a"}, False)):
        job = Job.stored("a", {"status": "pending", "suspended": "1", **fields})
        assert is_waiting(job, 7) is waits
    assert is_waiting(Job.stored("a", {"status": "pending", "held": "job:b"}), 7)


@pytest.mark.parametrize("text", ["Nightly-2026", "nightly", "NIGHTLY-", '"Nightly-2026:Ana"'])
def test_free_text_finds_an_id_however_it_is_written(text: str) -> None:
    manager = InMemoryJobManager()
    manager.create_job("Nightly-2026:Ana")
    manager.create_job("other")
    assert [job.job_id for job in manager.find(parse_filter(text).query).jobs] == ["Nightly-2026:Ana"]


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("status:done", 7),
        ("status:failed,done", 14),
        ("type:a statsu:failed", 7),
        ("status:", 7),
        ('type:"a', 5),
        ("is:lost", 3),
        ("created:soon", 8),
        ("created:1d..soon", 12),
        ("created:..", 8),
        ("duration:5m", 9),
        ("duration:x..", 9),
        ("label.:x", 0),
        ("not.word", 0),
        ("type:a,,b", 5),
    ],
)
def test_an_error_points_at_the_character(text: str, position: int) -> None:
    with pytest.raises(FilterError) as wrong:
        parse_filter(text)
    assert wrong.value.position == position
    assert str(wrong.value).splitlines()[-1].index("^") == position + 2


def test_status_given_as_a_state_is_refused_with_its_term() -> None:
    with pytest.raises(FilterError, match=r"unknown state 'running'; use status:running"):
        parse_filter("is:running")


def test_indexed_terms_need_no_scan() -> None:
    now = time.time_ns() // 1000
    parsed = parse_filter("type:a,b status:failed label.owner:ana created:2h..1d is:stalled", now=now)
    day, hour = 86_400_000_000, 3_600_000_000
    assert parsed.query.tests == ()
    assert parsed.reads == ()
    assert parsed.query.select == Select(("a", "b"), ("failed",), (("owner", "ana"),), True, now - day, now - 2 * hour)
    assert parse_filter("error:x word").reads == ("error", "text")


@given(st.text(max_size=200))
def test_any_text_is_a_filter_or_a_positioned_error(text: str) -> None:
    position = 0
    try:
        parse_filter(text)
    except FilterError as wrong:
        position = wrong.position
    assert 0 <= position <= len(text)


def test_long_filter_is_parsed_quickly() -> None:
    started = time.process_time()
    for text in ('"' + '\\"' * 900, "a:" * 900, '""' * 900, "not." * 400):
        try:
            parse_filter(text)
        except FilterError:
            continue
    assert time.process_time() - started < 5.0


def test_child_without_another_title_has_its_key_as_title() -> None:
    child = Job(
        "one",
        "page",
        JobStatus.PENDING,
        0.0,
        "",
        datetime.now(UTC),
        params={"page": 6, "secret": "***"},
        child_key="page-6",
    )
    assert title(child) == "page-6"
    assert title(replace(child, params={"path": "a.txt"})) == "a.txt"
    assert title(replace(child, child_key=None)) is None
