"""Capture of log records and standard output in the log of a run, and the redaction of captured text."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from milepost import InMemoryJobManager, InvalidInputError, JobManager, Settings
from milepost.run.capture.capture import level_name
from tests.run.conftest import Track, log_lines, names
from tests.run.tqdm_library import embed, log

# --- logging -------------------------------------------------------------------------------------------------------


def test_log_records_keep_level_and_traceback(track: Track, manager: JobManager) -> None:
    quiet = logging.getLogger("quiet.library")
    quiet.propagate = False
    quiet.addHandler(logging.NullHandler())
    with manager.track("test") as run:
        logging.getLogger().info("below the level that is set")
        quiet.error("does not propagate")
        log.log(35, "between")
        logging.getLogger("milepost.heartbeat").error("of milepost itself")
        try:
            raise KeyError("chunk")
        except KeyError:
            log.exception("failed at %s", "a.pdf")
    lines = [line for event in manager.events(run.job_id) if event.kind == "log" for line in event.data["lines"]]
    shown = [(line["level"], line["text"]) for line in lines]
    assert shown[:3] == [("error", "does not propagate"), ("warning", "between"), ("error", "failed at a.pdf")]
    assert shown[3] == ("error", "Traceback (most recent call last):")
    assert shown[-1] == ("error", "KeyError: 'chunk'")
    assert [level_name(n) for n in (0, 10, 20, 30, 40, 50, 99)] == [
        "debug", "debug", "info", "warning", "error", "critical", "critical"
    ]  # fmt: skip


def test_capture_does_not_configure_logging() -> None:
    program = """
import logging
from milepost import InMemoryJobManager
manager = InMemoryJobManager()
with manager.track("test") as run:
    logging.getLogger("x").warning("not yet configured")
    logging.basicConfig(level="INFO", format="%(message)s!", force=False)
    logging.info("shown")
    logging.getLogger("x").error("bad %d", "words")
print(list(run.recent_log))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['not yet configured', 'shown']"
    assert done.stderr.startswith("not yet configured\n")
    assert "shown!\n" in done.stderr
    assert "--- Logging error ---" in done.stderr


# --- standard output -----------------------------------------------------------------------------------------------


def test_stdout_is_captured_if_enabled(track: Track, capsys: pytest.CaptureFixture[str]) -> None:
    stream = sys.stdout
    with track() as run:
        print("unheard")
    assert log_lines(run) == []
    with track(capture="tqdm,logging,stdout") as run:
        print("one", "line")
        print("\rhalf", end="")
        print("\rwhole")
        with track(capture="stdout") as inner:
            print("inside")
            assert sys.stdout.isatty() is False
        sys.stdout.writelines(["last", " words"])
    assert sys.stdout is stream
    assert log_lines(run) == ["one line", "whole", "last words"]
    assert log_lines(inner) == ["inside"]
    assert capsys.readouterr().out == "unheard\none line\n\rhalf\rwhole\ninside\nlast words"


# --- redaction -----------------------------------------------------------------------------------------------------


def test_captured_text_is_redacted() -> None:
    options = Settings(redact="tests.run.tqdm_library:redact", capture="tqdm,logging,stdout")
    manager = InMemoryJobManager(options=options)
    with pytest.raises(ValueError), manager.track("test") as run:  # noqa: PT012
        log.error("the card is 4111-1111")
        log.error("this is unreadable")
        print("printed 4111-1111")
        embed(range(2), desc="Card 4111-1111")
        raise ValueError("bad card 4111-1111")
    assert log_lines(run)[:3] == ["the card is [card]", "*** (the redaction hook raised ValueError)", "printed [card]"]
    assert names(run) == [("Card [card]", None)]
    record = manager.get_job(run.job_id)
    assert record is not None
    assert "4111" not in "".join(record.record.values())
    assert record.error == "bad card [card]"


@pytest.mark.parametrize(
    "hook", ["tests.run.tqdm_library:nothing", "no_such_module:hook", "tests.run.tqdm_library:log"]
)
def test_bad_redaction_hook_is_rejected_before_job_is_created(track: Track, hook: str) -> None:
    with pytest.raises(InvalidInputError, match="redact"), track(redact=hook):
        pass


def test_invalid_capture_settings_are_rejected() -> None:
    with pytest.raises(InvalidInputError, match=r"^capture: 'everything'"):
        Settings(capture="everything")
    with pytest.raises(InvalidInputError, match=r"^redact: "):
        Settings(redact="mask")
    read = Settings.from_environment({"MILEPOST_CAPTURE": "stdout, tqdm", "MILEPOST_REDACT": "a.b:c"})
    assert (read.captures, read.redact) == (frozenset({"stdout", "tqdm"}), "a.b:c")
    assert Settings(capture="none").captures == frozenset()
