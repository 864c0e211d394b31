"""The log of a vector store: takes numbers from the store's row, writes chunks and removals under them.

Everything that changes a log locks the store's row first, and then the rows of its files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import BigInteger, Row, Text, bindparam, delete, insert, select, update

from frontend.db.codec import encode_vectors
from frontend.db.document_models import ChunkRow, ChunkVectorRow, RemovalRow, StoreFileRow, VectorStoreRow
from frontend.db.errors import translated
from frontend.db.transaction import ID, TENANT, Transaction
from frontend.domain.attributes import merged
from frontend.domain.documents import EmbeddingPin, NewChunk
from frontend.domain.errors import NotFound

THIS = (VectorStoreRow.tenant == TENANT) & (VectorStoreRow.id == ID)
"""The store `of_id`."""
FILES = bindparam("of_files", type_=Text(), expanding=True)
ITS_FILES = (StoreFileRow.tenant == TENANT) & (StoreFileRow.store_id == ID) & StoreFileRow.file_id.in_(FILES)
AT_ONCE = 500
"""Ids in one statement."""

# FOR NO KEY UPDATE, so that foreign keys can be checked meanwhile.
LOCK = select(*VectorStoreRow.__table__.columns).where(THIS).with_for_update(key_share=True)
GROW = (
    update(VectorStoreRow)
    .where(THIS)
    .values(head=VectorStoreRow.head + bindparam("more", type_=BigInteger()))
    .returning(VectorStoreRow.head, VectorStoreRow.generation, VectorStoreRow.embedding_dimensions)
)
"""Takes the next `more` numbers: `head` is the last of them then."""
RANGES = (
    select(StoreFileRow.first_seq, StoreFileRow.last_seq)
    .where(ITS_FILES, StoreFileRow.first_seq.is_not(None))
    .order_by(StoreFileRow.first_seq)
)
LOCK_FILES = select(StoreFileRow.file_id).where(ITS_FILES).order_by(StoreFileRow.file_id).with_for_update()
REMOVE_FILES = delete(StoreFileRow).where(ITS_FILES)
ADD_REMOVAL = insert(RemovalRow)
ADD_CHUNK = insert(ChunkRow)
ADD_VECTORS = insert(ChunkVectorRow)


def missing(store_id: str) -> NotFound:
    return NotFound(f"No vector store found with id {store_id!r}.")


def load_pin(row: Row[Any]) -> EmbeddingPin:
    return EmbeddingPin(
        model=row.embedding_model,
        digest=row.embedding_digest,
        dimensions=row.embedding_dimensions,
        window_tokens=row.embedding_window_tokens,
    )


def pin_columns(pin: EmbeddingPin) -> dict[str, object]:
    return {
        "embedding_model": pin.model,
        "embedding_digest": pin.digest,
        "embedding_dimensions": pin.dimensions,
        "embedding_window_tokens": pin.window_tokens,
    }


def portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Without repetition, in ascending order: that in which rows are locked."""
    ordered = sorted(set(ids))
    for first in range(0, len(ordered), AT_ONCE):
        yield ordered[first : first + AT_ONCE]


async def lock(transaction: Transaction, tenant: str, store_id: str) -> Row[Any]:
    """The store's row, which nobody else changes until the transaction ends. Raises NotFound."""
    row = await transaction.first(LOCK, of_tenant=tenant, of_id=store_id)
    if row is None:
        raise missing(store_id)
    return row


async def take_out(transaction: Transaction, tenant: str, store_id: str, file_ids: Sequence[str]) -> int:
    """Removes files from a store whose row is locked: the log gets removals, the foreign keys take the chunks.

    How many of `file_ids` were there.
    """
    removed = 0
    for some in portions(file_ids):
        its = {"of_tenant": tenant, "of_id": store_id, "of_files": some}
        await transaction.rows(LOCK_FILES, **its)
        ranges = merged([(row.first_seq, row.last_seq) for row in await transaction.rows(RANGES, **its)])
        if ranges:
            grown = await transaction.first(GROW, of_tenant=tenant, of_id=store_id, more=len(ranges))
            assert grown is not None
            entries = [
                {"tenant": tenant, "store_id": store_id, "seq": seq, "first": first, "last": last}
                for seq, (first, last) in enumerate(ranges, grown.head - len(ranges) + 1)
            ]
            await transaction.run_many(ADD_REMOVAL, entries)
        removed += await transaction.run(REMOVE_FILES, **its)
    return removed


PORTION_CHUNKS = 200
"""As many are written at a time: those of a large file at once would keep the event loop for seconds."""


async def add_chunks(
    transaction: Transaction,
    tenant: str,
    store: Row[Any],
    chunks: Sequence[NewChunk],
    *,
    store_id: str,
    file_id: str | None,
    first_seq: int,
) -> None:
    """Under numbers that were taken before, with vectors of the store's generation. `store`: its row."""
    place = {"tenant": tenant, "store_id": store_id}
    for start in range(0, len(chunks), PORTION_CHUNKS):
        numbered = list(enumerate(chunks[start : start + PORTION_CHUNKS], first_seq + start))
        with translated():  # a character that UTF-8 does not have
            texts = [
                {
                    **place,
                    "seq": seq,
                    "file_id": file_id,
                    "start": chunk.start,
                    "end": chunk.end,
                    "body": chunk.text.encode(),
                }
                for seq, chunk in numbered
            ]
        vectors = [
            {
                **place,
                "seq": seq,
                "generation": store.generation,
                "vectors": encode_vectors(chunk.vectors, store.embedding_dimensions),
            }
            for seq, chunk in numbered
        ]
        await transaction.run_many(ADD_CHUNK, texts)
        await transaction.run_many(ADD_VECTORS, vectors)
