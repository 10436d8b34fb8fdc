"""The WordPiece tokenizer of BERT's uncased English models, MiniLM among them.

Owns the vocabulary that is shipped as data. It measures chunks for every embedder:
those without a tokenizer of their own are measured with this one as well.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from milepost.documents.weights import read_checked

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY: Final = "data/minilm-vocab.txt"
VOCABULARY_SHA256: Final = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


@cache
def wordpiece() -> Tokenizer:
    """The tokenizer, without truncation or padding; `[CLS]` and `[SEP]` are added on request.

    Unlike the model's own file it gives no meaning to `[SEP]` and the like inside a
    text: what a stranger's document says is text.
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
    """Count the word pieces of each text, without the two special tokens."""
    return [len(encoding.ids) for encoding in wordpiece().encode_batch(texts, add_special_tokens=False)]
