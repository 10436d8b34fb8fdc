"""Extract entities without a model: phrases of capitalised words.

It is the fallback without a spaCy model. It finds names without their type, in languages that capitalise only names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from milepost.documents.extract import Tick
from milepost.documents.extract.names import COMMON_WORDS, clean, gather, prose
from milepost.documents.store.records import ChunkText, Extraction

_WORD = r"[^\W\d_a-z][\w&'\u2019.-]*\w|[^\W\d_a-z]"
_PHRASE: Final = re.compile(rf"(?:{_WORD})(?:[ ](?:(?:of|de|van|von|der|la|for|and)[ ])?(?:{_WORD}|\d+(?:\.\d+)*))*")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])[\"')\u201d]*\s+|\n\s*\n|\n(?=[-|])")
_LABEL: Final = "NAME"


class RulesExtractor:
    """Capitalised phrases, related if they share a sentence."""

    configuration = "rules-1"
    load_seconds: float = 0.0
    chunk_seconds: float = 0.0005

    def __init__(self, *, warnings: tuple[str, ...] = ()) -> None:
        self.warnings = warnings

    def extract(self, chunks: Sequence[ChunkText], *, tick: Tick | None = None) -> Iterator[Extraction]:
        """Yield the result for each chunk, in order."""
        for chunk in chunks:
            if tick is not None:
                tick()
            yield gather(chunk.chunk_id, [_names(sentence) for sentence in _SENTENCE_END.split(prose(chunk.text))])

    def close(self) -> None:
        """Do nothing."""


def _names(sentence: str) -> list[tuple[str, str]]:
    found = []
    start = len(sentence) - len(sentence.lstrip(" \"'(\u201c-|"))
    for match in _PHRASE.finditer(sentence):
        words = match[0].split(" ")
        if match.start() == start and len(words) == 1 and words[0][1:].islower():
            continue  # the first word of a sentence is always capitalised
        while words and words[0].casefold() in COMMON_WORDS:
            words.pop(0)
        name = clean(" ".join(words))
        if name is not None and name.casefold() not in COMMON_WORDS:
            found.append((name, _LABEL))
    return found
