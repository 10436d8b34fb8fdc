"""The full-screen view `milepost top`: a live list of jobs, the selected job, and key bindings. Requires Textual."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from rich.markup import escape
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, Input, Static

from milepost.cli.job_selection import find_jobs
from milepost.cli.rendering.live import ended_line
from milepost.cli.rendering.progress import JobProgress
from milepost.cli.rendering.tables import columns_of, list_summary
from milepost.cli.rendering.terminal import clean
from milepost.core.errors import MilepostError
from milepost.core.job import Job

if TYPE_CHECKING:
    from rich.console import RenderableType

    from milepost.cli.context import CommandContext
    from milepost.stores.query import Page

REFRESH_INTERVAL = 0.5
ROWS = 200
TABS = ("", "status:pending", "status:running", "status:completed", "status:failed", "status:cancelled", "is:stalled")


class Screen(App[None]):
    """The full-screen application."""

    TITLE = "milepost top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: 1; padding: 0 1; }
    #filter { display: none; height: 3; }
    #filter.open { display: block; }
    DataTable { height: 1fr; }
    #detail { height: auto; max-height: 12; padding: 0 1; border-top: solid $panel-lighten-2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "leave", "Back", show=False),
        Binding("c", "cancel", "Cancel"),
        Binding("r", "retry", "Retry"),
        Binding("space", "pause", "Pause"),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
        *(Binding(str(number + 1), f"tab({number})", show=False) for number in range(len(TABS))),
    ]

    def __init__(self, context: CommandContext, text: str) -> None:
        super().__init__()
        self._command_context = context
        self._text = text
        self._jobs: list[Job] = []
        self._lines: dict[str, JobProgress] = {}
        self._paused = False
        self._asking = threading.Lock()

    def compose(self) -> ComposeResult:
        """Create the widgets, from top to bottom."""
        yield Static(id="head")
        yield Input(self._text, placeholder="status:failed created:1d", id="filter")
        table: DataTable[Any] = DataTable(cursor_type="row", zebra_stripes=False)
        yield table
        yield Static(id="detail")
        yield Footer()

    def on_mount(self) -> None:
        """Start polling."""
        self.query_one(DataTable).focus()
        self._poll()
        self.set_interval(REFRESH_INTERVAL, self._poll)

    # --- polling ---

    def _poll(self) -> None:
        if not self._paused:
            self.run_worker(self._start_poll, thread=True, group="look")

    def _start_poll(self) -> None:
        """Read the jobs, in a thread, unless the previous read is still running."""
        if not self._asking.acquire(blocking=False):
            return
        try:
            page = find_jobs(self._command_context, self._text, ROWS)
            jobs = self._command_context.described(page.jobs)
            manager = self._command_context.manager
            counts = {name: manager.count_jobs(status=name) for name in ("running", "pending", "failed")}
            counts["stalled"] = manager.count_jobs(stalled=True)
        except MilepostError as error:
            self.call_from_thread(self._header, Text(_error_line(error)))
        else:
            self.call_from_thread(self._render, replace(page, jobs=jobs), counts)
        finally:
            self._asking.release()

    def _header(self, shown: RenderableType) -> None:
        self.query_one("#head", Static).update(shown)

    def _render(self, page: Page, counts: dict[str, int]) -> None:
        head = list_summary(
            self._command_context.console, len(page.jobs), page.total, page.total_at_least, counts, name="milepost top"
        )
        self._header(head.append(f"   {self._text}" if self._text else ""))
        table: DataTable[Any] = self.query_one(DataTable)
        before = [job.job_id for job in self._jobs]
        chosen = self._selected_job()
        self._jobs = page.jobs
        columns = columns_of(self._command_context.console, page.jobs, self.size.width, utc=self._command_context.utc)
        names = [column.name for column in columns]
        if names != [str(column.label) for column in table.ordered_columns]:
            table.clear(columns=True)
            table.add_columns(*names)
            before = []
        shown = [[Text("", justify=column.justify).append(cell) for cell in column.cells] for column in columns]
        rows = list(zip(*shown, strict=True))
        if before == [job.job_id for job in page.jobs]:
            for at, row in enumerate(rows):
                for place, cell in enumerate(row):
                    table.update_cell_at(Coordinate(at, place), cell, update_width=True)
        else:
            table.clear()
            for job, row in zip(page.jobs, rows, strict=True):
                table.add_row(*row, key=job.job_id)
            at = next((n for n, job in enumerate(page.jobs) if chosen is not None and job.job_id == chosen.job_id), 0)
            table.move_cursor(row=at)
        self._detail()

    def _selected_job(self) -> Job | None:
        at = self.query_one(DataTable).cursor_row
        return self._jobs[at] if 0 <= at < len(self._jobs) else None

    def _detail(self) -> None:
        from rich.console import Group

        job = self._selected_job()
        if job is None:
            self.query_one("#detail", Static).update("No jobs match" if self._text else "No jobs yet")
            return
        lines = self._lines.setdefault(job.job_id, JobProgress())
        lines.sample(job)
        console = self._command_context.console
        head = Text(clean(job.job_type), "bold").append(f"  {job.job_id}", "default")
        body = lines.block(console, job, max(40, self.size.width - 4))
        self.query_one("#detail", Static).update(
            Group(head, body, *([ended_line(console, job)] if job.is_terminal else []))
        )

    def on_data_table_row_highlighted(self) -> None:
        """Show the job under the cursor."""
        self._detail()

    # --- keys ---

    def action_filter(self) -> None:
        """Open the filter."""
        field = self.query_one("#filter", Input)
        field.add_class("open")
        field.focus()

    def action_leave(self) -> None:
        """Close the filter."""
        self.query_one("#filter", Input).remove_class("open")
        self.query_one(DataTable).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Apply the filter."""
        self._text = event.value.strip()
        self.action_leave()
        self._poll()

    def action_tab(self, number: int) -> None:
        """Filter by one status."""
        self._text = TABS[number]
        self.query_one("#filter", Input).value = self._text
        self._poll()

    def action_pause(self) -> None:
        """Pause or resume live updates."""
        self._paused = not self._paused
        self.notify("Paused; press Space to resume" if self._paused else "Live updates resumed")

    def action_down(self) -> None:
        """Move the cursor down."""
        self.query_one(DataTable).action_cursor_down()

    def action_up(self) -> None:
        """Move the cursor up."""
        self.query_one(DataTable).action_cursor_up()

    def action_cancel(self) -> None:
        """Cancel the job under the cursor."""
        self._apply_action("cancel")

    def action_retry(self) -> None:
        """Retry the job under the cursor."""
        self._apply_action("retry")

    def _apply_action(self, verb: str) -> None:
        job = self._selected_job()
        if job is None:
            return

        def change() -> None:
            manager = self._command_context.manager
            try:
                manager.cancel_job(job.job_id) if verb == "cancel" else manager.retry_job(job.job_id)
            except MilepostError as error:
                self.call_from_thread(self.notify, escape(_error_line(error)), severity="error")
            self._start_poll()

        self.run_worker(change, thread=True)


def _error_line(error: Exception) -> str:
    return clean(" ".join(str(error).split()))


def make_screen(context: CommandContext, text: str) -> Screen:
    """Return the application, not yet running."""
    _ = context.manager, context.console  # opened before threads use them
    return Screen(context, text)
