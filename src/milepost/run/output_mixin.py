"""`run.output`: stream text to the readers of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import printable
from milepost.run.crash_report import redacted
from milepost.run.output import Output

if TYPE_CHECKING:
    from milepost.run.run import Run


class OutputMixin:
    """Adds `output` to a Run."""

    def output(self, text: str) -> None:
        """Stream text, such as the tokens of a language model, to the readers of the job: ``run.output(token)``.

        It never waits: the text is written once a second, and when the run ends. Readers (``jobs.output(job_id)``,
        ``jobs.follow_output(job_id)``, the API, the command line, the dashboard) get it in order, each character once. The
        job keeps the newest text, 1 MiB unless MILEPOST_OUTPUT_BYTES says otherwise, until it is deleted. A new attempt
        starts over. Raises InvalidInputError for anything but a str, and in a forked process. A cancellation point.
        """
        run = cast("Run", self)
        run._refuse_fork("output")
        run._check_cancel()
        if not isinstance(text, str):
            raise InvalidInputError("text", f"{text!r:.40} is not a str; write run.output(str(value))")
        text = redacted(text, run)
        run._add_output(printable(text, 4 * len(text)))  # the buffer keeps its newest characters

    def _add_output(self, text: str, lost: int = 0) -> None:
        """Add text to the output of the run."""
        run = cast("Run", self)
        if run._output is None:
            with run._output_lock:
                if run._output is None:
                    run._output = Output(run, run._output_bytes)
        if text or lost:
            run._output.add(text, lost)
