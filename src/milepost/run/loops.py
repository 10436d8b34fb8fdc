"""The start of `run.each`: its name, its position, and the log lines about both.

The variables of an earlier attempt are lost. So a loop passes over finished items only if its author says that the work
on an item is durable (``resume=True``), or if the variables are restored (``state=``).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from milepost.core.errors import InvalidInputError
from milepost.core.resume import continues_loops
from milepost.core.serialization import from_json, safe_str, single_line
from milepost.run.crash_report import masked, masked_line, redacted
from milepost.run.cursor import Cursor, LoopScope, current_loop, duplicate_name_error
from milepost.run.each import NAME_BYTES, Each, Key, key_function, length_of
from milepost.run.items import ItemOutcome, Ledger, RepeatedItems
from milepost.run.stages import LOOP, UNIT_CHARS, LiveStage, whole_number
from milepost.run.state import Snapshots, StateBinding

if TYPE_CHECKING:
    from milepost.run.map import MapProgress
    from milepost.run.run import Run

T = TypeVar("T")

log = logging.getLogger("milepost.run")

ITEM_ERROR_BYTES = 300
_ORDERED_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.items()))
"""Views that have the order of their dict."""
_UNORDERED: tuple[type, ...] = (set, frozenset, type(iter(set())))


CHECKPOINT = ""
"""The name among the cursors, which no loop has, that says where the checkpoint was recorded."""


class RunLoops:
    """The loops and maps of a run, and where those of the last attempt ended."""

    def __init__(self, record: Mapping[str, str], ledger: Ledger) -> None:
        kept = [from_json(record[field]) for field in ("cursors", "state") if record.get(field)]
        self.earlier: dict[str, dict[str, Any]] = {name: cursor for part in kept for name, cursor in part.items()}
        """The cursors and snapshots of the last attempt that no loop has taken up yet, by the names of their loops."""
        self.checkpoint_was_in_loop = bool(self.earlier.pop(CHECKPOINT, None))
        """Whether the last attempt recorded its checkpoint in a loop."""
        self.checkpoint_in_loop: bool | None = None
        """Whether all checkpoints of this attempt so far, with one that is being written, were recorded in a loop; None
        without any."""
        self.continues = continues_loops(self.earlier)
        for cursor in self.earlier.values():
            if "ledger" in cursor:
                ledger.add(cursor["ledger"])
        self.only = RepeatedItems(from_json(record["only_keys"])) if record.get("only_keys") else None
        """The items that are processed; None for all."""
        self.each: dict[str, Each[Any]] = {}
        self.maps: dict[str, MapProgress] = {}
        self.places: dict[str, LoopScope] = {}
        self.states: list[StateBinding] = []
        self.snapshots = Snapshots()

    def not_taken_up(self, *, with_state: bool) -> dict[str, dict[str, Any]]:
        """Return the cursors of the last attempt that no loop has taken up yet: those with a snapshot, or the others."""
        earlier = self.earlier.copy()  # the code takes them up while the heartbeat reports
        return {name: cursor for name, cursor in earlier.items() if ("state" in cursor) is with_state}


def begin_each(
    run: Run,
    items: Iterable[T] | AsyncIterable[T],
    *,
    stage: str | None,
    key: Key,
    batch: int | None,
    total: int | None,
    unit: str,
    weight: float | None,
    resume: bool,
    state: object | None,
) -> Each[T]:
    """Return the loop of `Run.each`."""
    binding = None if state is None else _binding_of(run, state)
    resumes = resume or binding is not None
    if resumes:
        check_resumable(run, items, "state" if binding is not None else "resume")
        check_nesting(run, binding is not None)
    place = new_place(run, stage, resumes=resumes)
    place.has_state = binding is not None
    kept = run._loops.earlier.get(place.name, {})
    size = length_of(items) if total is None else whole_number(total, "total of loop", place.name)
    masks = run._secret_values
    continues = resumes and bool(kept.get("n")) and ("key" in kept) == (key is not None) and "results" not in kept
    continues = continues and ("state" in kept) == (binding is not None)
    is_older = continues and binding is not None and kept.get("version") != binding.version
    cursor: Cursor | None = None
    if run._loops.only is None and resumes:
        cursor = Cursor(
            place.name, kept if continues and not is_older else {}, key_function(key), size, binding, run._loops.snapshots,
            masked=lambda text: masked(text, masks), warn=lambda text: log_loop(run, place, text, "warning"),
            log_unreportable=lambda error: run._log_unreportable(f"place in the loop {place.name!r:.80}", error),
        )  # fmt: skip
        if cursor.kept:
            cursor.check_total()
    if run._loops.only is not None and size is not None:
        size = min(size, len(run._loops.only))
    continues = cursor is not None and bool(cursor.kept)
    own: LiveStage | None = None
    counting: LiveStage | None = None

    def begin(loop: Each[Any]) -> None:
        nonlocal own, counting
        if not continues:
            log_restart(run, place, kept, remedy=_remedy(kept, binding, resume=resume, is_older=is_older))
        counting, own = count_in_stage(run, place, stage, weight, size, unit, lambda: loop.count())
        place.enter()
        if cursor is not None:
            run._kept_work.begin()

    def end(loop: Each[Any], finished: bool) -> None:
        place.leave()
        if cursor is not None:
            cursor.leave()
            run._kept_work.end()
        if counting is not None:
            counting.unfollow(place)
        if own is not None:
            own.end() if finished else run._leave(own)

    loop: Each[T] = Each(
        items,
        key=key,
        batch=batch,
        stops=run._stop_reasons,
        cursor=cursor,
        total=size,
        only=run._loops.only,
        name_of=lambda value: masked_line(value, masks, NAME_BYTES),
        begin=begin,
        end=end,
        passed=lambda count: _log_resume(run, place, count, size),
    )
    place.at = lambda: loop.count()
    take_up(run, place, kept, continues)
    run._loops.each[place.name] = loop
    run._loops.earlier.pop(place.name, None)
    return loop


def count_in_stage(
    run: Run,
    place: LoopScope,
    name: str | None,
    weight: float | None,
    size: int | None,
    unit: str,
    count: Callable[[], float],
) -> tuple[LiveStage, LiveStage | None]:
    """Count a loop in the open stage, or in one of its own; return that stage, and the one of its own if it has one."""
    stage = run._innermost
    own: LiveStage | None = None
    if name is not None or stage is None:
        name = masked(name or LOOP, run._secret_values)
        stage = own = run._enter(LiveStage(name, weight, size, unit, stage, run._stop_reasons, run._leave))
    if stage.unit == "item" and not stage.count:
        stage.unit = single_line(unit or "item", UNIT_CHARS)
    outer = current_loop(run._loops.places)
    stage.follow(place, outer.whole if outer is not None else None, size, count)
    return stage, own


def new_place(run: Run, stage: str | None, *, resumes: bool, is_counted: bool = False) -> LoopScope:
    """Return the scope of a new loop. Cursors of loops inside finished items are dropped.

    `is_counted`: a second loop of its name gets a number although it resumes, since its cursor tells it from the first.
    """
    over = [name for name, place in run._loops.places.copy().items() if place.is_over]
    for name in over:
        for kept in (run._loops.places, run._loops.each, run._loops.maps):
            kept.pop(name, None)
    run._loops.snapshots.drop(over)
    around = run._innermost
    wanted = stage or (LOOP if around is None else around.name)
    place = LoopScope(run._loops.places, wanted, resumes, is_counted)
    if resumes and not is_counted and run._loops.earlier.get(place.name, {}).get("shared"):
        place.is_shared = True
        raise InvalidInputError("stage", duplicate_name_error(wanted))
    return place


def cursors_of(run: Run) -> dict[str, Any]:
    """Return the cursors of the loops and maps of a run, by name. Loops with state keep theirs with the state."""
    cursors: dict[str, Any] = {}
    loops: dict[str, Each[Any] | MapProgress] = {**run._loops.each, **run._loops.maps}
    for name, loop in loops.items():
        place = run._loops.places.get(name)
        if place is None or place.is_over or (place.is_redone and not place.resumes):
            continue
        try:
            cursor = loop.cursor()
        except Exception as error:  # noqa: BLE001 - the key of an item is the user's code
            run._log_unreportable(f"place in the loop {name!r:.80}", error)
            continue
        if cursor and not place.has_state:
            ledger = ledger_of(place, loop.is_passed(cursor))
            cursors[name] = {**cursor, **({"shared": True} if place.is_shared else {}), **ledger}
    return cursors


def snapshots_of(run: Run) -> dict[str, Any]:
    """Return the latest snapshots of the loops with state, each with the ledger of the items that it covers."""
    found: dict[str, Any] = {}
    for name, kept in run._loops.snapshots.all().items():
        place, n = run._loops.places.get(name), kept["n"]
        shared = {"shared": True} if place is not None and place.is_shared else {}
        ledger = ledger_of(place, _before(n)) if place is not None else {}
        found[name] = {**kept, **shared, **ledger}
    return found


def _before(n: int) -> Callable[[Any], bool]:
    return lambda at: at < n


def take_up(run: Run, place: LoopScope, kept: Mapping[str, Any], continues: bool) -> None:
    """Take over the counts of skipped items; items that are processed again are counted again."""
    if "ledger" not in kept:
        return
    if not continues:
        run.ledger.take_back(kept["ledger"])
        return
    place.share.inherit(kept["ledger"])
    for share, at in place.outer.shares(place.outer_at) if place.outer is not None else ():
        share.note(at, kept["ledger"])


def ledger_of(place: LoopScope, is_over: Callable[[Any], bool]) -> dict[str, Any]:
    """Return the counts to store with a cursor: those of the items that the next attempt skips."""
    if not place.resumes:
        return {}
    passed = place.share.passed(is_over)
    return {} if passed is None else {"ledger": passed}


def recorder(run: Run, place: LoopScope | None, at: Any) -> Callable[[str, BaseException | None, bool], None]:
    """Return a function that records the outcome of item `at` of a loop."""
    shares = place.shares(at) if place is not None else ()

    def record(key: str, error: BaseException | None, skipped: bool) -> None:
        if run._loops.only is not None:
            run._loops.only.take(key)
        line = None
        if error is not None:
            line = single_line(redacted(f"{key}: {type(error).__name__}: {safe_str(error)}", run), ITEM_ERROR_BYTES)
        outcome = ItemOutcome(key, line, skipped)
        run.ledger.record(outcome)
        for share, item in shares:
            share.note(item, outcome)

    return record


def record_missed_items(run: Run) -> None:
    """Count items that the run was to repeat, and did not, as failed ones. Call it once its code has returned."""
    for outcome in run._loops.only.missed() if run._loops.only is not None else ():
        run.ledger.record(outcome)


def check_checkpoint(run: Run) -> None:
    """Reject a checkpoint in a run with a resumable loop: the next attempt would skip items twice."""
    for place in list(run._loops.places.values()):
        if place.resumes and (not place.is_counted or current_loop(run._loops.places) is None):
            what = (
                "a map of this run keeps its results"
                if place.is_counted
                else "a loop of this run has resume=True or state="
            )
            raise InvalidInputError("checkpoint", f"{what}, and so the position by itself; use one of the two")


def check_resumable(run: Run, items: object, what: str) -> None:
    """Reject a resumable loop over unordered items, or in a run that keeps a position itself."""
    if (
        run._has_own_checkpoint
        if what == "keep"
        else (run._checkpoint_at is not None or run.last_checkpoint is not None)
    ):
        option = {"keep": "a map that keeps its results (resume=False keeps none)", "state": "state="}.get(
            what, "resume=True"
        )
        raise InvalidInputError(
            what, "this run has a checkpoint of its own, so that items would be passed over twice; "
            f"use either run.checkpoint() or {option}"
        )  # fmt: skip
    if isinstance(items, _UNORDERED) or (isinstance(items, Set) and not isinstance(items, _ORDERED_VIEWS)):
        kind = "a set" if isinstance(items, set | frozenset) else f"a {type(items).__name__}"
        raise InvalidInputError(what, f"the items are {kind}, which has no fixed order; give sorted(items)")


def check_nesting(run: Run, has_state: bool) -> None:
    """Reject a resumable loop inside a loop with state, and the reverse.

    The items that the inner loop skips would be missing in the state of the outer one.
    """
    outer = current_loop(run._loops.places)
    while outer is not None:
        if outer.has_state or (has_state and outer.resumes):
            inside, around_it = "state=" if has_state else "resume=True", "state=" if outer.has_state else "resume=True"
            raise InvalidInputError(
                "state" if has_state else "resume",
                f"a loop with {inside} inside of a loop with {around_it} would count items twice or not at all; "
                "use a plain loop inside",
            )
        outer = outer.outer


def _binding_of(run: Run, state: object) -> StateBinding:
    binding = next((binding for binding in run._loops.states if binding.target is state), None)
    if binding is None:
        raise InvalidInputError("state", f"{type(state).__name__} was not made by run.state() of this run")
    if binding.is_open:
        raise InvalidInputError("state", "a loop with this state is under way; one state belongs to one loop at a time")
    return binding


def log_restart(run: Run, place: LoopScope, kept: Mapping[str, Any], *, remedy: str) -> None:
    """Log what starting again costs, unless the code starts at a checkpoint of its own."""
    count, total = kept.get("reached", kept.get("n", 0)), kept.get("of")
    if not count or run._loops.only is not None or run.last_checkpoint is not None:
        return
    if total is not None and count >= total:
        last = f"the last run had finished all {total} items"
    else:
        last = f"the last run had reached item {count + 1}" + (f" of {total}" if total is not None else "")
    log_loop(run, place, f"starting again at item 1; {last} ({remedy})")


def _remedy(kept: Mapping[str, Any], binding: StateBinding | None, *, resume: bool, is_older: bool) -> str:
    """Return why a loop starts again, or how to avoid that."""
    if binding is not None:
        now = f"version={binding.version}"
        return f"state of version {kept.get('version')} then, {now} now" if is_older else "state= was not given then"
    if not resume:
        return "resume=True or state= would keep that"
    if "n" not in kept or "state" in kept:
        return "resume=True was not given then"
    return "key was given in one of the two runs only"


def _log_resume(run: Run, place: LoopScope, count: int, total: int | None) -> None:
    """Log where a resumable loop continues."""
    if total is not None and count >= total:
        log_loop(run, place, f"resumed after item {count} of {total}, {count} passed over", resumed=count)
    elif count:
        of = f" of {total}" if total is not None else ""
        log_loop(run, place, f"resumed at item {count + 1}{of}, {count} passed over", resumed=count)


def log_loop(run: Run, place: LoopScope, text: str, level: Literal["info", "warning"] = "info", **facts: int) -> None:
    """Log a line about a loop, in the log of the job, with facts for programs, and in the log of the process."""
    run._log(text if place.name == LOOP else f"{_plain_name(place.name)}: {text}", level, **facts)
    write = log.info if level == "info" else log.warning
    write("job %s: loop %s: %s", run.job_id, masked(place.name, run._secret_values), text)


def _plain_name(name: str) -> str:
    """Return the name of a loop for the log, with a number if it has none of its own: `items'` is loop 2."""
    first = name.rstrip("'")
    count = len(name) - len(first) + 1
    if count == 1:
        return name
    return f"{first.removesuffix(LOOP)}loop {count}" if first.endswith(LOOP) else f"{first} (loop {count})"
