"""The record as callers see it: its fields, their order, damage, secrets, copies."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime

import pytest

from milepost.core.job import Failure, FailureKind, ItemCounts, Job, JobStatus, Receipt, Stage
from milepost.core.packing import LONG, SHORT, pack, unpack

ELEVEN = [
    "job_id", "job_type", "status", "progress", "message", "created_at", "started_at", "completed_at", "error", "result",
    "metadata",
]  # fmt: skip
ADDED = [
    "driver", "params", "labels", "priority", "attempt", "max_attempts", "crashes", "not_before", "not_after",
    "updated_at", "version", "worker", "lease_expires_at", "waiting_for", "parent_id", "unique_key", "stages",
    "item_counts", "eta", "expected_start", "stalled", "receipt", "failure", "checkpoint_at", "retry_of", "trace",
]  # fmt: skip
NOON = 1_750_000_000_000_000
RECORD = {
    "type": "ingestion", "status": "running", "progress": "0.5", "message": "Load", "created": str(NOON),
    "started": str(NOON + 1), "metadata": '{"a":[]}', "driver": "worker", "params": '{"path":"x","key":"k"}',
    "labels": "owner=ana\x1ftenant=x", "priority": "-3", "attempt": "2", "max_attempts": "3", "crashes": "1",
    "updated": str(NOON + 2), "version": "7", "worker": "w1", "lease": str(NOON + 3), "token": "1:secret",
    "unique_key": "k", "stages": '[{"name":"Load","done":1,"total":4,"later":1}]',
    "item_counts": '{"done":3,"failed":1,"failed_keys":["a"]}', "failure": '{"kind":"error","last_log":["x"]}',
    "eta": '{"earliest":"a","latest":"b"}', "checkpoint_at": str(NOON), "secrets": "key", "trace": "00-1",
}  # fmt: skip


def stored(**changes: str) -> Job:
    return Job.stored("a", {**RECORD, **changes})


def test_the_originals_eleven_fields_come_first_and_in_order() -> None:
    assert list(stored().to_dict()) == ELEVEN + ADDED
    assert list(json.loads(stored().to_json())) == ELEVEN + ADDED


def test_a_job_can_be_built_with_the_eleven_alone() -> None:
    now = datetime.now(UTC)
    job = Job("a", "t", JobStatus.PENDING, 0.0, "m", now, None, None, None, None, {})
    assert job.to_dict()["created_at"] == now.isoformat()
    assert (job.record, job.corrupt, job.labels, job.stages, job.is_terminal) == ({}, (), {}, (), False)
    keyed = Job(job_id="a", job_type="t", status=JobStatus.PENDING, progress=0.0, message="m", created_at=now)
    assert keyed.metadata is None


def test_fields_are_decoded() -> None:
    job = stored()
    assert (job.job_id, job.job_type, job.status, job.progress) == ("a", "ingestion", JobStatus.RUNNING, 0.5)
    assert job.created_at == datetime(2025, 6, 15, 15, 6, 40, tzinfo=UTC)
    assert job.to_dict()["created_at"] == "2025-06-15T15:06:40+00:00"
    assert (job.metadata, job.labels, job.priority) == ({"a": []}, {"owner": "ana", "tenant": "x"}, -3)
    assert (job.attempt, job.max_attempts, job.crashes, job.version) == (2, 3, 1, 7)
    assert job.stages == (Stage("Load", done=1, total=4),)
    assert job.stages[0].fraction == 0.25
    assert job.item_counts == ItemCounts(3, 1, failed_keys=("a",))
    assert job.failure == Failure("error", last_log=("x",))
    assert job.lease_expires_at is not None
    assert (job.completed_at, job.error, job.result, job.receipt, job.waiting_for) == (None,) * 5


def test_a_field_is_decoded_when_it_is_first_looked_at() -> None:
    job = Job.stored("a", pack(RECORD))
    assert job.status is JobStatus.RUNNING
    assert job.metadata is job.metadata
    with pytest.raises(AttributeError, match="nothing"):
        job.nothing  # noqa: B018


def test_a_job_is_a_snapshot() -> None:
    job = stored()
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        job.message = "x"  # type: ignore[misc]
    assert job.metadata is not None
    job.metadata["a"] = "changed"
    job.labels["owner"] = "changed"
    assert stored().metadata == {"a": []}
    assert stored(labels="").labels == {}
    stored(labels="").labels["x"] = "y"
    assert stored(labels="").labels == {}


def test_nothing_false_is_lost() -> None:
    for text, value in (("{}", {}), ("0", 0), ('""', ""), ("false", False), ("[]", []), ("null", None)):
        job = stored(result=text, metadata=text)
        assert (job.result, job.metadata) == (value, value)
        assert job.to_dict()["result"] == value


def test_a_secret_is_never_shown() -> None:
    job = stored()
    assert job.params == {"path": "x", "key": "***"}
    assert b"***" in job.to_json()
    assert "'k'" not in repr(job.params)
    assert job.record["params"] == RECORD["params"], "the handler gets it"
    assert stored(secrets="key\x1fpath\x1fnothing").params == {"path": "***", "key": "***"}
    assert stored(params="[1]").params == [1]
    assert b"secret" not in job.to_json(), "a token is nobody's business"


@pytest.mark.parametrize(
    ("source", "field", "damage"),
    [
        ("status", "status", "sleeping"),
        ("progress", "progress", "nan"),
        ("progress", "progress", "1.5"),
        ("progress", "progress", "half"),
        ("created", "created_at", "yesterday"),
        ("created", "created_at", "9" * 30),
        ("metadata", "metadata", "{"),
        ("metadata", "metadata", "NaN"),
        ("result", "result", "[" * 100_000),
        ("params", "params", "{"),
        ("labels", "labels", "nothing"),
        ("priority", "priority", "high"),
        ("attempt", "attempt", ""),
        ("version", "version", "1.5"),
        ("stages", "stages", "[1]"),
        ("stages", "stages", '{"a":1}'),
        ("stages", "stages", "[{}]"),
        ("item_counts", "item_counts", "[]"),
        ("eta", "eta", "{}"),
        ("failure", "failure", "3"),
    ],
)
def test_a_damaged_field_is_named_and_hides_no_other(source: str, field: str, damage: str) -> None:
    for job in (stored(**{source: damage}), Job.stored("a", pack({**RECORD, source: damage}))):
        shown = job.to_dict()
        assert job.corrupt == (field,)
        assert shown["corrupt"] == [field]
        assert shown["job_type"] == "ingestion"
        assert shown["message"] == "Load"
        job.to_json()


def test_an_empty_record_is_shown_too() -> None:
    job = Job.stored("a", {})
    assert job.to_dict()["job_id"] == "a"
    assert Job.stored("a", "").to_dict()["status"] == "failed"
    assert Job.stored("a", "no equals sign\n=x\n").job_type == ""


def test_a_whole_record_is_not_corrupt() -> None:
    assert stored().corrupt == ()
    assert "corrupt" not in stored().to_dict()


def test_a_receipt_is_read_from_its_parts() -> None:
    job = stored(stop_at=str(NOON), stop_by="ana", stop_why="enough")
    assert job.receipt == Receipt(datetime.fromtimestamp(NOON / 1e6, UTC), "ana", "enough")
    job = stored(stop_at=str(NOON), stop_how="killed", stop_confirmed="0", stopped=str(NOON), late_result="[]")
    assert job.receipt is not None
    assert (job.receipt.confirmed, job.receipt.late_result, job.receipt.how) == (False, [], "killed")
    assert job.to_dict()["receipt"]["stopped_at"] == job.to_dict()["receipt"]["requested_at"]
    assert stored(stop_at="?", late_result="{").to_dict()["receipt"]["requested_at"] is None


def test_copies_and_pickles_are_equal_and_show_no_secret() -> None:
    job = stored(result='{"n":1}')
    for other in (copy.copy(job), copy.deepcopy(job), pickle.loads(pickle.dumps(job)), replace(job)):
        assert other == job
        assert other.to_dict() == job.to_dict()
    assert b"secret" not in pickle.dumps(job)
    assert replace(job, message="other").message == "other"


def test_a_status_is_its_value() -> None:
    assert f"{JobStatus.RUNNING}" == "running"
    assert json.dumps({"s": JobStatus.RUNNING}) == '{"s": "running"}'
    assert JobStatus("failed") is JobStatus.FAILED
    assert JobStatus.PENDING == "pending"
    assert [s for s in JobStatus if s.is_terminal] == ["completed", "failed", "cancelled"]
    assert FailureKind.CRASH_LOOP == "crash_loop"


def test_a_stage_is_done_when_it_has_ended() -> None:
    assert Stage("x").fraction is None
    assert Stage("x", total=0).fraction is None
    assert Stage("x", done=5, total=4).fraction == 1.0
    assert Stage("x", ended_at="now").fraction == 1.0


def test_what_was_packed_is_unpacked() -> None:
    fields = {**RECORD, "from_later": "a=b=c", "empty": "", "odd": "\x1f\t= 漢字 🙂"}
    assert unpack(pack(fields)) == fields
    assert len(pack(fields)) < sum(len(k) + len(v) + 2 for k, v in fields.items())


def test_short_names_are_short_and_unlike() -> None:
    assert len(LONG) == len(SHORT)
    assert all(len(short) == 1 for short in LONG)
    assert not set(LONG) & set(SHORT)
