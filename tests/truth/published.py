"""The loops that milepost publishes: blocks of the README and of the documentation, and the examples, from their files."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.worker.handlers import Handler
from tests.docs.page_runner import ROOT, blocks

NOT_RUN = {
    "docs/how-to/ask.md#0": "it waits for the answer of a person",
    "docs/how-to/cancel.md#0": "it takes a quarter of an hour, to be cancelled",
    "docs/how-to/django.md#2": "it is a module of a Django project, whose worker runs it",
    "docs/how-to/mcp.md#1": "it is a server, which runs a tool when a client calls it",
    "docs/how-to/testing.md#1": "it is a file of tests, which pytest runs",
    "examples/background_tasks.py": "its loop runs in a server, and ends with it: no other process continues a request",
    "examples/dask_embed.py": "it starts a cluster, whose processes outlive the kill of the program",
    "examples/llm_review.py": "it waits for the answer of a person",
    "examples/llm_tenants.py": "it calls a provider, and waits for the answer of a person",
    "examples/ray_embed.py": "it starts a cluster, whose processes outlive the kill of the program",
}
"""Why a block with a loop or an example is not interrupted."""
ARGUMENTS = {"examples/plain_script.py": ["0.002"]}
"""What a program is given on its command line, so that it takes a tenth of a second."""
CALLS = {"each", "map", "state", "step", "checkpoint", "acheckpoint"}
ATTRIBUTES = {"last_checkpoint"}
TEXT = " ".join(f"{'abcde'[number % 5]}{number}" for number in range(14))


@dataclass(frozen=True)
class Published:
    """A block or an example with a loop. `code` is a program, or the module of the handlers named."""

    place: str
    code: str
    handlers: tuple[str, ...] = ()


def loops_of(code: str) -> bool:
    """Return whether code loops over tracked items, or keeps state, a step or a checkpoint."""
    return any(
        (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS)
        or (isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES)
        for node in ast.walk(ast.parse(code))
    )


@functools.cache
def published() -> dict[str, Published]:
    """Return all blocks and examples with a loop, by place: ``docs/how-to/resume.md#0`` is the first block of the page."""
    found = [one for page in pages() for one in of_page(page, (ROOT / page).read_text())]
    examples = {f"examples/{path.name}": path.read_text() for path in sorted((ROOT / "examples").glob("*.py"))}
    found += [_published(place, code, "") for place, code in examples.items() if loops_of(code)]
    return {one.place: one for one in found}


def pages() -> list[str]:
    """Return the README and the pages of the documentation."""
    return ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]


def of_page(page: str, text: str) -> Iterator[Published]:
    """Yield the blocks of a page with a loop.

    A program is what its reader has by then: the blocks before it without a name of their own, as far as the last
    console block. The blocks of the README stand alone.
    """
    before = ""
    for number, (language, code, title) in enumerate(blocks(text)):
        if language == "console":
            before = ""
        if language != "python":
            continue
        own = title is not None or page == "README.md"
        one = _published(f"{page}#{number}", code, "" if own else before)
        if loops_of(code):
            yield one
        if not own and not one.handlers:
            before = one.code


def _published(place: str, code: str, before: str) -> Published:
    """Return a module that ends with its last handler, or a program if it has none."""
    lines = code.splitlines()
    handlers = [node for node in ast.parse(code).body if _is_handler(node)]
    if not handlers:
        return Published(place, before + code)
    looping = [node.name for node in handlers if loops_of(ast.unparse(node))]
    return Published(place, "\n".join(lines[: handlers[-1].end_lineno]) + "\n", tuple(looping))


def _is_handler(node: ast.stmt) -> typing.TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    decorators = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return any(isinstance(each, ast.Attribute) and each.attr == "job" for each in decorators)


def published_handlers() -> list[str]:
    """Return the published handlers with a loop, by place and name: ``README.md#3:reindex``."""
    return [f"{one.place}:{name}" for one in published().values() if one.place not in NOT_RUN for name in one.handlers]


def published_programs() -> list[str]:
    """Return the places of the published programs."""
    return [one.place for one in published().values() if one.place not in NOT_RUN and not one.handlers]


def load_handler(name: str) -> Handler[Any, Any]:
    """Return a published handler; its module is run up to there."""
    place, _, function = name.rpartition(":")
    module = types.ModuleType("published")
    sys.modules[module.__name__] = module
    exec(compile(published()[place].code, place, "exec"), module.__dict__)
    handler = getattr(module, function)
    assert isinstance(handler, Handler)
    return handler


def parameters_for(handler: Handler[Any, Any], folder: Path) -> dict[str, Any]:
    """Return parameters for the handler: a text, a number, texts, and a file in the folder for what is called a path."""
    kinds = typing.get_type_hints(handler.function)
    given: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(handler.function).parameters.items())[1:]:
        if parameter.default is not inspect.Parameter.empty:
            continue
        if name == "path":
            (folder / "input.txt").write_text(TEXT.replace(" ", "\n"))
            given[name] = str(folder / "input.txt")
        else:
            given[name] = {str: TEXT, int: 14, list[str]: TEXT.split()}[kinds[name]]
    return given
