"""Every command of the program is tested on every kind of store."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from milepost.cli.root_command import program
from tests.cli.stores_fixture import COVERED, commands


def test_every_command_is_tested_on_every_store() -> None:
    for path in Path(__file__).parent.glob("test_*_command*.py"):
        import_module(f"tests.cli.{path.stem}")  # it fills COVERED
    assert sorted(COVERED) == sorted(commands(program))
