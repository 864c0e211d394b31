"""The tool file_search on the wire: OpenAI's in responses, and ours in chats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from frontend.api.attribute_filters import Filter, to_filter
from frontend.domain.errors import InvalidRequest
from frontend.services.file_search import DEFAULT_RESULTS, FileSearch
from frontend.services.search import MOST_STORES

StoreId = Annotated[str, Meta(min_length=1, max_length=128)]
StoreIds = Annotated[list[StoreId], Meta(min_length=1, max_length=MOST_STORES)]
Weight = Annotated[float, Meta(ge=0, le=1000)]


class HybridSearch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the two rankings count in their fusion."""

    embedding_weight: Weight = 1.0
    text_weight: Weight = 1.0


class RankingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ranker: Literal["none", "auto", "default-2024-11-15"] | None = None
    """There is one here."""
    score_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Passages that are less alike are not given to the model; the service's own, unless it is said."""
    hybrid_search: HybridSearch | None = None


class FileSearchTool(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="file_search"
):
    """Documents are searched before the answer, and the model is given what was found."""

    vector_store_ids: StoreIds
    max_num_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    """10, unless it is said."""
    filters: Filter | None = None
    ranking_options: RankingOptions | None = None


class FileSearchChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="file_search"):
    """Documents are searched, and no function is called."""


class HybridSearchBody(msgspec.Struct, frozen=True, kw_only=True):
    embedding_weight: float
    text_weight: float


class RankingBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    ranker: str
    score_threshold: float | None = None
    hybrid_search: HybridSearchBody | None = None


class FileSearchToolBody(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="file_search"):
    vector_store_ids: list[str]
    max_num_results: int
    filters: Filter | None
    ranking_options: RankingBody


def only_one(tools: Sequence[FileSearchTool]) -> FileSearchTool | None:
    """Raises InvalidRequest for several."""
    if len(tools) > 1:
        raise InvalidRequest("At most one tool 'file_search' is taken.", param="tools")
    return tools[0] if tools else None


def to_search(data: FileSearchTool) -> FileSearch:
    """Raises InvalidRequest."""
    ranking = data.ranking_options or RankingOptions()
    weights = ranking.hybrid_search or HybridSearch()
    if not weights.embedding_weight and not weights.text_weight:
        raise InvalidRequest("One of the two weights must be above 0.", param="tools.ranking_options.hybrid_search")
    return FileSearch(
        store_ids=data.vector_store_ids,
        k=data.max_num_results or DEFAULT_RESULTS,
        filters=to_filter(data.filters, "tools.filters"),
        score_threshold=ranking.score_threshold,
        vector_weight=weights.embedding_weight,
        text_weight=weights.text_weight,
    )


def body(data: FileSearchTool) -> FileSearchToolBody:
    ranking = data.ranking_options or RankingOptions()
    weights = ranking.hybrid_search
    return FileSearchToolBody(
        vector_store_ids=data.vector_store_ids,
        max_num_results=data.max_num_results or DEFAULT_RESULTS,
        filters=data.filters,
        ranking_options=RankingBody(
            ranker=ranking.ranker or "auto",
            score_threshold=ranking.score_threshold,
            hybrid_search=None
            if weights is None
            else HybridSearchBody(embedding_weight=weights.embedding_weight, text_weight=weights.text_weight),
        ),
    )
