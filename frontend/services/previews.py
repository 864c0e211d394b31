"""What the next prompt of a conversation would hold: the feature that people debug with. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from frontend.domain.context import ContextTask
from frontend.domain.conversations import Conversation
from frontend.domain.items import Item
from frontend.domain.ports import HotState
from frontend.domain.profiles import Profiles
from frontend.domain.storage import Database
from frontend.services.context.builder import ContextBuilder
from frontend.services.context.windows import load_window
from frontend.services.conversations import Preview
from frontend.services.lookups import Lookups
from frontend.services.models import ALIAS, ModelService


class Previews:
    def __init__(
        self,
        database: Database,
        hot_state: HotState,
        models: ModelService,
        profiles: Profiles,
        contexts: ContextBuilder,
        lookups: Lookups,
    ) -> None:
        self._database = database
        self._hot_state = hot_state
        self._models = models
        self._profiles = profiles
        self._contexts = contexts
        self._lookups = lookups

    async def of(self, tenant: str, conversation: Conversation, given: Sequence[Item], profile: str | None) -> Preview:
        """With `given` as the turn's input; `profile`: the key's, where the conversation has none.

        Raises InvalidRequest, ContextLengthExceeded, Unavailable.
        """
        async with self._database.reading() as uow:
            window = await load_window(uow, self._hot_state, tenant, conversation)
        window_tokens = self._models.get(ALIAS).max_model_len
        looked_up = await self._lookups.of_turn(tenant, None, window, given, window_tokens)
        context = await self._contexts.build(
            ContextTask(
                window_tokens=window_tokens,
                profile=self._profiles.get(conversation.profile or profile),
                switches=conversation.context,
                trim=conversation.trim,
                pinned=window.pinned,
                history=window.history,
                input=given,
                memory=looked_up.memory,
                retrieval=looked_up.retrieval,
            )
        )
        return Preview(
            conversation=conversation, window_tokens=window_tokens, context=context, degraded=looked_up.degraded
        )
