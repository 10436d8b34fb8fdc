"""Which jobs the words of a command mean: ids, unique prefixes of ids, ``@last``, filters, and ids on stdin.

Owns how short an id may be shown and given. Searches with the manager's lists; knows no store.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from milepost.core.errors import FilterError, JobNotFound, MilepostError
from milepost.core.job import Job

if TYPE_CHECKING:
    from milepost.cli.session import Session
    from milepost.stores.query import Page

SHOWN = 5
DAY = timedelta(days=1)
FAR = 250_000_000_000.0
"""Seconds since 1970 beyond which a date cannot be written."""
PAGE = 1000
HEADING = "ID "
"""How the heading of a list in a pipe begins."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_CUTS = (8, 13, 18, 23, 36)
_FILTER = re.compile(r"(not\.)?(status|type|id|label\.[\w.-]+|worker|error|created|duration|is|failure):")


def short_ids(jobs: Sequence[Job]) -> dict[str, str]:
    """Each id as short as tells these jobs apart; ids that people chose are shown whole."""
    ids = [job.job_id for job in jobs]
    made = [job_id for job_id in ids if _UUID.match(job_id)]
    cut = next((cut for cut in _CUTS if len({job_id[:cut] for job_id in made}) == len(set(made))), 36)
    return {job_id: job_id[:cut] if _UUID.match(job_id) else job_id for job_id in ids}


def typed_id(session: Session, job: Job) -> str:
    """An id as a person would type it: its shortest prefix that no other job has; whole in a pipe."""
    if not session.console.is_terminal or not _UUID.match(job.job_id):
        return job.job_id
    for cut in _CUTS[:-1]:
        if len(find_jobs(session, f"id:{job.job_id[:cut]}{_about(job.job_id)}", 2).jobs) == 1:
            return job.job_id[:cut]
    return job.job_id


def find_jobs(session: Session, text: str, limit: int, cursor: str | None = None) -> Page:
    """One page of the jobs that a filter selects."""
    if session.is_server:
        return session.client.find(text, limit, cursor)
    from milepost.stores.filters import parse_filter

    return session.manager.find(parse_filter(text, now=session.now()).query, limit, cursor)


def pages(session: Session, text: str, limit: int | None = None) -> Iterator[Page]:
    """The jobs that a filter selects, newest first, page by page; at least one page, and no more jobs than the limit."""
    cursor: str | None = None
    while True:
        page = find_jobs(session, text, PAGE if limit is None else min(PAGE, limit), cursor)
        yield page
        cursor = page.next_cursor
        if limit is not None:
            limit -= len(page.jobs)
        if cursor is None or limit == 0:
            return


def all_jobs(session: Session, text: str) -> Iterator[Job]:
    """Every job that a filter selects, newest first."""
    return (job for page in pages(session, text) for job in page.jobs)


def _about(prefix: str) -> str:
    """When the ids of milepost's own making that begin so were made, as a term for the index; empty for other ids.

    They begin with milliseconds; a day on each side is for clocks that go wrong. Without it every job is looked at.
    """
    if not re.match(r"[0-9a-f]{8}(-|\Z)", prefix):
        return ""
    seconds = (int(prefix[:8], 16) << 16) / 1000
    if seconds > FAR:
        return ""
    begin = datetime.fromtimestamp(seconds, UTC)
    return f" created:{(begin - DAY).isoformat()}..{(begin + 2 * DAY).isoformat()}"


def one_job(session: Session, word: str) -> Job:
    """The job of an id, of a prefix that only one id has, or the newest one for ``@last``. Raises JobNotFound, UsageError."""
    if word == "@last":
        newest = find_jobs(session, "", 1).jobs
        if not newest:
            raise click.ClickException(f"there are no jobs in {session.shown_place} yet; `milepost run` makes one")
        return newest[0]
    if word.startswith("@"):
        raise click.UsageError(f"{word!r} names no job; @last is the newest one")
    job = session.manager.get_job(word)
    if job is not None:
        return job
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", word):
        raise JobNotFound(word)
    text = f'id:"{word}"'
    found = find_jobs(session, text + _about(word), SHOWN + 1).jobs if _about(word) else []
    found = found or find_jobs(session, text, SHOWN + 1).jobs
    if not found:
        raise JobNotFound(word)
    if len(found) > 1:
        listed = ", ".join(job.job_id for job in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
        raise click.UsageError(f"{word!r} is the beginning of several ids, give more of it: {listed}")
    return found[0]


def filter_text(terms: Sequence[str]) -> str:
    """Words as one filter: a word that the shell has kept together, as in ``"out of memory"``, stays one term."""
    return " ".join(_quoted(term) for term in terms)


def _quoted(term: str) -> str:
    if not re.search(r"\s", term) or '"' in term:
        return term
    found = _FILTER.match(term)
    if found is None:
        return f'"{term}"'
    value = term[found.end() :]
    # `status:failed created:1d` in one word is two terms; `error:out of memory` is one
    return term if _FILTER.search(value) else f'{found[0]}"{value}"'


def is_filter(word: str) -> bool:
    """Whether a word is a term of the filter grammar rather than an id."""
    return bool(_FILTER.match(word))


def chosen_jobs(session: Session, words: Sequence[str]) -> tuple[list[Job], bool]:
    """The jobs that words mean, each once, and whether a filter chose them. ``-`` reads ids from stdin.

    All words that are filter terms make one filter. Raises UsageError without a word, JobNotFound.
    """
    terms = [word for word in words if is_filter(word)]
    ids = [word for word in words if not is_filter(word)]
    if "-" in ids:
        read = [line.split()[0] for line in sys.stdin if line.strip() and not line.startswith(HEADING)]
        if not read:
            sys.stderr.write("milepost: no ids on stdin\n")
        ids = [word for word in ids if word != "-"] + read
    if not words:
        raise click.UsageError("which jobs? give ids, @last, a filter such as status:failed, or - for ids on stdin")
    jobs = {job.job_id: job for job in (_job_or_term(session, word) for word in ids)}
    if terms:
        jobs.update((job.job_id, job) for job in all_jobs(session, filter_text(terms)))
    return list(jobs.values()), bool(terms)


def _job_or_term(session: Session, word: str) -> Job:
    """The job of a word. Raises UsageError for what is neither an id nor a filter, as ``stauts:failed``; JobNotFound."""
    try:
        return one_job(session, word)
    except JobNotFound:
        if ":" in word:
            from milepost.stores.filters import parse_filter

            try:
                parse_filter(word, now=0)
            except FilterError as typo:
                raise click.UsageError(f"no job has the id {word!r}, and as a filter: {typo.problem}") from None
        raise


class JobId(click.ParamType[str]):
    """A word that names a job, completed with the newest ids of the store."""

    name = "job"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Ids that begin with what was typed, with their type and status; none when the store cannot be asked."""
        from milepost.cli.session import Session

        session = ctx.find_root().ensure_object(Session)
        items = [CompletionItem("@last", help="the newest job")] if "@last".startswith(incomplete) else []
        try:
            jobs = find_jobs(session, f'id:"{incomplete}"' if incomplete else "", 50).jobs
        except MilepostError:
            return items
        return items + [CompletionItem(job.job_id, help=f"{job.job_type} {job.status}") for job in jobs]


F = TypeVar("F", bound=Callable[..., Any])


def jobs_argument(function: F) -> F:
    """The argument of a command that takes jobs."""
    return click.argument("words", metavar="ID|@last|FILTER|-...", type=JobId(), nargs=-1)(function)
