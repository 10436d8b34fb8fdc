"""--json on a terminal writes nothing that a terminal obeys; a pipe gets the text as it is."""

from __future__ import annotations

import json

import pytest

from milepost.cli.rendering.live import echo_json

VALUE = {"message": "\x1b]0;title\x07 \x9b31m \x9d \u202e \u2028 ünïcode"}


@pytest.mark.parametrize("terminal", [True, False])
def test_json_is_escaped_on_terminals_only(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message with C1 controls or a bidirectional override was written raw to the terminal of a user who listed jobs."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    echo_json(VALUE)
    said = capsys.readouterr().out
    assert json.loads(said) == VALUE
    assert said.isascii() is terminal
    assert ("\x9b" in said) is not terminal
