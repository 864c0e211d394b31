"""The repositories of one transaction, one for each noun."""

from __future__ import annotations

from frontend.db.completions import SqlCompletions
from frontend.db.conversations import SqlConversations
from frontend.db.items import SqlItems
from frontend.db.keys import SqlKeys
from frontend.db.responses import SqlResponses
from frontend.db.sessions import SqlSessions
from frontend.db.transaction import Transaction
from frontend.db.turns import SqlTurns
from frontend.domain.storage import Completions, Conversations, Items, Keys, Responses, Sessions, Turns


class SqlUnitOfWork:
    def __init__(self, transaction: Transaction) -> None:
        self.keys: Keys = SqlKeys(transaction)
        self.conversations: Conversations = SqlConversations(transaction)
        self.items: Items = SqlItems(transaction)
        self.responses: Responses = SqlResponses(transaction)
        self.turns: Turns = SqlTurns(transaction)
        self.sessions: Sessions = SqlSessions(transaction)
        self.completions: Completions = SqlCompletions(transaction)
