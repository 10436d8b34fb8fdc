"""Modules with one comparison turned: each of these mutants should break a rule of an enumeration."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

TURNED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
"""What each comparison is turned into: the same with the other bound, and its opposite."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of a module, and what it is turned into."""

    module: ModuleType
    place: int
    turned: type[ast.cmpop]
    name: str

    def load(self, **constants: Any) -> dict[str, Any]:
        """Return the names of the module with this comparison turned, and with other constants."""
        tree = _tree(self.module)
        list(_comparisons(tree))[self.place].ops[0] = self.turned()
        return _run(self.module, tree, constants)


def load(module: ModuleType, **constants: Any) -> dict[str, Any]:
    """Return the names of a module with other constants."""
    return _run(module, _tree(module), constants)


def comparisons(module: ModuleType) -> Iterator[Comparison]:
    """Yield each way to turn one comparison of a module."""
    for place, node in enumerate(_comparisons(_tree(module))):
        for turned in TURNED[type(node.ops[0])]:
            text = f"{ast.unparse(node)} as {turned.__name__}"
            yield Comparison(module, place, turned, text)


def _tree(module: ModuleType) -> ast.Module:
    assert module.__file__ is not None, "a module of this package has a file"
    with open(module.__file__, encoding="utf-8") as file:
        return ast.parse(file.read())


def _comparisons(tree: ast.Module) -> Iterator[ast.Compare]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Compare) and len(node.ops) == 1)


def _run(module: ModuleType, tree: ast.Module, constants: dict[str, Any]) -> dict[str, Any]:
    name = f"{module.__name__}_turned"
    made = ModuleType(name)
    sys.modules[name] = made  # dataclasses look their module up
    try:
        exec(compile(ast.fix_missing_locations(tree), str(module.__file__), "exec"), made.__dict__)
    finally:
        del sys.modules[name]
    made.__dict__.update(constants)
    return made.__dict__
