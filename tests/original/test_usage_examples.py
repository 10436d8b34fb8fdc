"""The two usage examples of the original design, as written there, with stand-ins for the modules that they import."""

import os
import sys
import types
from typing import Dict, List

import pytest

from milepost import JobStatus, get_job_manager
from milepost.settings import settings


class DocumentProcessor:
    def load_document(self, file_path: str) -> dict:
        if not os.path.exists(file_path):
            raise FileNotFoundError(file_path)
        return {"id": "doc-1", "text": open(file_path).read()}

    def chunk_document(self, doc_data: dict) -> list:
        return [{"id": str(i), "text": part} for i, part in enumerate(doc_data["text"].split())]


class EmbeddingManager:
    async def process_with_concurrency(self, items, text_extractor):
        return [{**item, "embedding": [float(len(text_extractor(item)))]} for item in items]


class Database:
    def __init__(self) -> None:
        self.documents: list = []
        self.chunks: dict = {}

    def create_document(self, doc_data: dict) -> None:
        self.documents.append(doc_data)

    def create_chunks_batch(self, document_id: str, chunks: list) -> None:
        self.chunks[document_id] = chunks


database = Database()


async def extract_entities_batch(chunks):
    found = [{"name": c["text"].title(), "chunk_ids": [c["id"]]} for c in chunks]
    return found, [{"source": found[0]["name"], "target": found[-1]["name"]}]


async def add_entity_embeddings(entities):
    return [{**entity, "embedding": [1.0]} for entity in entities]


persisted: list = []


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    """Provide the names that the examples import from their application, and a manager in memory."""
    for name, members in {
        "core": {},
        "core.embeddings": {"EmbeddingManager": EmbeddingManager},
        "core.graph_db": {"get_db": lambda: database},
        "core.entity_extraction": {
            "extract_entities_batch": extract_entities_batch,
            "add_entity_embeddings": add_entity_embeddings,
            "persist_entities_batch": lambda entities, chunk_id: persisted.append((chunk_id, entities)),
            "persist_relationships_batch": lambda relations: persisted.append(("relations", relations)),
        },
    }.items():
        module = types.ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("MILEPOST_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    settings.reload()
    yield
    settings.reload()


async def ingest_document_with_job(file_path: str) -> str:
    """Ingest document with job tracking."""
    manager = get_job_manager()
    
    # Create job
    job = manager.create_job(
        job_type="ingestion",
        metadata={
            "file_path": file_path,
            "filename": os.path.basename(file_path)
        }
    )
    
    job_id = job.job_id
    
    try:
        # Update to running
        manager.update_job(
            job_id=job_id,
            status=JobStatus.RUNNING,
            message="Starting document ingestion"
        )
        
        # Load document
        manager.update_job(job_id, progress=0.1, message="Loading document")
        doc_processor = DocumentProcessor()
        doc_data = doc_processor.load_document(file_path)
        
        # Chunk document
        manager.update_job(job_id, progress=0.3, message="Chunking document")
        chunks = doc_processor.chunk_document(doc_data)
        
        # Generate embeddings
        manager.update_job(job_id, progress=0.5, message="Generating embeddings")
        from core.embeddings import EmbeddingManager
        emb_manager = EmbeddingManager()
        chunks = await emb_manager.process_with_concurrency(
            items=chunks,
            text_extractor=lambda c: c["text"]
        )
        
        # Persist to database
        manager.update_job(job_id, progress=0.8, message="Persisting to database")
        from core.graph_db import get_db
        db = get_db()
        db.create_document(doc_data)
        db.create_chunks_batch(doc_data["id"], chunks)
        
        # Complete
        manager.update_job(
            job_id=job_id,
            status=JobStatus.COMPLETED,
            progress=1.0,
            message="Document ingestion complete",
            result={
                "document_id": doc_data["id"],
                "chunk_count": len(chunks)
            }
        )
        
        return job_id
    
    except Exception as e:
        # Mark failed
        manager.update_job(
            job_id=job_id,
            status=JobStatus.FAILED,
            error=str(e),
            message=f"Ingestion failed: {str(e)}"
        )
        
        raise


async def extract_entities_with_job(document_id: str, chunks: List[Dict]) -> str:
    """Extract entities with job tracking."""
    manager = get_job_manager()
    
    job = manager.create_job(
        job_type="extraction",
        metadata={"document_id": document_id}
    )
    
    job_id = job.job_id
    
    try:
        manager.update_job(
            job_id=job_id,
            status=JobStatus.RUNNING,
            message="Extracting entities"
        )
        
        # Extract
        from core.entity_extraction import extract_entities_batch
        entities, relationships = await extract_entities_batch(chunks)
        
        manager.update_job(job_id, progress=0.6, message="Adding embeddings")
        
        # Add embeddings
        from core.entity_extraction import add_entity_embeddings
        entities = await add_entity_embeddings(entities)
        
        manager.update_job(job_id, progress=0.9, message="Persisting entities")
        
        # Persist
        from core.entity_extraction import persist_entities_batch, persist_relationships_batch
        for chunk in chunks:
            chunk_entities = [e for e in entities if chunk["id"] in e["chunk_ids"]]
            persist_entities_batch(chunk_entities, chunk["id"])
        
        persist_relationships_batch(relationships)
        
        manager.update_job(
            job_id=job_id,
            status=JobStatus.COMPLETED,
            progress=1.0,
            message="Entity extraction complete",
            result={
                "entity_count": len(entities),
                "relationship_count": len(relationships)
            }
        )
        
        return job_id
    
    except Exception as e:
        manager.update_job(
            job_id=job_id,
            status=JobStatus.FAILED,
            error=str(e)
        )
        raise


async def test_the_ingestion_example(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("one two three")
    job = get_job_manager().get_job(await ingest_document_with_job(str(path)))
    assert (job.status, job.progress, job.message) == ("completed", 1.0, "Document ingestion complete")
    assert job.result == {"document_id": "doc-1", "chunk_count": 3}
    assert job.metadata == {"file_path": str(path), "filename": "report.txt"}
    assert job.created_at <= job.started_at <= job.completed_at
    assert len(database.chunks["doc-1"]) == 3


async def test_the_ingestion_example_fails(tmp_path):
    with pytest.raises(FileNotFoundError):
        await ingest_document_with_job(str(tmp_path / "missing.txt"))
    job = get_job_manager().list_jobs(job_type="ingestion", status=JobStatus.FAILED)[0]
    assert job.error == str(tmp_path / "missing.txt")
    assert job.message == f"Ingestion failed: {job.error}"
    assert job.progress == 0.1


async def test_the_extraction_example():
    chunks = [{"id": "c1", "text": "ada lovelace"}, {"id": "c2", "text": "charles babbage"}]
    job = get_job_manager().get_job(await extract_entities_with_job("doc-1", chunks))
    assert job.status is JobStatus.COMPLETED
    assert job.result == {"entity_count": 2, "relationship_count": 1}
    assert [key for key, _ in persisted[-3:]] == ["c1", "c2", "relations"]
