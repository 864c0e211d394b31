"""Between the wire's responses and the domain's: what a request means, and how what came of it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from frontend.api import constraints
from frontend.api.file_search import to_search
from frontend.api.items.mapping import to_body, to_items
from frontend.api.items.schema import LOGPROBS, RESULTS, InputItem, ItemBody
from frontend.api.logprobs import TokenLogprob, token_logprob
from frontend.api.parameters import refuse_unsupported, token_choice
from frontend.api.responses import schema, tools
from frontend.domain import ids
from frontend.domain.conversations import Page
from frontend.domain.errors import Internal, InvalidRequest
from frontend.domain.generation import Sampling, TokenLogprobs, Usage
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.items import InputText, Item, ItemReference, MessageItem, StoredItem
from frontend.domain.json_schema import Budget
from frontend.domain.responses import Response, StatusChanged
from frontend.domain.seal import TenantSeal
from frontend.services.chat import JsonFormat
from frontend.services.responses.task import Compaction, ResponseTask, Run

ASKS_FOR_NOTHING: dict[str, tuple[object, ...]] = {"prompt": (), "context_management": ([],), "moderation": ()}
"""Parameters that are not supported, with the values that change nothing and are taken all the same."""


def to_task(data: schema.CreateResponse, session_id: str | None, seal: TenantSeal) -> ResponseTask:
    """Raises InvalidRequest, naming the parameter."""
    refuse_unsupported(data, ASKS_FOR_NOTHING)
    if data.background and data.store is False:
        raise InvalidRequest("A response in the background has to be stored.", param="background")
    if data.stream_options is not None and not data.stream:
        raise InvalidRequest("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
    asked = to_prompt_task(data, session_id, seal)
    return msgspec.structs.replace(
        asked,
        sampling=msgspec.structs.replace(
            token_choice(data),
            max_tokens=data.max_output_tokens,
            logprobs=(data.top_logprobs or 0) if wants_logprobs(data) else None,
        ),
        parameters=msgspec.json.encode(parameters(data, trims=bool(asked.conversation_id or session_id))),
        store=data.store is not False,
        background=bool(data.background),
        stream=bool(data.stream),
    )


def to_prompt_task(data: schema.ResponseInput, session_id: str | None, seal: TenantSeal) -> ResponseTask:
    """What the prompt is made of, with nothing said of the answer. Raises InvalidRequest, naming the parameter."""
    conversation_id = conversation_of(data)
    if conversation_id is not None and data.previous_response_id is not None:
        raise InvalidRequest(
            "'previous_response_id' and 'conversation' cannot be used together.", param="previous_response_id"
        )
    given = input_items(data.input, seal)
    if not given and not (data.previous_response_id or conversation_id or session_id):
        raise InvalidRequest(
            "Missing required parameter: 'input', where there is no 'previous_response_id', 'conversation' or session"
            " to go on from.",
            param="input",
            code="missing_required_parameter",
        )
    wanted, budget = tools.wanted(data), Budget()
    offered = constraints.offered(tools.functions(data), wanted, "", budget)
    search = tools.searched(data)
    return ResponseTask(
        model=data.model,
        input=given,
        sampling=Sampling(),
        parameters=b"{}",
        instructions=data.instructions,
        tools=offered,
        tool_choice=constraints.choice(wanted, offered, data.parallel_tool_calls),
        file_search=None if search is None else to_search(search),
        json_format=json_format(data.text, budget),
        profile=data.profile,
        previous_response_id=data.previous_response_id,
        conversation_id=conversation_id,
        session_id=session_id,
        truncation=data.truncation,
    )


def wants_logprobs(data: schema.CreateResponse) -> bool:
    return LOGPROBS in (data.include or ())


def wants_results(data: schema.CreateResponse) -> bool:
    return RESULTS in (data.include or ())


def conversation_of(data: schema.ResponseInput) -> str | None:
    given = data.conversation
    return given.id if isinstance(given, schema.ConversationReference) else given


def input_items(data: str | Sequence[InputItem] | None, seal: TenantSeal) -> list[Item | ItemReference]:
    """A text is the user's message."""
    if isinstance(data, str):
        return [MessageItem(id=ids.new("msg_"), role="user", content=[InputText(data)])]
    return to_items(data or [], "input", seal)


def json_format(data: schema.TextOptions | None, budget: Budget) -> JsonFormat | None:
    match data.format if data is not None else None:
        case schema.AnyJson():
            return constraints.any_json()
        case schema.JsonOfSchema(schema=wanted, strict=strict):
            return constraints.json_of(wanted, strict, "text.format.schema", budget)
        case _:
            return None


def parameters(data: schema.CreateResponse, *, trims: bool) -> schema.Parameters:
    """`trims`: what does not fit is left out unless the request forbids it."""
    return schema.Parameters(
        instructions=data.instructions,
        tools=tools.shown(data),
        tool_choice=data.tool_choice or "auto",
        parallel_tool_calls=data.parallel_tool_calls is not False,
        text=text_body(data.text or schema.TextOptions()),
        temperature=1.0 if data.temperature is None else data.temperature,
        top_p=1.0 if data.top_p is None else data.top_p,
        presence_penalty=data.presence_penalty or 0.0,
        frequency_penalty=data.frequency_penalty or 0.0,
        top_logprobs=data.top_logprobs or 0,
        max_output_tokens=data.max_output_tokens,
        max_tool_calls=data.max_tool_calls,
        truncation=data.truncation or ("auto" if trims else "disabled"),
        store=data.store is not False,
        metadata=data.metadata or {},
        safety_identifier=data.safety_identifier or "",
        prompt_cache_key=data.prompt_cache_key or "",
        user=msgspec.UNSET if data.user is None else data.user,
    )


def text_body(data: schema.TextOptions) -> schema.TextBody:
    form: schema.PlainText | schema.AnyJson | schema.JsonOfSchemaBody
    match data.format:
        case schema.JsonOfSchema(name=name, schema=wanted, description=description, strict=strict):
            form = schema.JsonOfSchemaBody(name=name, description=description or "", schema=wanted, strict=bool(strict))
        case None:
            form = schema.PlainText()
        case other:
            form = other
    return schema.TextBody(format=form, verbosity=data.verbosity or msgspec.UNSET)


def to_compaction_task(data: schema.CompactInput, seal: TenantSeal) -> ResponseTask:
    """Raises InvalidRequest."""
    asked = schema.ResponseInput(
        model=data.model,
        input=data.input,
        instructions=data.instructions,
        previous_response_id=data.previous_response_id,
    )
    return to_prompt_task(asked, None, seal)


class Bodies:
    """Makes the bodies that one request is answered with."""

    def __init__(
        self, encoder: Encoder, seal: TenantSeal, *, with_logprobs: bool = False, with_results: bool = False
    ) -> None:
        self._encoder = encoder
        self._seal = seal
        self._with_logprobs = with_logprobs
        self._with_results = with_results

    def item(self, item: Item) -> ItemBody:
        return to_body(item, self._encoder, self._seal, self._with_logprobs, self._with_results)

    def logprobs(self, positions: Sequence[TokenLogprobs]) -> list[TokenLogprob]:
        """Empty unless they are to be shown."""
        return [token_logprob(each, self._encoder) for each in positions] if self._with_logprobs else []

    def response(self, response: Response) -> schema.ResponseBody:
        asked = msgspec.json.decode(response.parameters, type=schema.Parameters)
        reason, usage = response.incomplete_reason, response.usage
        error, conversation = response.error, response.conversation_id
        return schema.ResponseBody(
            id=response.id,
            created_at=response.created_at,
            completed_at=response.completed_at,
            status=response.status,
            error=None if error is None else schema.ResponseErrorBody(error.code, error.message),
            incomplete_details=None if reason is None else schema.IncompleteDetails(reason),
            model=response.model,
            background=response.background,
            previous_response_id=response.previous_response_id,
            conversation=None if conversation is None else schema.ConversationIdBody(conversation),
            output=[self.item(each) for each in response.output],
            usage=None if usage is None else usage_body(usage),
            degraded=list(response.degraded) or msgspec.UNSET,
            **msgspec.structs.asdict(asked),
        )

    async def ended(self, run: Run) -> schema.ResponseBody:
        """Reads a run to its end, or not at all in the background. Raises what the run raises."""
        response = run.response
        async with aclosing(run.events) as events:
            if not response.background:
                async for event in events:
                    if isinstance(event, StatusChanged):
                        response = event.response
        if response.running and not response.background:
            raise Internal("The run of a response had no end.")
        return self.response(response)

    def input_page(self, page: Page[StoredItem]) -> schema.InputItemList:
        data = [self.item(stored.item) for stored in page.data]
        return schema.InputItemList(
            data=data,
            first_id=data[0].id if data else "",
            last_id=data[-1].id if data else "",
            has_more=page.has_more,
        )

    def compaction(self, compaction: Compaction) -> schema.CompactionResult:
        return schema.CompactionResult(
            id=compaction.id,
            created_at=compaction.created_at,
            output=[self.item(each) for each in compaction.output],
            usage=usage_body(compaction.usage),
        )


def usage_body(usage: Usage) -> schema.ResponseUsage:
    return schema.ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=schema.InputTokensDetails(usage.cached_tokens),
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )
