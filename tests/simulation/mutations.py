"""Mutants of milepost by rule, and which seeds find them: ``python -m tests.simulation.mutations --help``.

A mutant lacks one guard of the transitions, or has one comparison of the heartbeat, the sweeper or a worker's decisions turned.
A run in which it never decides differently is the same without it, so a first pass notes which seeds reach which mutant.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import operator
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Protocol
from unittest import mock

import milepost.run.heartbeat
import milepost.run.heartbeat_state
import milepost.run.sweeper
import milepost.worker.worker_state
from milepost.core.transitions import operations
from milepost.core.transitions.change import Branch, Change, Guard, TransitionType
from milepost.core.transitions.operations import holds
from tests.explorer.comparisons import TURNED
from tests.simulation.simulation import run_seed

FOUND = Path(__file__).with_name("mutants_found.json")
"""The seed (pct) that found each mutant, and the rule that it broke. The others were not found."""
MODULES = (
    milepost.run.heartbeat,
    milepost.run.heartbeat_state,
    milepost.run.sweeper,
    milepost.worker.worker_state,
)
"""The modules whose comparisons are turned."""
MOST_PROCESSOR_SECONDS = 5.0
"""A run that takes longer does not end: a usual one takes a fifth of a second."""
COMPARED = "__compared__"
OPERATORS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


class Mutant(Protocol):
    """A change of milepost."""

    @property
    def name(self) -> str: ...

    def applied(self) -> Any:
        """Return a context in which milepost has the change."""


class EndlessError(BaseException):
    """Raised in a run that does not end."""


# --- guards ---


@dataclass(frozen=True)
class MissingGuard:
    """All transitions of a name lack one guard of their branches for one move."""

    name: str

    @contextmanager
    def applied(self) -> Iterator[None]:
        match_branch = operations.match_branch
        careless: dict[TransitionType, TransitionType] = {}

        def match(change: Change, *args: Any) -> int:
            kind = change.transition
            if kind not in careless:
                careless[kind] = replace(kind, branches=tuple(self._without(kind, branch) for branch in kind.branches))
            return match_branch(change._replace(transition=careless[kind]), *args)

        with mock.patch.object(operations, "match_branch", match):
            yield

    def _without(self, kind: TransitionType, branch: Branch) -> Branch:
        guards = tuple(guard for guard in branch.guards if name_of_guard(kind, branch, guard) != self.name)
        return replace(branch, guards=guards)


def name_of_guard(kind: TransitionType, branch: Branch, guard: Guard) -> str:
    """Return the name of the mutant that lacks a guard. The position of a value in the change does not count."""
    words = [getattr(word, "text", getattr(word, "name", word)) for word in guard]
    text = " ".join(str(word) for word in words if not isinstance(word, int))
    return f"{kind.name}: {'/'.join(branch.statuses) or 'none'} to {branch.event or 'no event'}, without {text}"


# --- comparisons ---


@dataclass(frozen=True)
class TurnedComparison:
    """A function with one comparison turned: to the other bound, or to its opposite."""

    module: ModuleType
    function: str
    place: int
    text: str
    turned: type[ast.cmpop]

    @property
    def name(self) -> str:
        return f"{self.module.__name__.rpartition('.')[2]}.{self.function}: {self.text} as {self.turned.__name__}"

    @contextmanager
    def applied(self) -> Iterator[None]:
        tree = _tree(self.module)
        _comparisons(tree)[self.place][1].ops[0] = self.turned()
        with _replaced(self.module, tree, {self.function}):
            yield


def turned_comparisons(module: ModuleType) -> Iterator[TurnedComparison]:
    """Yield each way to turn one comparison of the functions of a module."""
    seen: dict[tuple[str, str], int] = {}
    for place, (function, node) in enumerate(_comparisons(_tree(module))):
        text = ast.unparse(node)
        number = seen[function, text] = seen.get((function, text), 0) + 1
        text = text if number == 1 else f"{text} ({number})"
        for turned in TURNED[type(node.ops[0])]:
            yield TurnedComparison(module, function, place, text, turned)


def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text())


def _comparisons(tree: ast.Module) -> list[tuple[str, ast.Compare]]:
    """Return the comparisons of the functions and methods of a module, each with the name of its function."""
    found: list[tuple[str, ast.Compare]] = []

    def visit(node: ast.AST, names: tuple[str, ...], function: str) -> None:
        if isinstance(node, ast.ClassDef) and not function:
            names = (*names, node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not function:
            function = ".".join((*names, node.name))
        elif isinstance(node, ast.Compare) and function and len(node.ops) == 1:
            found.append((function, node))
        for child in ast.iter_child_nodes(node):
            visit(child, names, function)

    visit(tree, (), "")
    return found


@contextmanager
def _replaced(module: ModuleType, tree: ast.Module, functions: set[str]) -> Iterator[None]:
    """Let functions of a module have their code of this tree."""
    compiled = dict(_codes(compile(ast.fix_missing_locations(tree), str(module.__file__), "exec")))
    kept: list[tuple[FunctionType, CodeType]] = []
    for name in functions:
        found: Any = module
        for part in name.split("."):
            found = vars(found)[part]
        function = found.fget if isinstance(found, property) else found
        kept.append((function, function.__code__))
        function.__code__ = compiled[name]
    try:
        yield
    finally:
        for function, code in kept:
            function.__code__ = code


def _codes(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant.co_qualname, constant
            yield from _codes(constant)


# --- the seeds that reach a mutant ---


@contextmanager
def noting(met: set[str], reached: set[str]) -> Iterator[None]:
    """Note the names of the mutants of each guard that is met within the block, and of those that would decide otherwise."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(operations, "match_branch", _guards_noted(met, reached)))
        for module in MODULES:
            _note_comparisons(module, reached, stack)
        yield


def _guards_noted(met: set[str], reached: set[str]) -> Callable[..., int]:
    match_branch = operations.match_branch

    def match_and_note(change: Change, job_id: str, record: Any, facts: Any) -> int:
        matched = match_branch(change, job_id, record, facts)
        kind, status = change.transition, record["status"] if record is not None else ""

        def text(part: Any) -> str | None:
            return operations._text(part, change, record or {})

        def fails(guard: Guard) -> bool:
            return not holds(guard, text, job_id, record or {}, change.key, facts)

        for index, branch in enumerate(kind.branches):
            met.update(name_of_guard(kind, branch, guard) for guard in branch.guards)
            if status in branch.statuses and not 0 <= matched <= index:
                failed = {name_of_guard(kind, branch, guard) for guard in filter(fails, branch.guards)}
                if len(failed) == 1:
                    reached.update(failed)
        return matched

    return match_and_note


def _note_comparisons(module: ModuleType, reached: set[str], stack: ExitStack) -> None:
    by_place: dict[int, list[tuple[Any, str]]] = {}
    for one in turned_comparisons(module):
        by_place.setdefault(one.place, []).append((OPERATORS[one.turned], one.name))
    tree = _tree(module)
    nodes = _comparisons(tree)
    places = {id(node): place for place, (_, node) in enumerate(nodes)}
    operators = [OPERATORS[type(node.ops[0])] for _, node in nodes]

    class Note(ast.NodeTransformer):
        def visit_Compare(self, node: ast.Compare) -> ast.AST:
            self.generic_visit(node)
            if (place := places.get(id(node))) is None:
                return node
            values: list[ast.expr] = [ast.Constant(place), node.left, node.comparators[0]]
            return ast.copy_location(ast.Call(ast.Name(COMPARED, ast.Load()), values, []), node)

    def compared(place: int, left: Any, right: Any) -> bool:
        value = operators[place](left, right)
        for turned, name in by_place[place]:
            if bool(turned(left, right)) != bool(value):
                reached.add(name)
        return value

    stack.enter_context(mock.patch.object(module, COMPARED, compared, create=True))
    stack.enter_context(_replaced(module, Note().visit(tree), {function for function, _ in nodes}))


# --- the search ---


def mutant_named(name: str) -> Mutant:
    """Return a mutant by its name."""
    turned = (one for module in MODULES for one in turned_comparisons(module) if one.name == name)
    return next(turned, None) or MissingGuard(name)


def broken_rule(mutant: Mutant, seed: int) -> str:
    """Return the rule that a seed breaks with a mutant, the exception that it raises, "endless", or ""."""

    def end(*args: object) -> None:
        raise EndlessError

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_PROCESSOR_SECONDS)
    try:
        with mutant.applied():
            outcome = run_seed(seed)
        return outcome.violation[0] if outcome.violation is not None else ""
    except EndlessError:
        return "endless"
    except Exception as error:
        return type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def reaching(seeds: range) -> dict[str, list[int]]:
    """Return the names of the mutants, and the seeds in which each decides otherwise than milepost."""
    by_name: dict[str, list[int]] = {one.name: [] for module in MODULES for one in turned_comparisons(module)}
    for seed in seeds:
        met, reached = set[str](), set[str]()
        with noting(met, reached):
            run_seed(seed)
        for name in met | reached:
            by_name.setdefault(name, [])
        for name in reached:
            by_name[name].append(seed)
    return dict(sorted(by_name.items()))


def search(seeds: range, most: int, only: str = "") -> dict[str, tuple[int, str]]:
    """Return the first seed that finds each mutant, and the rule that it breaks. Print what is found.

    Of the seeds in which a mutant decides otherwise, at most `most` are tried.
    """
    found: dict[str, tuple[int, str]] = {}
    began = time.monotonic()
    reached = {name: by for name, by in reaching(seeds).items() if only in name}
    print(f"{sum(map(bool, reached.values()))} of {len(reached)} mutants decide otherwise in some run", flush=True)
    for name, able in reached.items():
        mutant = mutant_named(name)
        for seed in able[:most]:
            if rule := broken_rule(mutant, seed):
                found[name] = (seed, rule)
                break
        seen = "seed {}: {}".format(*found[name]) if name in found else f"not found, reached by {len(able)} seeds"
        print(f"{time.monotonic() - began:6.0f} s {name}: {seen}", flush=True)
    print(f"{len(found)} of {len(reached)} found")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations", description=__doc__)
    parser.add_argument("seeds", type=int, nargs="?", default=500, help="number of seeds to try (default: 500)")
    parser.add_argument("--most", type=int, default=500, help="number of seeds to try with one mutant (default: 500)")
    parser.add_argument("--only", default="", metavar="TEXT", help="try the mutants with this text in their name")
    parser.add_argument("--record", action="store_true", help=f"write {FOUND.name}")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found = search(range(1, options.seeds + 1), options.most, options.only)
    if options.record:
        FOUND.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
