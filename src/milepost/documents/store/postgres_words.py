"""BM25 in PostgreSQL, so that a query ranks the same chunks first as FTS5 does in SQLite.

`ts_rank` does not know how rare a word is or how long a chunk is, and grows without limit with the occurrences of a phrase.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from milepost.documents.store.database import Entries, Transaction
from milepost.documents.words import K1, B, Term, term_weight

_SAMPLE: Final = 1000
"""Chunks of which the mean length is computed."""
_MAX_COUNTED: Final = 1000
"""Chunks with a phrase up to which its places are counted. In more, which makes it weigh little, it counts once."""
_COUNT: Final = "(SELECT count(*) FROM words WHERE body @@ ?::tsquery)"
_MEAN_LENGTH: Final = f"(SELECT avg(length(body)) FROM (SELECT body FROM words LIMIT {_SAMPLE}) sampled)"
_WORD_FREQUENCY: Final = "round(0.6079271 / (1 - 10 * ts_rank(w.body, ?::tsquery)) - 0.5)"
"""How often a chunk has a word. Its `ts_rank` is 0.1 * 6/pi^2 * (1 + 1/4 + ... + 1/n^2), and the rest of that sum is close
to 1 / (n + 1/2). Counting the places by `unnest` takes ten times as long."""
_PHRASE_FREQUENCY: Final = """CASE WHEN w.body @@ ?::tsquery THEN (SELECT count(*) FROM (
    SELECT 1 FROM unnest(?::text[]) WITH ORDINALITY part(word, at)
    JOIN unnest(w.body) entry ON entry.lexeme = part.word, unnest(entry.positions) place
    GROUP BY place - part.at HAVING count(*) = ?) whole) ELSE 0 END"""
"""How often the words of a phrase stand side by side, which takes about 0.1 ms per chunk."""
_PHRASE_PRESENCE: Final = "(w.body @@ ?::tsquery)::int"


def matching_chunks(transaction: Transaction, among: Entries, terms: Sequence[Term], k: int) -> list[tuple[float, int]]:
    """Return (score, entry number) of the `k` entries that match the terms best; the score is at most 1."""
    if not terms:
        return []
    queries = [" <-> ".join(term) for term in terms]
    found = transaction.one(
        f"SELECT (SELECT count(*) FROM index_entries), {_MEAN_LENGTH}, {', '.join([_COUNT] * len(queries))}", queries
    )
    total, mean_length, *counts = found or (0, None)
    weights = [term_weight(count, total) for count in counts]
    parts, values = [], list[Any]()
    for term, query, weight, count in zip(terms, queries, weights, counts, strict=True):
        is_counted = len(term) > 1 and count <= _MAX_COUNTED
        frequency = _WORD_FREQUENCY if len(term) == 1 else _PHRASE_FREQUENCY if is_counted else _PHRASE_PRESENCE
        parts.append(f"? * (1 - saturation / (saturation + {frequency}))")
        values += [weight, query, *([list(term), len(term)] if is_counted else [])]
    condition, restricted = among.condition("w.rowid")
    rows = transaction.all(
        f"""SELECT ({" + ".join(parts)}) / ? AS score, e.number
        FROM words w JOIN index_entries e ON e.number = w.rowid,
        LATERAL (SELECT {K1} * ({1 - B} + {B} * length(w.body) / ?::float8) AS saturation) of_length
        WHERE w.body @@ ?::tsquery AND e.generation = ? {condition} ORDER BY score DESC, e.number LIMIT ?""",
        (
            *values, sum(weights), float(mean_length or 1), " | ".join(f"({query})" for query in queries),
            among.generation, *restricted, k,
        ),
    )  # fmt: skip
    return [(float(score), number) for score, number in rows]
