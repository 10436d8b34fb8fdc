"""Selection of jobs by command-line arguments: ids, unique id prefixes, ``@last``, filters, and ids on stdin."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from milepost.cli import formatting
from milepost.core.errors import FilterError, JobNotFoundError, MilepostError
from milepost.core.job import Job, JobStatus
from milepost.core.serialization import CHILD_ID

if TYPE_CHECKING:
    from milepost.cli.context import CommandContext
    from milepost.stores.query import Page


MAX_LISTED_IDS = 5
DAY = timedelta(days=1)
MAX_TIMESTAMP = 250_000_000_000.0
"""The largest Unix timestamp that a date can represent."""
PAGE_SIZE = 1000
HEADING = "ID "
"""The beginning of the heading of a list in a pipe."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_PREFIX_LENGTHS = (8, 13, 18, 23, 36)
_CHILD_LENGTHS = (-18, -14)
"""These leave 4 or 8 of the 22 characters of the digest with which the id of a child ends."""


def short_ids(jobs: Sequence[Job]) -> dict[str, str]:
    """Return the shortest unique prefixes of generated ids, by id; custom ids stay whole."""
    ids = {job.job_id: job.job_id for job in jobs}
    for generated, lengths in ((_UUID, _PREFIX_LENGTHS), (CHILD_ID, _CHILD_LENGTHS)):
        made = [job_id for job_id in ids if generated.match(job_id)]
        cut = next((cut for cut in lengths if len({job_id[:cut] for job_id in made}) == len(made)), None)
        ids.update((job_id, job_id[:cut]) for job_id in made)
    return ids


def shortest_id(context: CommandContext, job: Job) -> str:
    """Return the shortest prefix that identifies the job in the store, also beside later jobs; the whole id in a pipe."""
    if not context.console.is_terminal or not _UUID.match(job.job_id):
        return job.job_id
    # All ids that are made within the same 66 s share their first 8 characters, so 8 are not enough before that time is over.
    is_new = context.now() // 1000 < (int(job.job_id[:8], 16) + 1) << 16
    for cut in _PREFIX_LENGTHS[is_new:-1]:
        if len(find_jobs(context, f"id:{job.job_id[:cut]}{_created_term(job.job_id)}", 2).jobs) == 1:
            return job.job_id[:cut]
    return job.job_id


def find_jobs(context: CommandContext, text: str, limit: int, cursor: str | None = None) -> Page:
    """Return one page of the jobs that match a filter, see also `with_member_progress`."""
    if context.is_server:
        return context.client.find(text, limit, cursor)
    from milepost.query.filters import parse_filter

    page = context.manager.find(parse_filter(text, now=context.now()).query, limit, cursor)
    return replace(page, jobs=context.with_member_progress(page.jobs))


def pages(context: CommandContext, text: str, limit: int | None = None) -> Iterator[Page]:
    """Yield the jobs that a filter selects, newest first, page by page: at least one page, at most `limit` jobs."""
    cursor: str | None = None
    while True:
        page = find_jobs(context, text, PAGE_SIZE if limit is None else min(PAGE_SIZE, limit), cursor)
        yield page
        cursor = page.next_cursor
        if limit is not None:
            limit -= len(page.jobs)
        if cursor is None or limit == 0:
            return


def all_jobs(context: CommandContext, text: str) -> Iterator[Job]:
    """Return every job that a filter selects, newest first."""
    return (job for page in pages(context, text) for job in page.jobs)


def _created_term(prefix: str) -> str:
    """Return a `created:` term for generated ids with this prefix, or an empty string for other ids.

    Such ids begin with a timestamp, so that the index can be used instead of a scan. One day on each side allows for
    wrong clocks.
    """
    if not re.match(r"[0-9a-f]{8}(-|\Z)", prefix):
        return ""
    seconds = (int(prefix[:8], 16) << 16) / 1000
    if seconds > MAX_TIMESTAMP:
        return ""
    begin = datetime.fromtimestamp(seconds, UTC)
    return f" created:{(begin - DAY).isoformat()}..{(begin + 2 * DAY).isoformat()}"


def no_jobs_text(context: CommandContext, no: str = "no") -> str:
    """Return that the store has no jobs, and what to do; with `no` "No" as a sentence."""
    text = f"{no} jobs in {context.display_url} yet; start one with milepost run ingestion PATH..."
    if context.is_default_store:
        text += (
            ", or name the store of your program with --url or MILEPOST_URL "
            "(a program that names none keeps its jobs in memory)"
        )
    return text


def resolve_job(context: CommandContext, word: str) -> Job:
    """Return the job with this id or unique prefix, or the newest job for ``@last``. Raises JobNotFoundError, UsageError."""
    if word == "@last":
        newest = find_jobs(context, "", 1).jobs
        if not newest:
            raise click.ClickException(no_jobs_text(context))
        return newest[0]
    if word.startswith("@"):
        raise click.UsageError(f"no job matches {word!r} (@last is the newest job)")
    job = context.manager.get_job(word)
    if job is not None:
        return job
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", word):
        raise JobNotFoundError(word)
    text = f'id:"{word}"'
    found = find_jobs(context, text + _created_term(word), MAX_LISTED_IDS + 1).jobs if _created_term(word) else []
    found = found or find_jobs(context, text, MAX_LISTED_IDS + 1).jobs
    if not found:
        raise JobNotFoundError(word)
    if len(found) > 1:
        listed = ", ".join(job.job_id for job in found[:MAX_LISTED_IDS]) + (
            ", ..." if len(found) > MAX_LISTED_IDS else ""
        )
        raise click.UsageError(f"id prefix {word!r} is ambiguous; add characters: {listed}")
    return found[0]


def filter_text(terms: Sequence[str]) -> str:
    """Return the arguments as one filter; an argument with blanks, e.g. ``"out of memory"``, stays one term."""
    return " ".join(_quoted(term) for term in terms)


def _quoted(term: str) -> str:
    if not re.search(r"\s", term) or '"' in term:
        return term
    key = _key(term)
    value = term[len(key) :]
    # `status:failed created:1d` in one word is two terms; `error:out of memory` is one
    has_two = key and any(map(_key, value.split()))
    return term if has_two else f'{key}"{value}"'


def is_filter(word: str) -> bool:
    """Return whether an argument is a filter term rather than an id."""
    return bool(_key(word))


def _key(word: str) -> str:
    """Return the key that a word begins with, as `not.label.owner:`; an empty string if it has none."""
    from milepost.query.filters import TERM_START

    found = TERM_START.match(word)
    return found[0] if found else ""


def select_jobs(context: CommandContext, words: Sequence[str]) -> tuple[list[Job], bool]:
    """Return the selected jobs without duplicates, and whether a filter was used. ``-`` reads ids from stdin.

    All filter terms form one filter. Raises UsageError without arguments, JobNotFoundError.
    """
    terms = [word for word in words if is_filter(word)]
    ids = [word for word in words if not is_filter(word)]
    if "-" in ids:
        read = [line.split()[0] for line in sys.stdin if line.strip() and not line.startswith(HEADING)]
        if not read:
            sys.stderr.write("milepost: no job ids on stdin\n")
        ids = [word for word in ids if word != "-"] + read
    if not words:
        raise click.UsageError(
            "no jobs given: pass job ids, @last, a filter (status:failed), or - to read ids from stdin"
        )
    jobs = {job.job_id: job for job in (_resolve_id(context, word) for word in ids)}
    if terms:
        jobs.update((job.job_id, job) for job in all_jobs(context, filter_text(terms)))
    return list(jobs.values()), bool(terms)


def _resolve_id(context: CommandContext, word: str) -> Job:
    """Return the job of an argument. Raises UsageError for a misspelt filter such as ``stauts:failed``, JobNotFoundError."""
    try:
        return resolve_job(context, word)
    except JobNotFoundError:
        if ":" in word:
            from milepost.query.filters import parse_filter

            try:
                parse_filter(word, now=0)
            except FilterError as typo:
                raise click.UsageError(f"no job with id {word!r}, and not a valid filter: {typo.problem}") from None
        raise


class JobId(click.ParamType[str]):
    """An argument that names a job, completed with the newest ids of the store."""

    name = "job"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return ids with this prefix, with type and status; none while the store is unavailable."""
        from milepost.cli.context import CommandContext

        context = ctx.find_root().ensure_object(CommandContext)
        items = [CompletionItem("@last", help="the newest job")] if "@last".startswith(incomplete) else []
        try:
            jobs = find_jobs(context, f'id:"{incomplete}"' if incomplete else "", 50).jobs
        except MilepostError:
            return items
        return items + [CompletionItem(job.job_id, help=f"{job.job_type} {job.status}") for job in jobs]


F = TypeVar("F", bound=Callable[..., Any])


def jobs_argument(function: F) -> F:
    """Add the argument of a command that takes jobs."""
    return click.argument("words", metavar="ID|@last|FILTER|-...", type=JobId(), nargs=-1)(function)


def may_be_retried(job: Job) -> bool:
    """Return whether `milepost retry` returns a job to pending, unless `retry_check` says why not."""
    return job.status in (JobStatus.FAILED, JobStatus.CANCELLED) and job.run_by in ("worker", "external")


def count_by_status(jobs: Sequence[Job]) -> str:
    """Return the number of jobs by status: ``3 jobs (2 failed, 1 running)``."""
    statuses = Counter(job.status.value for job in jobs)
    parts = ", ".join(f"{formatting.number(statuses[name])} {name}" for name in JobStatus if statuses[name])
    return f"{formatting.plural(len(jobs), 'job')} ({parts})" if jobs else "no jobs"


def confirm_change(context: CommandContext, verb: str, jobs: Sequence[Job], kinds: str, *, yes: bool) -> bool:
    """Return whether to proceed. Asks on a terminal; raises UsageError without a terminal and ``--yes``."""
    if not jobs:
        sys.stderr.write(f"milepost: nothing to {verb}: no {kinds} jobs match\n".replace("no  jobs", "no jobs"))
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {verb} {count_by_status(jobs)}; confirm with --yes")
    sys.stderr.write(f"This will {verb} {count_by_status(jobs)}.\n")
    return click.confirm("Continue?", default=False, err=True)
