"""The words of the language of changes, one by one, on any store: guards and operations, by tables written out by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from milepost.core.change import Case, Change, Guard, Op, Shape, Value
from milepost.testing.conformance.harness import LONG, Scenarios, World
from milepost.testing.conformance.invariants import fence

PAST, AHEAD = "1000000", str(1 << 52)
US = "1790000000000000"
"""A number of the size of microseconds since 1970."""
US_NEXT = "1790000000000001"

GuardRow = tuple[Guard, Mapping[str, str], tuple[Value, ...], bool]
OpRow = tuple[tuple[Op, ...], Mapping[str, str], tuple[Value, ...], Mapping[str, str | None]]

GUARDS: dict[str, tuple[GuardRow, ...]] = {
    "eq": (
        (("eq", "x", "=a"), {"x": "a"}, (), True),
        (("eq", "x", "=a"), {"x": "A"}, (), False),
        (("eq", "x", "=a"), {}, (), False),
        (("eq", "x", "="), {}, (), True),
        (("eq", "x", "="), {"x": ""}, (), True),
        (("eq", "x", 0), {"x": "a"}, ("a",), True),
        (("eq", "x", 0), {"x": "a"}, ("b",), False),
        (("eq", "x", 0), {"x": "a"}, (None,), True),
        (("eq", "x", 1), {"x": "a"}, (None, "b"), False),
        (("eq", "x", ".y"), {"x": "a", "y": "a"}, (), True),
        (("eq", "x", ".y"), {"x": "a"}, (), False),
        (("eq", "x", ".y"), {}, (), True),
        (("eq", "x", "=1"), {"x": "1.0"}, (), False),
    ),
    "ne": (
        (("ne", "x", "=a"), {"x": "b"}, (), True),
        (("ne", "x", "=a"), {"x": "a"}, (), False),
        (("ne", "x", "=a"), {}, (), True),
        (("ne", "x", "="), {}, (), False),
        (("ne", "x", 0), {"x": "a"}, (None,), True),
        (("ne", "x", 0), {"x": "a"}, ("a",), False),
        (("ne", "x", ".y"), {"x": "a"}, (), True),
        (("ne", "x", ".y"), {}, (), False),
    ),
    "lt": (
        (("lt", "x", "=10"), {"x": "9"}, (), True),
        (("lt", "x", "=10"), {"x": "10"}, (), False),
        (("lt", "x", "=10"), {"x": "11"}, (), False),
        (("lt", "x", "=10"), {}, (), True),
        (("lt", "x", "=0"), {}, (), False),
        (("lt", "x", "=0.5"), {"x": "0.25"}, (), True),
        (("lt", "x", "=-1"), {"x": "-2"}, (), True),
        (("lt", "x", ".y"), {"x": "1", "y": "2"}, (), True),
        (("lt", "x", ".y"), {"x": "1"}, (), False),
        (("lt", "x", 0), {"x": "9"}, (None,), True),
        (("lt", "x", 0), {"x": "9"}, ("10",), True),
        (("lt", "x", 0), {"x": US}, (US_NEXT,), True),
        (("lt", "x", 0), {"x": US_NEXT}, (US_NEXT,), False),
    ),
    "ge": (
        (("ge", "x", "=10"), {"x": "9"}, (), False),
        (("ge", "x", "=10"), {"x": "10"}, (), True),
        (("ge", "x", "=10"), {"x": "11"}, (), True),
        (("ge", "x", "=1"), {}, (), False),
        (("ge", "x", ".y"), {}, (), True),
        (("ge", "x", ".y"), {"x": "1", "y": "2"}, (), False),
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
    "token": (
        (("token", 0), {}, ("",), False),
        (("token", 0), {}, (None,), False),
        (("token", 0), {}, ("1:a",), False),
    ),
}

ODD = "=k=v%s\\n\"'{}[]()*?^$ äß 漢字 🙂 \x1f\t;--"
"""A text that upsets whoever quotes, splits or matches patterns."""

OPS: dict[str, tuple[OpRow, ...]] = {
    "set": (
        ((("set", "x", "=a"),), {}, (), {"x": "a"}),
        ((("set", "x", "=a"),), {"x": "b"}, (), {"x": "a"}),
        ((("set", "x", 0),), {"x": "b"}, ("a",), {"x": "a"}),
        ((("set", "x", 0),), {"x": "b"}, (None,), {"x": "b"}),
        ((("set", "x", 0),), {}, (None,), {"x": None}),
        ((("set", "x", 1),), {}, (None, "a"), {"x": "a"}),
        ((("set", "x", ".y"),), {"y": "a"}, (), {"x": "a", "y": "a"}),
        ((("set", "x", ".y"),), {"x": "b"}, (), {"x": "b"}),
        ((("set", "x", 0),), {}, (ODD,), {"x": ODD}),
        ((("set", "x", f"={ODD}"),), {}, (), {"x": ODD}),
        ((("set", "x", 0),), {}, ("long " * 20_000,), {"x": "long " * 20_000}),
        ((("set", "y", "=a"), ("set", "x", ".y")), {"y": "b"}, (), {"x": "a"}),
    ),
    "clear": (
        ((("clear", "x"),), {"x": "a"}, (), {"x": None}),
        ((("clear", "x"),), {}, (), {"x": None}),
        ((("clear", "x"), ("set", "x", "=b")), {"x": "a"}, (), {"x": "b"}),
    ),
    "append": (
        ((("append", "x", 0),), {}, ("a",), {"x": "a"}),
        ((("append", "x", 0),), {"x": "a"}, ("b",), {"x": "a,b"}),
        ((("append", "x", 0),), {"x": "a"}, (None,), {"x": "a"}),
        ((("append", "x", "=b"), ("append", "x", "=c")), {}, (), {"x": "b,c"}),
    ),
    "roll": (
        ((("roll", "x", "y", "=3"),), {"x": "aß"}, (), {"x": None, "y": "aß"}),
        ((("roll", "x", "y", "=4"),), {"x": "aß", "y": "b"}, (), {"x": "aß", "y": "b"}),
        ((("roll", "x", "y", "=1"),), {"x": "a", "y": "b"}, (), {"x": None, "y": "a"}),
        ((("roll", "x", "y", "=1"),), {"y": "b"}, (), {"x": None, "y": "b"}),
        ((("roll", "x", "y", "=1"), ("append", "x", "=c")), {"x": "a"}, (), {"x": "c", "y": "a"}),
    ),
    "add": (
        ((("add", "x", "=1"),), {}, (), {"x": "1"}),
        ((("add", "x", "=1"),), {"x": "41"}, (), {"x": "42"}),
        ((("add", "x", "=-1"),), {"x": "1"}, (), {"x": "0"}),
        ((("add", "x", "=-1"),), {}, (), {"x": "-1"}),
        ((("add", "x", 0),), {"x": "1"}, (None,), {"x": "1"}),
        ((("add", "x", ".y"),), {"x": "1", "y": "2"}, (), {"x": "3"}),
        ((("add", "x", ".y"),), {"x": "1"}, (), {"x": "1"}),
        ((("add", "x", "=1"),), {"x": US}, (), {"x": US_NEXT}),
    ),
    "sum": (
        ((("sum", "x", ".a", ".b"),), {"a": "1", "b": "2"}, (), {"x": "3"}),
        ((("sum", "x", ".a", ".b"),), {"b": "2", "x": "9"}, (), {"x": "2"}),
        ((("sum", "x", ".a", "=3"),), {}, (), {"x": "3"}),
        ((("sum", "x", ".a", ".b"),), {}, (), {"x": "0"}),
        ((("sum", "x", ".a", 0),), {"a": US}, ("1",), {"x": US_NEXT}),
    ),
    "max": (
        ((("max", "x", "=0.5"),), {}, (), {"x": "0.5"}),
        ((("max", "x", "=0.50"),), {"x": "0.25"}, (), {"x": "0.50"}),
        ((("max", "x", "=0.25"),), {"x": "0.5"}, (), {"x": "0.5"}),
        ((("max", "x", "=0.50"),), {"x": "0.5"}, (), {"x": "0.5"}),
        ((("max", "x", "=10"),), {"x": "9"}, (), {"x": "10"}),
        ((("max", "x", "=1e-3"),), {"x": "0.01"}, (), {"x": "0.01"}),
        ((("max", "x", 0),), {"x": "0.5"}, (None,), {"x": "0.5"}),
        ((("max", "x", ".y"),), {"x": "1", "y": "2"}, (), {"x": "2"}),
        ((("max", "x", ".y"),), {"x": "1"}, (), {"x": "1"}),
        ((("max", "x", 0),), {"x": US}, (US_NEXT,), {"x": US_NEXT}),
        ((("max", "x", "=0.30000000000000004"),), {"x": "0.3"}, (), {"x": "0.30000000000000004"}),
    ),
    "stamp": (
        ((("stamp", "x", 0),), {"x": "7"}, (None,), {"x": "7"}),
        ((("stamp", "x", ".y"),), {"x": "7"}, (), {"x": "7"}),
    ),
    "once": (((("once", "x"),), {"x": "7"}, (), {"x": "7"}),),
}


def made(op: str, status: str = "pending", **fields: str) -> Change:
    """A record of any fields comes to be."""
    sets = tuple(("set", name, f"={value}") for name, value in fields.items())
    base: tuple[Op, ...] = (("set", "status", f"={status}"), ("set", "type", "=t"), ("set", "progress", "=0"))
    return Change(Shape("made", (Case(("",), (), (*base, ("stamp", "created"), *sets), "made", "life"),)), (), op)


def asked(op: str, guard: Guard, *values: Value, key: str | None = None) -> Change:
    """A change that does nothing, if its guard holds."""
    return Change(Shape("asked", (Case(("pending", "running"), (guard,), (), "asked"),)), values, op, key)


def told(op: str, *ops: Op, values: tuple[Value, ...] = ()) -> Change:
    """A change of one case without guards."""
    return Change(Shape("told", (Case(("pending", "running"), (), ops, "told"),)), values, op)


class Language(Scenarios):
    """Each word means on every store what `core.change` says."""

    @pytest.mark.parametrize("word", list(GUARDS))
    async def test_a_guard_holds_or_not(self, world: World, word: str) -> None:
        for number, (guard, fields, values, holds) in enumerate(GUARDS[word]):
            job_id = f"{word}{number}"
            await world.do(job_id, made(world.op(), **fields))
            outcome = await world.attempt(job_id, asked(world.op(), guard, *values))
            assert outcome.accepted is holds, (guard, fields, values)

    @pytest.mark.parametrize("word", list(OPS))
    async def test_an_operation_changes_what_it_names_and_nothing_else(self, world: World, word: str) -> None:
        for number, (ops, fields, values, wanted) in enumerate(OPS[word]):
            job_id = f"{word}{number}"
            before = dict((await world.made(job_id, made(world.op(), other="stays", **fields))).record)
            after = dict((await world.made(job_id, told(world.op(), *ops, values=values))).record)
            for name, value in wanted.items():
                assert after.get(name) == value, (ops, fields, values)
            kept = set(before) - set(wanted) - {str(op[1]) for op in ops} - {"version", "updated", "ops"}
            assert {n: after.get(n) for n in kept} == {n: before[n] for n in kept}
            assert set(after) - set(before) <= {*wanted, *(str(op[1]) for op in ops), "ops"}

    async def test_stamps_are_the_stores_clock(self, world: World) -> None:
        before = await world.store.now()
        await world.do("a", made(world.op(), later="5"))
        job = await world.made(
            "a",
            told(world.op(), ("stamp", "x"), ("stamp", "y", "=1000000"), ("stamp", "z", ".later"), ("once", "w")),
        )
        record, after = job.record, await world.store.now()
        x = int(record["x"])
        assert before <= x <= after
        assert int(record["y"]) == x + 1_000_000
        assert int(record["z"]) == x + 5
        assert int(record["w"]) == x == int(record["updated"])

    async def test_the_clock_never_goes_back(self, world: World) -> None:
        times = [await world.store.now() for _ in range(20)]
        assert times == sorted(times)
        if world.clock is not None:
            world.clock.advance(-10)
            assert await world.store.now() >= times[-1]

    async def test_the_first_case_that_fits_is_performed(self, world: World) -> None:
        def cases(*wanted: str) -> Shape:
            return Shape(
                "ordered", tuple(Case(("pending",), (("eq", "x", f"={w}"),), (("set", "y", f"={w}"),), "e") for w in wanted)
            )  # fmt: skip

        await world.do("a", made(world.op(), x="b"))
        outcome = await world.attempt("a", Change(cases("a", "b", "b"), (), world.op()))
        assert outcome.case == 1
        assert (await world.job("a")).record["y"] == "b"
        assert (await world.attempt("a", Change(cases("a", "c"), (), world.op()))).case == -1
        both = Shape("both", (Case(("pending",), (("has", "x"), ("has", "nothing")), (), "e"),))
        assert not (await world.attempt("a", Change(both, (), world.op()))).accepted

    async def test_a_case_without_an_event_changes_no_version(self, world: World) -> None:
        job = await world.made("a", made(world.op()))
        quiet = Shape("quietly", (Case(("pending",), (), (("set", "x", "=1"),)),))
        after = await world.made("a", Change(quiet, (), world.op()))
        assert after.record["x"] == "1"
        assert (after.version, after.updated_at) == (job.version, job.updated_at)
        assert [e.kind for e in await world.store.events("a")] == ["made"]

    async def test_a_token_is_a_fence_that_grows_and_a_nonce(self, world: World) -> None:
        tokens = []
        for number in range(3):
            now = await world.store.now()
            await world.do(f"a{number}", made(world.op(), slot="s", worker="w"))
            job = await world.made(f"a{number}", told(world.op(), ("take", 0, 1), values=(f"nonce{number}", str(LONG))))
            token = job.record["token"]
            assert token.endswith(f":nonce{number}")
            assert fence(token) >= now
            assert now + LONG <= int(job.record["lease"]) <= await world.store.now() + LONG
            tokens.append(fence(token))
            for given, holds in ((token, True), (token + "x", False), (f"{fence(token)}:", False), (None, False)):
                outcome = await world.attempt(f"a{number}", asked(world.op(), ("token", 0), given))
                assert outcome.accepted is holds, given
        assert tokens == sorted(set(tokens))

    async def test_a_lease_becomes_a_stopping_one_and_is_dropped(self, world: World) -> None:
        await world.do("a", made(world.op(), slot="s", worker="w"))
        job = await world.made("a", told(world.op(), ("take", 0, 1), values=("n", str(LONG))))
        token, lease = job.record["token"], int(job.record["lease"])
        stopped = await world.made("a", told(world.op(), ("stop",)))
        assert "token" not in stopped.record
        assert "lease" not in stopped.record
        assert await world.store.stoppings() == [("a", token, lease)]
        for guard, given, holds in (
            ("stopping", token, True),
            ("stopping", "1:x", False),
            ("stopping", None, False),
            ("overdue", token, False),
            ("token", token, False),
        ):
            assert (await world.attempt("a", asked(world.op(), (guard, 0), given))).accepted is holds, guard
        assert not (await world.attempt("a", asked(world.op(), ("free",)))).accepted
        await world.do("a", told(world.op(), ("stop",)))
        assert await world.store.stoppings() == [("a", token, lease)], "without a live lease there is nothing to stop"
        await world.do("a", told(world.op(), ("drop",)))
        assert await world.store.stoppings() == []
        assert (await world.attempt("a", asked(world.op(), ("free",)))).accepted
        assert not (await world.attempt("a", asked(world.op(), ("stopping", 0), token))).accepted

    async def test_a_stopping_lease_that_ran_out_is_overdue(self, world: World) -> None:
        await world.do("a", made(world.op()))
        job = await world.made("a", told(world.op(), ("take", 0, 1), ("stop",), values=("n", "0")))
        token = (await world.store.stoppings())[0][1]
        assert token.endswith(":n")
        assert (await world.attempt("a", asked(world.op(), ("overdue", 0), token))).accepted
        assert not (await world.attempt("a", asked(world.op(), ("overdue", 0), "1:x"))).accepted
        assert "token" not in job.record

    async def test_free_asks_about_the_unique_key_too(self, world: World) -> None:
        await world.do("a", made(world.op(), unique_key="k"))
        await world.do("a", told(world.op(), ("take", 0, 1), ("stop",), values=("n", str(LONG))))
        await world.do("b", made(world.op(), unique_key="k"))
        await world.do("c", made(world.op(), unique_key="other"))
        assert not (await world.attempt("b", asked(world.op(), ("free",)))).accepted
        assert (await world.attempt("c", asked(world.op(), ("free",)))).accepted
        birth = Shape("born", (Case(("",), (("free",),), (("set", "status", "=pending"), ("set", "type", "=t"),
                      ("set", "progress", "=0"), ("stamp", "created")), "made"),))  # fmt: skip
        assert not (await world.attempt("d", Change(birth, (), world.op(), "k"))).accepted
        assert (await world.attempt("e", Change(birth, (), world.op(), "other"))).accepted
        assert (await world.attempt("f", Change(birth, (), world.op()))).accepted

    async def test_unique_asks_about_other_records_of_some_statuses(self, world: World) -> None:
        guard: Guard = ("unique", "pending running")
        await world.do("a", made(world.op(), "running", unique_key="k"))
        await world.do("b", made(world.op()))
        assert not (await world.attempt("b", asked(world.op(), guard, key="k"))).accepted
        assert (await world.attempt("b", asked(world.op(), guard, key="other"))).accepted
        assert (await world.attempt("b", asked(world.op(), guard))).accepted
        assert (await world.attempt("a", asked(world.op(), guard, key="k"))).accepted, "its own record is no other"
        assert (await world.attempt("b", asked(world.op(), ("unique", "pending"), key="k"))).accepted
        assert (await world.attempt("b", asked(world.op(), ("unique", "pend run"), key="k"))).accepted
        await world.tick()
        await world.do("c", made(world.op(), unique_key="k"))
        assert not (await world.attempt("a", asked(world.op(), guard))).accepted, "without a value, by its own key"
        assert (await world.attempt("c", asked(world.op(), guard))).accepted, "the newest record holds the key"
