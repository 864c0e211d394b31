"""The bodies of /v1/vector_stores and of searches: OpenAI's, with `description` and `hybrid_search`. Those of a store's
files are in files_schema."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from frontend.api.attribute_filters import Filter
from frontend.api.parameters import Metadata

NO_NUL = r"^[^\x00]*$"
FileId = Annotated[str, Meta(min_length=1, max_length=128)]
Name = Annotated[str, Meta(max_length=256, pattern=NO_NUL)]
Description = Annotated[str, Meta(max_length=2048, pattern=NO_NUL)]
Attributes = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)] | float | bool],
    Meta(max_length=16),
]
Weight = Annotated[float, Meta(ge=0, le=1000)]
QueryText = Annotated[str, Meta(min_length=1, max_length=8192)]


class StoreExpiry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So long after it was last searched or changed."""

    anchor: Literal["last_active_at"]
    days: Annotated[int, Meta(ge=1, le=365)]


class StaticSizes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_chunk_size_tokens: Annotated[int, Meta(ge=100, le=4096)]
    chunk_overlap_tokens: Annotated[int, Meta(ge=0, le=2048)]
    """At most half of `max_chunk_size_tokens`."""


class StaticChunking(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="static"
):
    static: StaticSizes


class AutoChunking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="auto"):
    """800 tokens, of which 400 overlap."""


ChunkingStrategy = AutoChunking | StaticChunking


class CreateVectorStore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name | None = None
    description: Description | None = None
    file_ids: Annotated[list[FileId], Meta(max_length=500)] | None = None
    chunking_strategy: ChunkingStrategy | None = None
    """Of these files."""
    expires_after: StoreExpiry | None = None
    metadata: Metadata | None = None


class UpdateVectorStore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is not sent stays as it is."""

    name: Name | UnsetType | None = UNSET
    """null: the empty one."""
    description: Description | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    """Replaces all that there is; null: none."""
    expires_after: StoreExpiry | UnsetType | None = UNSET
    """null: never."""


class FileCountsBody(msgspec.Struct, frozen=True, kw_only=True):
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class VectorStoreBody(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    description: str | None
    usage_bytes: int
    """Of the texts and vectors of its completed files."""
    file_counts: FileCountsBody
    status: Literal["expired", "in_progress", "completed"]
    """in_progress as long as one of its files is."""
    expires_after: StoreExpiry | UnsetType = UNSET
    expires_at: int | None
    last_active_at: int
    metadata: dict[str, str]


class VectorStoreList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[VectorStoreBody]
    first_id: str
    last_id: str
    has_more: bool


class VectorStoreDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["vector_store.deleted"] = "vector_store.deleted"
    deleted: Literal[True] = True


class SearchWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ours here, OpenAI's in the tool file_search: what the two rankings count in their fusion."""

    embedding_weight: Weight = 1.0
    text_weight: Weight = 1.0


class SearchRanking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ranker: Literal["none", "auto", "default-2024-11-15"] | None = None
    """There is one here."""
    score_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    hybrid_search: SearchWeights | None = None


class SearchVectorStore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    query: QueryText | Annotated[list[QueryText], Meta(min_length=1, max_length=16)]
    max_num_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    """10, unless it is said."""
    filters: Filter | None = None
    ranking_options: SearchRanking | None = None
    rewrite_query: bool | None = None
    """Accepted, and ignored: queries are searched as they are."""


class SearchResultContent(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["text"] = "text"
    text: str


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    file_id: str
    filename: str
    score: float
    """0 to 1: how alike query and passage are. Results are ordered by their rank, words counted too, and not by it."""
    attributes: dict[str, str | float | bool]
    content: list[SearchResultContent]


class SearchResultsPage(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[SearchResult]
    has_more: Literal[False] = False
    next_page: None = None
