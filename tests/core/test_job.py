"""The job record: fields and their order, damaged values, secrets, copies."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime

import pytest

from milepost.core.job import Failure, FailureKind, ItemCounts, Job, JobStatus, Receipt, Stage
from milepost.core.record_codec import LONG, SHORT, pack, unpack

ELEVEN = [
    "job_id", "job_type", "status", "progress", "message", "created_at", "started_at", "completed_at", "error", "result",
    "metadata",
]  # fmt: skip
NOON = 1_750_000_000_000_000
RECORD = {
    "type": "ingestion", "status": "running", "progress": "0.5", "message": "Load", "created": str(NOON),
    "started": str(NOON + 1), "metadata": '{"a":[]}', "run_by": "worker", "params": '{"path":"x","key":"k"}',
    "labels": "owner=ana\x1ftenant=x", "priority": "-3", "attempt": "2", "max_attempts": "3", "crashes": "1",
    "updated": str(NOON + 2), "version": "7", "worker": "w1", "lease": str(NOON + 3), "token": "1:secret",
    "unique_key": "k", "stages": '[{"name":"Load","done":1,"total":4,"later":1}]',
    "item_counts": '{"done":3,"failed":1,"failed_keys":["a"]}', "failure": '{"kind":"error","last_log":["x"]}',
    "eta": '{"earliest":"a","latest":"b"}', "checkpoint_at": str(NOON), "secrets": "key", "trace": "00-1",
}  # fmt: skip


def stored(**changes: str) -> Job:
    return Job.stored("a", {**RECORD, **changes})


def test_original_eleven_fields_come_first_in_order() -> None:
    names = list(stored().to_dict())
    assert names[: len(ELEVEN)] == ELEVEN
    assert list(json.loads(stored().to_json())) == names


def test_job_needs_only_original_eleven_fields() -> None:
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


def test_field_is_decoded_on_first_access() -> None:
    job = Job.stored("a", pack(RECORD))
    assert job.status is JobStatus.RUNNING
    assert job.metadata is job.metadata
    with pytest.raises(AttributeError, match="nothing"):
        job.nothing  # noqa: B018


def test_job_is_immutable_snapshot() -> None:
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


def test_falsy_values_are_kept() -> None:
    for text, value in (("{}", {}), ("0", 0), ('""', ""), ("false", False), ("[]", []), ("null", None)):
        job = stored(result=text, metadata=text)
        assert (job.result, job.metadata) == (value, value)
        assert job.to_dict()["result"] == value


def test_secret_params_are_masked() -> None:
    job = stored()
    assert job.params == {"path": "x", "key": "***"}
    assert b"***" in job.to_json()
    assert "'k'" not in repr(job.params)
    assert job.record["params"] == RECORD["params"], "the handler gets it"
    assert stored(secrets="key\x1fpath\x1fnothing").params == {"path": "***", "key": "***"}
    assert stored(params="[1]").params == [1]
    assert b"secret" not in job.to_json(), "a token is confidential"


@pytest.mark.parametrize(
    ("source", "field", "damage"),
    [
        ("status", "status", "sleeping"),
        ("progress", "progress", "nan"),
        ("progress", "progress", "1.5"),
        ("progress", "progress", "half"),
        ("created", "created_at", "yesterday"),
        ("created", "created_at", "9" * 30),
        ("started", "started_at", "9" * 30),
        ("started", "started_at", "\u00b2"),
        ("metadata", "metadata", "{"),
        ("metadata", "metadata", "NaN"),
        ("result", "result", "[" * 100_000),
        ("params", "params", "{"),
        ("labels", "labels", "nothing"),
        ("labels", "labels", "\x1fowner=ana"),
        ("priority", "priority", "high"),
        ("attempt", "attempt", ""),
        ("version", "version", "1.5"),
        ("stages", "stages", "[1]"),
        ("stages", "stages", '{"a":1}'),
        ("stages", "stages", "[{}]"),
        ("stages", "stages", '[{"name":null}]'),
        ("stages", "stages", '[{"name":"Load","done":"half"}]'),
        ("stages", "stages", '[{"name":"Load","total":[]}]'),
        ("item_counts", "item_counts", "[]"),
        ("item_counts", "item_counts", '{"failed":"x"}'),
        ("waiting_for", "waiting_for", '{"code":"starts_at","params":[1]}'),
        ("eta", "eta", "{}"),
        ("failure", "failure", "3"),
        ("failure", "failure", '{"kind":"error","versions":"3.13"}'),
    ],
)
def test_damaged_field_is_listed_as_corrupt(source: str, field: str, damage: str) -> None:
    for job in (stored(**{source: damage}), Job.stored("a", pack({**RECORD, source: damage}))):
        shown = job.to_dict()
        assert job.corrupt == (field,)
        assert shown["corrupt"] == [field]
        assert shown["job_type"] == "ingestion"
        assert shown["message"] == "Load"
        job.to_json()


@pytest.mark.parametrize("time", ["9" * 30, "\u00b2"])
def test_damaged_history_of_attempts_reads_as_empty(time: str) -> None:
    job = stored(runs=f"{time}\x1f{NOON}\x1f1\x1fw\x1f")
    assert job.attempts == ()
    assert json.loads(job.to_json())["attempts"] == []


def test_empty_record_decodes() -> None:
    job = Job.stored("a", {})
    assert job.to_dict()["job_id"] == "a"
    assert Job.stored("a", "").to_dict()["status"] == "failed"
    assert Job.stored("a", "no equals sign\n=x\n").job_type == ""


def test_intact_record_is_not_corrupt() -> None:
    assert stored().corrupt == ()
    assert "corrupt" not in stored().to_dict()


def test_receipt_is_decoded_from_fields() -> None:
    job = stored(stop_at=str(NOON), stop_by="ana", stop_reason="enough")
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


def test_status_is_its_string_value() -> None:
    assert f"{JobStatus.RUNNING}" == "running"
    assert json.dumps({"s": JobStatus.RUNNING}) == '{"s": "running"}'
    assert JobStatus("failed") is JobStatus.FAILED
    assert JobStatus.PENDING == "pending"
    assert [s for s in JobStatus if s.is_terminal] == ["completed", "failed", "cancelled"]
    assert FailureKind.CRASH_LOOP == "crash_loop"


def test_ended_stage_has_fraction_one() -> None:
    assert Stage("x").fraction is None
    assert Stage("x", total=0).fraction is None
    assert Stage("x", done=5, total=4).fraction == 1.0
    assert Stage("x", ended_at="now").fraction == 1.0


def test_packed_record_round_trips() -> None:
    fields = {**RECORD, "from_later": "a=b=c", "empty": "", "odd": "\x1f\t= 漢字 🙂"}
    assert unpack(pack(fields)) == fields
    assert len(pack(fields)) < sum(len(k) + len(v) + 2 for k, v in fields.items())


def test_short_names_are_unique() -> None:
    assert len(LONG) == len(SHORT)
    assert all(len(short) == 1 for short in LONG)
    assert not set(LONG) & set(SHORT)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"labels": ":group=g\x1f:after=job:x\x1f:after=group:h\x1fowner=ana:b"},
        {"labels": "owner=a:b", "run_by": "manual"},
        {"labels": ":queue=gpu\x1f:limit_key=cpu"},
        {"runs": f'{NOON}\x1f{NOON + 5}\x1f1\x1fw"1\x1f\x1e{NOON}\x1f\x1f\x1f\x1f2.0', "release": "2.4"},
        {"runs": f"{NOON}\x1f{NOON + 5}\x1f1\x1fw\x1f", "started": ""},
        {"stop_at": str(NOON), "secrets": "key", "late_result": "[1]"},
        {"status": "odd", "progress": "x", "result": "{", "created": "then"},
        {"message": "\ud800"},
    ],
)
def test_json_is_that_of_the_dict(more: dict[str, str]) -> None:
    job = stored(**more)
    assert json.loads(job.to_json()) == json.loads(json.dumps(job.to_dict()).replace("\\ud800", "?"))
