"""The WordPiece tokenizer of MiniLM, and the check of model files against their SHA-256.

The tokenizer measures chunks for every embedder, including those without one of their own."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def read_checked(file: Path | Traversable, sha256: str) -> bytes:
    """Return the content of a file. Raises `ValueError` if its SHA-256 differs."""
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{file} is not the expected file; its SHA-256 is {found}, not {sha256}")
    return content


VOCABULARY: Final = "data/minilm-vocab.txt"
VOCABULARY_SHA256: Final = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


@cache
def load_tokenizer() -> Tokenizer:
    """Return the tokenizer, without truncation or padding; `[CLS]` and `[SEP]` are added on request.

    Unlike in the model's own tokenizer, `[SEP]` and the like inside a text are plain text, because documents are
    untrusted.
    """
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece

    words = read_checked(files("milepost.documents").joinpath(VOCABULARY), VOCABULARY_SHA256).decode().split("\n")
    vocabulary = {word: number for number, word in enumerate(words) if word}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer


def count_tokens(texts: list[str]) -> list[int]:
    """Return the number of word pieces of each text, without the two special tokens."""
    return [len(encoding.ids) for encoding in load_tokenizer().encode_batch(texts, add_special_tokens=False)]
