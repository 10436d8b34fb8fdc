"""Every command of the program is tested on every kind of store."""

from __future__ import annotations

from milepost.cli.root_command import program
from tests.cli import (
    test_commands,
    test_document_commands,
    test_limit_commands,
    test_mcp_command,
    test_output_command,
    test_schedule_commands,
)
from tests.cli.stores_fixture import COVERED, commands


def test_every_command_is_tested_on_every_store() -> None:
    modules = {
        test_commands,
        test_document_commands,
        test_limit_commands,
        test_mcp_command,
        test_output_command,
        test_schedule_commands,
    }
    assert modules, "they fill COVERED"
    assert sorted(COVERED) == sorted(commands(program))
