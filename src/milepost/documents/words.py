"""The words of texts and queries, as both document stores index and weigh them.

Both stores get the same words: those of SQLite's and PostgreSQL's own parsers differ, and neither splits Chinese or
Japanese.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from typing import Final, TypeAlias

Term: TypeAlias = tuple[str, ...]
"""Words that stand side by side; mostly one."""
MAX_TERMS: Final = 64
MAX_PHRASES: Final = 8
"""Terms of several words in a query. The words of the others count alone."""
_NAME_WORDS: Final = 3
_NAME_CHARACTERS: Final = 6
_MAX_WORD: Final = 100
_WORD: Final = re.compile(r"[^\W_]+")
_UNSPACED: Final = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


def words_of(text: str) -> list[str]:
    """Return the words of a text in order: letters and digits, without case and accents.

    Scripts without spaces between words give each pair of neighbouring characters.
    """
    if text.isascii():
        return [word[:_MAX_WORD] for word in _WORD.findall(text.casefold())]
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return [part for word in _WORD.findall(plain) for part in _parts(word)]


def query_terms(query: str) -> list[Term]:
    """Return the terms of a query, at most 64, each once.

    What is written without a space but holds several words, such as `dpkg-divert` or `10.0.0.1`, is also a term as a
    whole, for the first 8 of them.
    """
    found: dict[Term, None] = {}
    phrases: set[Term] = set()
    for written in query.split():
        words = words_of(written)
        found.update(dict.fromkeys((word,) for word in words))
        if len(words) > 1 and len(phrases) < MAX_PHRASES:
            phrases.add(tuple(words))
            found[tuple(words)] = None
    return list(found)[:MAX_TERMS]


def is_name(query: str) -> bool:
    """Return whether a query is a name, command or code rather than a question: up to three written words.

    Without spaces between words it is up to six characters.
    """
    return len(query.split()) <= _NAME_WORDS and not any(
        len(part) > _NAME_CHARACTERS for part in _UNSPACED.findall(query)
    )


def _parts(word: str) -> Iterator[str]:
    """Yield a word, or the pairs of characters of its parts in scripts without spaces."""
    end = 0
    for part in _UNSPACED.finditer(word):
        if part.start() > end:
            yield word[end : part.start()][:_MAX_WORD]
        characters = part[0]
        if len(characters) == 1:
            yield characters
        yield from (characters[at : at + 2] for at in range(len(characters) - 1))
        end = part.end()
    if end < len(word):
        yield word[end:][:_MAX_WORD]


K1: Final = 1.2
"""How slowly a term counts more as it occurs more often. FTS5 has these two values built in."""
B: Final = 0.75
"""How much the length of a chunk matters."""
_MIN_WEIGHT: Final = 1e-6


def term_weight(holding: int, total: int) -> float:
    """Return the weight of a term that `holding` of `total` chunks have. What half of them have weighs nothing."""
    return max(_MIN_WEIGHT, math.log((total - holding + 0.5) / (holding + 0.5)))
