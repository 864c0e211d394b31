"""Between the wire's vector stores and searches, and the domain's."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from frontend.api.attribute_filters import to_filter
from frontend.api.vector_stores import schema
from frontend.domain.conversations import ExpiresAfter
from frontend.domain.documents import Chunking, FileCounts, VectorStore
from frontend.domain.errors import InvalidRequest
from frontend.services.search import Passage, SearchTask
from frontend.services.vector_stores import NewStore, StoreChange

DAY_S = 86_400
DEFAULT_RESULTS = 10


def to_new(data: schema.CreateVectorStore) -> NewStore:
    """Raises InvalidRequest."""
    return NewStore(
        name=data.name or "",
        description=data.description,
        metadata=data.metadata or {},
        expires_after=to_expiry(data.expires_after),
        file_ids=data.file_ids or [],
        chunking=to_chunking(data.chunking_strategy),
    )


def to_change(data: schema.UpdateVectorStore) -> StoreChange:
    return StoreChange(
        name=UNSET if data.name is UNSET else data.name or "",
        description=data.description,
        metadata=UNSET if data.metadata is UNSET else data.metadata or {},
        expires_after=UNSET if data.expires_after is UNSET else to_expiry(data.expires_after),
    )


def to_expiry(data: schema.StoreExpiry | None) -> ExpiresAfter | None:
    return None if data is None else ExpiresAfter(anchor=data.anchor, seconds=data.days * DAY_S)


def to_chunking(data: schema.ChunkingStrategy | None, where: str = "chunking_strategy") -> Chunking:
    """`where`: its path. Raises InvalidRequest."""
    if not isinstance(data, schema.StaticChunking):
        return Chunking()
    most, overlap = data.static.max_chunk_size_tokens, data.static.chunk_overlap_tokens
    if overlap > most / 2:
        raise InvalidRequest(
            f"The overlap must not exceed half of 'max_chunk_size_tokens': {most // 2} here.",
            param=f"{where}.static.chunk_overlap_tokens",
        )
    return Chunking(max_chunk_tokens=most, chunk_overlap_tokens=overlap)


def to_task(store_id: str, data: schema.SearchVectorStore) -> SearchTask:
    """Raises InvalidRequest."""
    ranking = data.ranking_options or schema.SearchRanking()
    weights = ranking.hybrid_search or schema.SearchWeights()
    if not weights.embedding_weight and not weights.text_weight:
        raise InvalidRequest("One of the two weights must be above 0.", param="ranking_options.hybrid_search")
    return SearchTask(
        store_ids=[store_id],
        queries=queries(data),
        k=data.max_num_results or DEFAULT_RESULTS,
        filters=to_filter(data.filters),
        score_threshold=ranking.score_threshold or 0.0,
        vector_weight=weights.embedding_weight,
        text_weight=weights.text_weight,
    )


def queries(data: schema.SearchVectorStore) -> list[str]:
    return [data.query] if isinstance(data.query, str) else data.query


def body(store: VectorStore, *, expired: bool) -> schema.VectorStoreBody:
    expires = store.expires_after
    return schema.VectorStoreBody(
        id=store.id,
        created_at=store.created_at,
        name=store.name,
        description=store.description,
        usage_bytes=store.usage_bytes,
        file_counts=counts(store.counts),
        status="expired" if expired else "in_progress" if store.counts.in_progress else "completed",
        expires_after=UNSET
        if expires is None
        else schema.StoreExpiry(anchor="last_active_at", days=expires.seconds // DAY_S),
        expires_at=store.expires_at,
        last_active_at=store.last_active_at,
        metadata=dict(store.metadata),
    )


def counts(counted: FileCounts) -> schema.FileCountsBody:
    return schema.FileCountsBody(
        in_progress=counted.in_progress,
        completed=counted.completed,
        failed=counted.failed,
        cancelled=counted.cancelled,
        total=counted.total,
    )


def stores(data: Sequence[schema.VectorStoreBody], has_more: bool) -> schema.VectorStoreList:
    return schema.VectorStoreList(
        data=list(data), first_id=data[0].id if data else "", last_id=data[-1].id if data else "", has_more=has_more
    )


def results(data: schema.SearchVectorStore, passages: Sequence[Passage]) -> schema.SearchResultsPage:
    return schema.SearchResultsPage(
        search_query=queries(data),
        data=[
            schema.SearchResult(
                file_id=each.file_id or "",
                filename=each.filename,
                score=each.score,
                attributes=dict(each.attributes),
                content=[schema.SearchResultContent(text=each.text)],
            )
            for each in passages
        ],
    )
