"""Each guard and operation on any store, by tables written by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from milepost.core.transitions import plan_create, plan_track
from milepost.core.transitions.change import Branch, Change, Const, Field, Guard, Operation, TransitionType, Value
from milepost.stores.protocol import Write
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    StoreFixture,
    change_with,
    create_record,
    fence,
    guarded_change,
    track_job,
    worker_job,
)

PAST, AHEAD = "1000000", str(1 << 52)
US = "1790000000000000"
"""A number as large as microseconds since 1970."""
US_NEXT = "1790000000000001"

GuardRow = tuple[Guard, Mapping[str, str], tuple[Value, ...], bool]
OpRow = tuple[tuple[Operation, ...], Mapping[str, str], tuple[Value, ...], Mapping[str, str | None]]

GUARDS: dict[str, tuple[GuardRow, ...]] = {
    "eq": (
        (("eq", "x", Const("a")), {"x": "a"}, (), True),
        (("eq", "x", Const("a")), {"x": "A"}, (), False),
        (("eq", "x", Const("a")), {}, (), False),
        (("eq", "x", Const("")), {}, (), True),
        (("eq", "x", Const("")), {"x": ""}, (), True),
        (("eq", "x", 0), {"x": "a"}, ("a",), True),
        (("eq", "x", 0), {"x": "a"}, ("b",), False),
        (("eq", "x", 0), {"x": "a"}, (None,), True),
        (("eq", "x", 1), {"x": "a"}, (None, "b"), False),
        (("eq", "x", Field("y")), {"x": "a", "y": "a"}, (), True),
        (("eq", "x", Field("y")), {"x": "a"}, (), False),
        (("eq", "x", Field("y")), {}, (), True),
        (("eq", "x", Const("1")), {"x": "1.0"}, (), False),
    ),
    "ne": (
        (("ne", "x", Const("a")), {"x": "b"}, (), True),
        (("ne", "x", Const("a")), {"x": "a"}, (), False),
        (("ne", "x", Const("a")), {}, (), True),
        (("ne", "x", Const("")), {}, (), False),
        (("ne", "x", 0), {"x": "a"}, (None,), True),
        (("ne", "x", 0), {"x": "a"}, ("a",), False),
        (("ne", "x", Field("y")), {"x": "a"}, (), True),
        (("ne", "x", Field("y")), {}, (), False),
    ),
    "lt": (
        (("lt", "x", Const("10")), {"x": "9"}, (), True),
        (("lt", "x", Const("10")), {"x": "10"}, (), False),
        (("lt", "x", Const("10")), {"x": "11"}, (), False),
        (("lt", "x", Const("10")), {}, (), True),
        (("lt", "x", Const("0")), {}, (), False),
        (("lt", "x", Const("0.5")), {"x": "0.25"}, (), True),
        (("lt", "x", Const("-1")), {"x": "-2"}, (), True),
        (("lt", "x", Field("y")), {"x": "1", "y": "2"}, (), True),
        (("lt", "x", Field("y")), {"x": "1"}, (), False),
        (("lt", "x", 0), {"x": "9"}, (None,), True),
        (("lt", "x", 0), {"x": "9"}, ("10",), True),
        (("lt", "x", 0), {"x": US}, (US_NEXT,), True),
        (("lt", "x", 0), {"x": US_NEXT}, (US_NEXT,), False),
    ),
    "ge": (
        (("ge", "x", Const("10")), {"x": "9"}, (), False),
        (("ge", "x", Const("10")), {"x": "10"}, (), True),
        (("ge", "x", Const("10")), {"x": "11"}, (), True),
        (("ge", "x", Const("1")), {}, (), False),
        (("ge", "x", Field("y")), {}, (), True),
        (("ge", "x", Field("y")), {"x": "1", "y": "2"}, (), False),
        (("ge", "x", 0), {"x": "1"}, (None,), True),
        (("ge", "x", 0), {"x": US}, (US_NEXT,), False),
    ),
    "has": ((("has", "x"), {"x": "0"}, (), True), (("has", "x"), {}, (), False)),
    "lacks": ((("lacks", "x"), {"x": "0"}, (), False), (("lacks", "x"), {}, (), True)),
    "past": (
        (("past", "x"), {"x": PAST}, (), True),
        (("past", "x"), {"x": AHEAD}, (), False),
        (("past", "x"), {}, (), False),
    ),
    "ahead": (
        (("ahead", "x"), {"x": PAST}, (), False),
        (("ahead", "x"), {"x": AHEAD}, (), True),
        (("ahead", "x"), {}, (), True),
    ),
    "due": (
        (("due", "x"), {"x": PAST}, (), True),
        (("due", "x"), {"x": AHEAD}, (), False),
        (("due", "x"), {}, (), True),
    ),
    "startable": (
        (("startable",), {}, (), True),
        (("startable",), {"not_before": PAST}, (), True),
        (("startable",), {"not_before": AHEAD}, (), False),
        (("startable",), {"not_before": AHEAD, "wake_at": PAST}, (), True),
        (("startable",), {"not_before": PAST, "wake_at": AHEAD}, (), False),
        (("startable",), {"not_before": AHEAD, "wait_groups": "job:x"}, (), True),
        (("startable",), {"wait_groups": "job:x", "wake_at": AHEAD}, (), True),
        (("startable",), {"held": "job:x"}, (), False),
        (("startable",), {"held": "job:x", "not_before": PAST}, (), False),
        (("startable",), {"held": "job:x", "wake_at": AHEAD}, (), False),
        (("startable",), {"held": "job:x", "wait_groups": "job:x", "wake_at": PAST, "not_before": AHEAD}, (), True),
    ),
    "token": (
        (("token", 0), {}, ("",), False),
        (("token", 0), {}, (None,), False),
        (("token", 0), {}, ("1:a",), False),
    ),
}

ODD = "=k=v%s\\n\"'{}[]()*?^$ äß 漢字 🙂 \x1f\t;--"
"""Text that breaks careless quoting, splitting and pattern matching."""

OPS: dict[str, tuple[OpRow, ...]] = {
    "set": (
        ((("set", "x", Const("a")),), {}, (), {"x": "a"}),
        ((("set", "x", Const("a")),), {"x": "b"}, (), {"x": "a"}),
        ((("set", "x", 0),), {"x": "b"}, ("a",), {"x": "a"}),
        ((("set", "x", 0),), {"x": "b"}, (None,), {"x": "b"}),
        ((("set", "x", 0),), {}, (None,), {"x": None}),
        ((("set", "x", 1),), {}, (None, "a"), {"x": "a"}),
        ((("set", "x", Field("y")),), {"y": "a"}, (), {"x": "a", "y": "a"}),
        ((("set", "x", Field("y")),), {"x": "b"}, (), {"x": "b"}),
        ((("set", "x", 0),), {}, (ODD,), {"x": ODD}),
        ((("set", "x", Const(ODD)),), {}, (), {"x": ODD}),
        ((("set", "x", 0),), {}, ("long " * 20_000,), {"x": "long " * 20_000}),
        ((("set", "y", Const("a")), ("set", "x", Field("y"))), {"y": "b"}, (), {"x": "a"}),
    ),
    "clear": (
        ((("clear", "x"),), {"x": "a"}, (), {"x": None}),
        ((("clear", "x"),), {}, (), {"x": None}),
        ((("clear", "x"), ("set", "x", Const("b"))), {"x": "a"}, (), {"x": "b"}),
    ),
    "append": (
        ((("append", "x", 0),), {}, ("a",), {"x": "a"}),
        ((("append", "x", 0),), {"x": "a"}, ("b",), {"x": "a,b"}),
        ((("append", "x", 0),), {"x": "a"}, (None,), {"x": "a"}),
        ((("append", "x", Const("b")), ("append", "x", Const("c"))), {}, (), {"x": "b,c"}),
    ),
    "entry": (
        ((("entry", "x", Field("a"), Field("b"), Const("c")),), {"a": "1", "b": "2"}, (), {"x": "1\x1f2\x1fc"}),
        (
            (("entry", "x", Field("a"), Field("b"), Field("c")),),
            {"a": "1", "x": "0\x1f\x1f"},
            (),
            {"x": "0\x1f\x1f\x1e1\x1f\x1f"},
        ),
        ((("entry", "x", Field("a"), Field("b")),), {"b": "2"}, (), {"x": None}),
        ((("entry", "x", 0, 1),), {}, ("a", None), {"x": "a\x1f"}),
        ((("entry", "x", 0, 1),), {}, (None, "b"), {"x": None}),
        ((("entry", "x", Const("b")),), {"x": "a" * 4000 + "\x1e" + "ß" * 2095}, (), {"x": "ß" * 2095 + "\x1eb"}),
    ),
    "roll": (
        ((("roll", "x", "y", Const("3")),), {"x": "aß"}, (), {"x": None, "y": "aß"}),
        ((("roll", "x", "y", Const("4")),), {"x": "aß", "y": "b"}, (), {"x": "aß", "y": "b"}),
        ((("roll", "x", "y", Const("1")),), {"x": "a", "y": "b"}, (), {"x": None, "y": "a"}),
        ((("roll", "x", "y", Const("1")),), {"y": "b"}, (), {"x": None, "y": "b"}),
        ((("roll", "x", "y", Const("1")), ("append", "x", Const("c"))), {"x": "a"}, (), {"x": "c", "y": "a"}),
    ),
    "add": (
        ((("add", "x", Const("1")),), {}, (), {"x": "1"}),
        ((("add", "x", Const("1")),), {"x": "41"}, (), {"x": "42"}),
        ((("add", "x", Const("-1")),), {"x": "1"}, (), {"x": "0"}),
        ((("add", "x", Const("-1")),), {}, (), {"x": "-1"}),
        ((("add", "x", 0),), {"x": "1"}, (None,), {"x": "1"}),
        ((("add", "x", Field("y")),), {"x": "1", "y": "2"}, (), {"x": "3"}),
        ((("add", "x", Field("y")),), {"x": "1"}, (), {"x": "1"}),
        ((("add", "x", Const("1")),), {"x": US}, (), {"x": US_NEXT}),
    ),
    "sum": (
        ((("sum", "x", Field("a"), Field("b")),), {"a": "1", "b": "2"}, (), {"x": "3"}),
        ((("sum", "x", Field("a"), Field("b")),), {"b": "2", "x": "9"}, (), {"x": "2"}),
        ((("sum", "x", Field("a"), Const("3")),), {}, (), {"x": "3"}),
        ((("sum", "x", Field("a"), Field("b")),), {}, (), {"x": "0"}),
        ((("sum", "x", Field("a"), 0),), {"a": US}, ("1",), {"x": US_NEXT}),
    ),
    "max": (
        ((("max", "x", Const("0.5")),), {}, (), {"x": "0.5"}),
        ((("max", "x", Const("0.50")),), {"x": "0.25"}, (), {"x": "0.50"}),
        ((("max", "x", Const("0.25")),), {"x": "0.5"}, (), {"x": "0.5"}),
        ((("max", "x", Const("0.50")),), {"x": "0.5"}, (), {"x": "0.5"}),
        ((("max", "x", Const("10")),), {"x": "9"}, (), {"x": "10"}),
        ((("max", "x", Const("1e-3")),), {"x": "0.01"}, (), {"x": "0.01"}),
        ((("max", "x", 0),), {"x": "0.5"}, (None,), {"x": "0.5"}),
        ((("max", "x", Field("y")),), {"x": "1", "y": "2"}, (), {"x": "2"}),
        ((("max", "x", Field("y")),), {"x": "1"}, (), {"x": "1"}),
        ((("max", "x", 0),), {"x": US}, (US_NEXT,), {"x": US_NEXT}),
        ((("max", "x", Const("0.30000000000000004")),), {"x": "0.3"}, (), {"x": "0.30000000000000004"}),
    ),
    "stamp": (
        ((("stamp", "x", 0),), {"x": "7"}, (None,), {"x": "7"}),
        ((("stamp", "x", Field("y")),), {"x": "7"}, (), {"x": "7"}),
    ),
    "once": (((("once", "x"),), {"x": "7"}, (), {"x": "7"}),),
}


class Operations(Scenarios):
    """Every store interprets guards and operations as `core.transitions.operations` does."""

    @pytest.mark.parametrize("word", list(GUARDS))
    async def test_guard_truth_table(self, fixture: StoreFixture, word: str) -> None:
        await fixture.do("x", create_record(fixture.operation_id()))  # holds what waits for it
        for number, (guard, fields, values, holds) in enumerate(GUARDS[word]):
            job_id = f"{word}{number}"
            await fixture.do(job_id, create_record(fixture.operation_id(), **fields))
            outcome = await fixture.attempt(job_id, guarded_change(fixture.operation_id(), guard, *values))
            assert outcome.accepted is holds, (guard, fields, values)

    @pytest.mark.parametrize("word", list(OPS))
    async def test_operation_changes_only_named_field(self, fixture: StoreFixture, word: str) -> None:
        for number, (ops, fields, values, wanted) in enumerate(OPS[word]):
            job_id = f"{word}{number}"
            before = dict(
                (await fixture.made(job_id, create_record(fixture.operation_id(), other="stays", **fields))).record
            )
            after = dict((await fixture.made(job_id, change_with(fixture.operation_id(), *ops, values=values))).record)
            for name, value in wanted.items():
                assert after.get(name) == value, (ops, fields, values)
            kept = set(before) - set(wanted) - {str(op[1]) for op in ops} - {"version", "updated", "recent_ops"}
            assert {n: after.get(n) for n in kept} == {n: before[n] for n in kept}
            assert set(after) - set(before) <= {*wanted, *(str(op[1]) for op in ops), "recent_ops"}

    async def test_stamps_use_store_clock(self, fixture: StoreFixture) -> None:
        before = await fixture.store.now()
        await fixture.do("a", create_record(fixture.operation_id(), later="5"))
        job = await fixture.made(
            "a",
            change_with(
                fixture.operation_id(),
                ("stamp", "x"),
                ("stamp", "y", Const("1000000")),
                ("stamp", "z", Field("later")),
                ("once", "w"),
            ),
        )
        record, after = job.record, await fixture.store.now()
        x = int(record["x"])
        assert before <= x <= after
        assert int(record["y"]) == x + 1_000_000
        assert int(record["z"]) == x + 5
        assert int(record["w"]) == x == int(record["updated"])

    async def test_clock_never_goes_back(self, fixture: StoreFixture) -> None:
        times = [await fixture.store.now() for _ in range(20)]
        assert times == sorted(times)
        if fixture.clock is not None:
            fixture.clock.advance(-10)
            assert await fixture.store.now() >= times[-1]

    async def test_first_matching_branch_is_applied(self, fixture: StoreFixture) -> None:
        def branches(*wanted: str) -> TransitionType:
            return TransitionType(
                "ordered", tuple(Branch(("pending",), (("eq", "x", Const(w)),), (("set", "y", Const(w)),), "e") for w in wanted)
            )  # fmt: skip

        await fixture.do("a", create_record(fixture.operation_id(), x="b"))
        outcome = await fixture.attempt("a", Change(branches("a", "b", "b"), (), fixture.operation_id()))
        assert outcome.branch == 1
        assert (await fixture.job("a")).record["y"] == "b"
        assert (await fixture.attempt("a", Change(branches("a", "c"), (), fixture.operation_id()))).branch == -1
        both = TransitionType("both", (Branch(("pending",), (("has", "x"), ("has", "nothing")), (), "e"),))
        assert not (await fixture.attempt("a", Change(both, (), fixture.operation_id()))).accepted

    async def test_branch_without_event_keeps_version(self, fixture: StoreFixture) -> None:
        job = await fixture.made("a", create_record(fixture.operation_id()))
        quiet = TransitionType("quietly", (Branch(("pending",), (), (("set", "x", Const("1")),)),))
        after = await fixture.made("a", Change(quiet, (), fixture.operation_id()))
        assert after.record["x"] == "1"
        assert (after.version, after.updated_at) == (job.version, job.updated_at)
        assert [e.kind for e in await fixture.store.events("a")] == ["made"]

    async def test_token_is_fence_and_nonce(self, fixture: StoreFixture) -> None:
        for number in range(3):
            now = await fixture.store.now()
            await fixture.do(f"a{number}", create_record(fixture.operation_id(), slot="s", worker="w"))
            job = await fixture.made(
                f"a{number}", change_with(fixture.operation_id(), ("take", 0, 1), values=(f"nonce{number}", str(LONG)))
            )
            token = job.record["token"]
            assert token.endswith(f":nonce{number}")
            assert now + LONG <= int(job.record["lease"]) <= await fixture.store.now() + LONG
            for given, holds in ((token, True), (token + "x", False), (f"{fence(token)}:", False), (None, False)):
                outcome = await fixture.attempt(
                    f"a{number}", guarded_change(fixture.operation_id(), ("token", 0), given)
                )
                assert outcome.accepted is holds, given

    async def test_lease_drains_and_is_dropped(self, fixture: StoreFixture) -> None:
        await fixture.do("a", create_record(fixture.operation_id(), slot="s", worker="w"))
        job = await fixture.made("a", change_with(fixture.operation_id(), ("take", 0, 1), values=("n", str(LONG))))
        token, lease = job.record["token"], int(job.record["lease"])
        stopped = await fixture.made("a", change_with(fixture.operation_id(), ("stop",)))
        assert "token" not in stopped.record
        assert "lease" not in stopped.record
        assert await fixture.store.draining_leases() == [("a", token, lease)]
        for guard, given, holds in (
            ("stopping", token, True),
            ("stopping", "1:x", False),
            ("stopping", None, False),
            ("overdue", token, False),
            ("token", token, False),
        ):
            assert (
                await fixture.attempt("a", guarded_change(fixture.operation_id(), (guard, 0), given))
            ).accepted is holds, guard
        assert not (await fixture.attempt("a", guarded_change(fixture.operation_id(), ("free",)))).accepted
        await fixture.do("a", change_with(fixture.operation_id(), ("stop",)))
        assert await fixture.store.draining_leases() == [("a", token, lease)], (
            "without a live lease there is nothing to drain"
        )
        await fixture.do("a", change_with(fixture.operation_id(), ("drop",)))
        assert await fixture.store.draining_leases() == []
        assert (await fixture.attempt("a", guarded_change(fixture.operation_id(), ("free",)))).accepted
        assert not (await fixture.attempt("a", guarded_change(fixture.operation_id(), ("stopping", 0), token))).accepted

    async def test_expired_draining_lease_is_overdue(self, fixture: StoreFixture) -> None:
        await fixture.do("a", create_record(fixture.operation_id()))
        job = await fixture.made("a", change_with(fixture.operation_id(), ("take", 0, 1), ("stop",), values=("n", "0")))
        token = (await fixture.store.draining_leases())[0][1]
        assert token.endswith(":n")
        assert (await fixture.attempt("a", guarded_change(fixture.operation_id(), ("overdue", 0), token))).accepted
        assert not (await fixture.attempt("a", guarded_change(fixture.operation_id(), ("overdue", 0), "1:x"))).accepted
        assert "token" not in job.record

    async def test_free_guard_covers_unique_key(self, fixture: StoreFixture) -> None:
        await fixture.do("a", create_record(fixture.operation_id(), unique_key="k"))
        await fixture.do("a", change_with(fixture.operation_id(), ("take", 0, 1), ("stop",), values=("n", str(LONG))))
        await fixture.do("b", create_record(fixture.operation_id(), unique_key="k"))
        await fixture.do("c", create_record(fixture.operation_id(), unique_key="other"))
        assert not (await fixture.attempt("b", guarded_change(fixture.operation_id(), ("free",)))).accepted
        assert (await fixture.attempt("c", guarded_change(fixture.operation_id(), ("free",)))).accepted
        change = TransitionType("born", (Branch(("",), (("free",),), (("set", "status", Const("pending")), ("set", "type", Const("t")),
                      ("set", "progress", Const("0")), ("stamp", "created")), "made"),))  # fmt: skip
        assert not (await fixture.attempt("d", Change(change, (), fixture.operation_id(), "k"))).accepted
        assert (await fixture.attempt("e", Change(change, (), fixture.operation_id(), "other"))).accepted
        assert (await fixture.attempt("f", Change(change, (), fixture.operation_id()))).accepted

    async def test_unique_guard_covers_given_statuses(self, fixture: StoreFixture) -> None:
        guard: Guard = ("unique", "pending running")
        await fixture.do("a", create_record(fixture.operation_id(), "running", unique_key="k"))
        await fixture.do("b", create_record(fixture.operation_id()))
        assert not (await fixture.attempt("b", guarded_change(fixture.operation_id(), guard, key="k"))).accepted
        assert (await fixture.attempt("b", guarded_change(fixture.operation_id(), guard, key="other"))).accepted
        assert (await fixture.attempt("b", guarded_change(fixture.operation_id(), guard))).accepted
        assert (await fixture.attempt("a", guarded_change(fixture.operation_id(), guard, key="k"))).accepted, (
            "its own record does not count"
        )
        assert (
            await fixture.attempt("b", guarded_change(fixture.operation_id(), ("unique", "pending"), key="k"))
        ).accepted
        assert (
            await fixture.attempt("b", guarded_change(fixture.operation_id(), ("unique", "pend run"), key="k"))
        ).accepted
        await fixture.tick()
        await fixture.do("c", create_record(fixture.operation_id(), unique_key="k"))
        assert not (await fixture.attempt("a", guarded_change(fixture.operation_id(), guard))).accepted, (
            "without a value, its own key counts"
        )
        assert (await fixture.attempt("c", guarded_change(fixture.operation_id(), guard))).accepted, (
            "the newest record owns the key"
        )

    async def test_key_owner_is_last_arrival(self, fixture: StoreFixture) -> None:
        """After the clock of the server stepped back, two active jobs had one unique key."""
        guard: Guard = ("unique", "pending running")
        await fixture.do("a", create_record(fixture.operation_id(), "completed", unique_key="k", created=AHEAD))
        await fixture.do("b", create_record(fixture.operation_id(), unique_key="k"))
        outcome = await fixture.attempt("c", plan_create(worker_job(unique_key="k"), fixture.operation_id()))
        assert (outcome.accepted, outcome.key_owner_id) == (False, "b")
        outcome = await fixture.attempt(
            "d", plan_track(track_job(unique_key="k"), fixture.operation_id(), nonce="n", lease=LONG)
        )
        assert (outcome.accepted, outcome.key_owner_id) == (False, "b")
        await fixture.do("a", change_with(fixture.operation_id(), ("set", "x", Const("1")), statuses=("completed",)))
        assert not (await fixture.attempt("e", guarded_change(fixture.operation_id(), guard, key="k"))).accepted
        outcome = await fixture.attempt("e", plan_create(worker_job(unique_key="k"), fixture.operation_id()))
        assert (outcome.accepted, outcome.key_owner_id) == (False, "b")

    async def test_batch_creates_one_job_per_key(self, fixture: StoreFixture) -> None:
        """Redis accepted two jobs with one unique key in one `submit_many`."""
        changes = [Write(name, plan_create(worker_job(unique_key="k"), fixture.operation_id())) for name in "abc"]
        outcomes = (await fixture.store.apply(changes)).outcomes
        assert [(one.accepted, one.key_owner_id) for one in outcomes] == [(True, None), (False, "a"), (False, "a")]
