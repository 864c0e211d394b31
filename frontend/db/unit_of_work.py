"""The repositories of one transaction, one for each noun."""

from __future__ import annotations

from frontend.db.audit import SqlAudit
from frontend.db.chunks import SqlChunks
from frontend.db.completions import SqlCompletions
from frontend.db.conversations import SqlConversations
from frontend.db.file_batches import SqlFileBatches
from frontend.db.files import SqlFiles
from frontend.db.idempotency import SqlIdempotencyKeys
from frontend.db.items import SqlItems
from frontend.db.keys import SqlKeys
from frontend.db.responses import SqlResponses
from frontend.db.sessions import SqlSessions
from frontend.db.store_files import SqlStoreFiles
from frontend.db.transaction import Transaction
from frontend.db.turns import SqlTurns
from frontend.db.vector_stores import SqlVectorStores
from frontend.domain.storage import (
    Audit,
    Chunks,
    Completions,
    Conversations,
    FileBatches,
    Files,
    IdempotencyKeys,
    Items,
    Keys,
    Responses,
    Sessions,
    StoreFiles,
    Turns,
    VectorStores,
)


class SqlUnitOfWork:
    def __init__(self, transaction: Transaction) -> None:
        self.keys: Keys = SqlKeys(transaction)
        self.audit: Audit = SqlAudit(transaction)
        self.idempotency: IdempotencyKeys = SqlIdempotencyKeys(transaction)
        self.conversations: Conversations = SqlConversations(transaction)
        self.items: Items = SqlItems(transaction)
        self.responses: Responses = SqlResponses(transaction)
        self.turns: Turns = SqlTurns(transaction)
        self.sessions: Sessions = SqlSessions(transaction)
        self.completions: Completions = SqlCompletions(transaction)
        self.files: Files = SqlFiles(transaction)
        self.vector_stores: VectorStores = SqlVectorStores(transaction)
        self.store_files: StoreFiles = SqlStoreFiles(transaction)
        self.file_batches: FileBatches = SqlFileBatches(transaction)
        self.chunks: Chunks = SqlChunks(transaction)
