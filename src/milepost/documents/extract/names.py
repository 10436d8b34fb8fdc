"""Normalise entity names, and relate entities that share a sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Final

from milepost.documents.store.records import Extraction, Mention, Relation

CO_OCCURS: Final = "co_occurs"
MAX_IN_SENTENCE: Final = 12
"""Sentences with more entities are lists, in which co-occurrence means little."""
_MIN_NAME_LENGTH, _MAX_NAME_LENGTH = 2, 60
_ARTICLE: Final = re.compile(r"^(?:the|a|an)\s+", re.I)
_POSSESSIVE: Final = re.compile(r"(?:'s|\u2019s|'|\u2019)$")
_EDGES: Final = " \t\r\n.,;:!?()[]{}<>\"'`\u2018\u2019\u201c\u201d*_#|/\\=+~-\u2013\u2014"
_MARKS: Final = re.compile(r"^(?:#{1,6} +|- +)", re.M)
_LETTER: Final = re.compile(r"[^\W\d_]")
_COMMON: Final = """
    a about after all also an and any are as at be because been before but by can could do does each even
    every few for from had has have he her here his how however i if in into is it its many may more most
    much must my no not now of on once one only or other our over she should since so some such than that
    the their then there these they this those through to under until us use was we were what when where
    which while who why will with would yes yet you your
"""
COMMON_WORDS: Final = frozenset(_COMMON.split())
"""Words that are not names."""


def clean(name: str) -> str | None:
    """Return a name without article, possessive and surrounding punctuation, or None if it is not a name (a number, too
    long).
    """
    if "\n\n" in name:
        return None
    name = " ".join(name.split()).strip(_EDGES)
    name = _ARTICLE.sub("", _POSSESSIVE.sub("", name)).strip(_EDGES)
    if not _MIN_NAME_LENGTH <= len(name) <= _MAX_NAME_LENGTH or not _LETTER.search(name):
        return None
    return name


def fold(name: str) -> str:
    """Return the key that identifies a name."""
    return name.casefold()


def prose(text: str) -> str:
    """Return a chunk's text without heading and list markers."""
    return _MARKS.sub("", text)


def gather(
    chunk_id: str,
    sentences: Iterable[Sequence[tuple[str, str]]],
    triples: Iterable[tuple[str, str, str]] = (),
) -> Extraction:
    """Return an extraction from the (clean name, label) pairs of each sentence and (source, type, target) triples.

    Names are counted. Entities of one sentence co-occur, unless there are more than twelve. Triples are kept between
    mentioned entities.
    """
    mentions: Counter[tuple[str, str, str]] = Counter()
    relations: Counter[tuple[str, str, str]] = Counter()
    for sentence in sentences:
        mentions.update((fold(name), name, label) for name, label in sentence)
        keys = sorted({fold(name) for name, _ in sentence})
        if len(keys) <= MAX_IN_SENTENCE:
            relations.update((one, two, CO_OCCURS) for one, two in combinations(keys, 2))
    known = {key for key, _, _ in mentions}
    for source, type_, target in triples:
        one, two = fold(source), fold(target)
        if one != two and one in known and two in known:
            relations[one, two, type_] += 1
    return Extraction(
        chunk_id,
        tuple(Mention(key, name, label, count) for (key, name, label), count in sorted(mentions.items())),
        tuple(Relation(one, two, type_, count) for (one, two, type_), count in sorted(relations.items())),
    )
