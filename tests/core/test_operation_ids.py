"""The operation ids that a record keeps: each kind separately, matched whole, and for as long as a request may be repeated."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from milepost.core.transitions import operation_ids
from milepost.core.transitions.operation_ids import CALLERS_KEPT, UPDATES_KEPT, IdRetention
from milepost.stores.ids import Ids, new_nonce, new_operation_id

NOW = 1_790_000_000_000_000


def keep(record: dict[str, str], retention: IdRetention, *ops: str, now: int = NOW) -> dict[str, str]:
    for operation_id in ops:
        record.update(operation_ids.id_fields(operation_id, 1, retention, record, now))
    return record


def test_last_retention_keeps_newest_operation() -> None:
    record = keep({"created_by_op": "birth000"}, "last", "op000001", "op000002")
    assert operation_ids.applied_branch("op000002", "last", record) == 1
    assert operation_ids.applied_branch("op000001", "last", record) is None
    assert operation_ids.applied_branch("birth000", "last", record) == 0


def test_updates_retention_keeps_last_seven() -> None:
    ops = [f"op{number:06d}" for number in range(UPDATES_KEPT + 1)]
    record = keep({}, "updates", *ops)
    assert [operation_ids.applied_branch(operation_id, "updates", record) for operation_id in ops] == [
        None,
        *[1] * UPDATES_KEPT,
    ]


def test_operation_id_matches_only_whole() -> None:
    """Ids that lie across the borders of others must not be taken for them."""
    record = keep({}, "updates", "aaaabbbb", "ccccdddd")
    for across in ("aaabbbb1", "bbbb1ccc", "1ccccddd", "cccdddd1"):
        assert operation_ids.applied_branch(across, "updates", record) is None


def test_reports_and_checkpoints_are_ordered_separately() -> None:
    record = keep({}, "last", "start000")
    keep(record, "reports", "proc0005")
    assert operation_ids.is_superseded("proc0005", "reports", record)
    assert operation_ids.is_superseded("proc0004", "reports", record)
    assert not operation_ids.is_superseded("proc0006", "reports", record)
    assert not operation_ids.is_superseded("proc0004", "checkpoints", record)
    keep(record, "checkpoints", "proc0004")
    assert operation_ids.is_superseded("proc0003", "checkpoints", record)
    assert operation_ids.is_superseded("proc0005", "reports", record)
    assert not operation_ids.is_superseded("else0001", "reports", record), "the ids of two processes have no order"
    assert operation_ids.applied_branch("start000", "last", record) == 1
    keep(record, "last", "start001")
    assert not operation_ids.is_superseded("proc0004", "reports", record), (
        "a start forgets what the run before it wrote"
    )


def test_caller_requests_stay_until_displaced() -> None:
    """After the clock had been set ahead, the next request displaced all before it, and a late repetition was applied."""
    jumped = NOW + 86_400_000_000
    record = keep({}, "callers", "op000001")
    keep(record, "callers", *(f"new{number:05d}" for number in range(CALLERS_KEPT - 1)), now=jumped)
    assert operation_ids.applied_branch("op000001", "callers", record) == 1
    assert operation_ids.wait(record, jumped) == 0
    keep(record, "callers", "last0000", now=jumped)
    assert operation_ids.applied_branch("op000001", "callers", record) is None
    assert operation_ids.applied_branch("new00000", "callers", record) == 1
    assert operation_ids.wait(record, jumped) == 60_000_000


def test_excess_caller_request_gets_retry_delay() -> None:
    record = keep({}, "callers", *(f"op{number:06d}" for number in range(CALLERS_KEPT)))
    assert operation_ids.wait(record, NOW + 20_000_000) == 40_000_000
    assert operation_ids.wait(record, NOW + 60_000_000) == 0


def test_removed_record_leaves_tombstone() -> None:
    record = keep({"created_by_op": "birth000"}, "callers", "cancel00")
    gone = operation_ids.tombstone("delete00", 0, record, "", NOW)
    assert operation_ids.applied_branch("cancel00", "callers", {}, gone) == 1
    assert operation_ids.applied_branch("delete00", "callers", {}, gone) == 0
    assert operation_ids.applied_branch("birth000", "callers", {}, gone) == -1, "it was made, and is gone"
    assert operation_ids.applied_branch("other000", "callers", {}, gone) is None


@pytest.mark.parametrize("start", [0, (1 << 24) - 500])
def test_operation_ids_of_one_source_increase(monkeypatch: pytest.MonkeyPatch, start: int) -> None:
    source = Ids()
    monkeypatch.setattr(source, "_source", ("abcd", itertools.count(start)))
    made = [source.new_operation_id() for _ in range(1000)]
    assert len(set(made)) == len(made)
    assert {len(operation_id) for operation_id in made} == {8}
    same = [operation_id for operation_id in made if operation_id[:4] == "abcd"]
    assert same == sorted(same)
    assert same == made[: len(same)]
    assert len(same) == (1000 if start == 0 else 500)


def test_threads_get_distinct_increasing_ids() -> None:
    with ThreadPoolExecutor(8) as pool:
        several = list(pool.map(lambda _: [new_operation_id() for _ in range(500)], range(8)))
    assert len({operation_id for some in several for operation_id in some}) == 4000
    assert all(some == sorted(some) or len({operation_id[:4] for operation_id in some}) > 1 for some in several)


def test_nonces_are_random_and_fixed_length() -> None:
    made = {new_nonce() for _ in range(1000)}
    assert len(made) == 1000
    assert {len(nonce) for nonce in made} == {11}
