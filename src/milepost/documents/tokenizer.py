"""The WordPiece tokenizer of BERT's uncased English models such as MiniLM, with its vocabulary as package data.

It measures chunks for every embedder, including those without a tokenizer of their own.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from milepost.documents.model_files import read_checked

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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
