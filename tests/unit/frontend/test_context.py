"""frontend/services/context: from items to a prompt's ids, trimmed in blocks, with the same bytes in every process.

Every promise about bytes is held for the default model and for one with the tokenizer shape of Hermes-2-Pro-Llama-3.
"""

from __future__ import annotations

import asyncio
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as cases
from hypothesis import strategies as st

from frontend import settings
from frontend.domain import model_card
from frontend.domain.context import Context, ContextTask
from frontend.domain.conversations import ContextSettings, Trim
from frontend.domain.errors import ContextLengthExceeded, InvalidRequest
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.hermes.prompt import PromptRenderer
from frontend.domain.hermes.tool_prompt import Marked
from frontend.domain.items import (
    CompactionItem,
    FunctionCallItem,
    FunctionOutputItem,
    InputText,
    Item,
    ItemRole,
    MessageItem,
    OutputText,
    StoredItem,
)
from frontend.domain.messages import Chat, Message
from frontend.domain.profiles import Profile
from frontend.domain.tools import Tool, ToolCall
from frontend.services.context import transcript, trimming
from frontend.services.context.builder import ContextBuilder
from frontend.services.tokenize import Tokenizer, TurnCache, digest, size

CASES = cases(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PROFILE = Profile(name="default", version=1, description="")
LIMITS = settings.ContextSettings(reserve_tokens=100)
TOOL = Tool(name="f", description="Does.", parameters={"type": "object"}, enforced={})


def read_model(folder: Path) -> PromptRenderer:
    card = model_card.read(folder)
    return PromptRenderer(Encoder.from_folder(model_card.files_of(folder, card)), card.chat, card.raw_bos)


@pytest.fixture(scope="session", params=["smollm2", "tiny_llama"])
def renderer(request: pytest.FixtureRequest) -> PromptRenderer:
    return read_model(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def any_builder(renderer: PromptRenderer, threads: ThreadPoolExecutor) -> ContextBuilder:
    return ContextBuilder(Tokenizer(renderer, threads, 10**6), LIMITS)


@pytest.fixture
def builder(smollm2: Path, threads: ThreadPoolExecutor) -> ContextBuilder:
    """Of the default model: a common word is one token."""
    return ContextBuilder(Tokenizer(read_model(smollm2), threads, 10**6), LIMITS)


def said(role: ItemRole, text: str) -> MessageItem:
    return MessageItem(id="msg", role=role, content=[OutputText(text) if role == "assistant" else InputText(text)])


def call(call_id: str, **more: Any) -> FunctionCallItem:
    return FunctionCallItem(**{"id": "fc", "call_id": call_id, "name": "f", "arguments": '{"a": 1}'} | more)


def result(call_id: str, text: str = "42") -> FunctionOutputItem:
    return FunctionOutputItem(id="fco", call_id=call_id, output=text)


def stored(items: Sequence[Item], first: int = 1) -> list[StoredItem]:
    return [StoredItem(item=item, seq=seq, created_at=0) for seq, item in enumerate(items, first)]


def talk(exchanges: int, words: int = 20) -> list[Item]:
    """A question and an answer of so many words, again and again, no two the same."""
    items: list[Item] = []
    for n in range(exchanges):
        items += [said("user", f"Question {n}? " + "why " * words), said("assistant", f"Answer {n}. " + "so " * words)]
    return items


def task(window: int = 512, **more: Any) -> ContextTask:
    more.setdefault("profile", PROFILE)
    return ContextTask(window_tokens=window, **more)


def texts(context: Context, part: str) -> list[str]:
    return [turn.text for each in context.parts if each.name == part for turn in each.turns]


def read(*items: Item) -> list[Message]:
    return [line.message for line in transcript.read(items, "input", 0).lines]


class TestTranscript:
    def test_roles(self) -> None:
        """A developer is a system to the model; parts are one text; a compaction is a summary in our words."""
        two = MessageItem(id="m", role="user", content=[InputText("a"), InputText("b")])
        compaction = CompactionItem(id="c", summary="They met.")
        messages = read(said("developer", "d"), two, said("assistant", "c"), said("system", "s"), compaction)
        assert [m.role for m in messages] == ["system", "user", "assistant", "system", "system"]
        assert [m.text for m in messages[:4]] == ["d", "ab", "c", "s"]
        assert messages[4].text.endswith("it is no instruction.\n\nThey met.")

    def test_calls_belong_to_the_message_before_them(self) -> None:
        """All calls of a turn are one turn with its text, also with text in between; their results name the function."""
        one, two = ToolCall("1", "f", '{"a": 1}'), ToolCall("2", "g", "{}")
        assert read(
            said("user", "q"),
            said("assistant", "Let me see. "),
            call("1"),
            said("assistant", "And then."),
            call("2", name="g", arguments="{}"),
            result("2", "b"),
            result("1", "a"),
            said("assistant", "Done."),
        ) == [
            Message("user", "q"),
            Message("assistant", "Let me see. And then.", [one, two]),
            Message("tool", "b", tool_name="g"),
            Message("tool", "a", tool_name="f"),
            Message("assistant", "Done."),
        ]

    def test_a_call_may_stand_alone(self) -> None:
        """Without a message before it, it is a turn without a text; after a result it is a turn of its own."""
        messages = read(said("user", "q"), call("1"), result("1"), call("2"), result("2"))
        assert [(m.role, m.text, len(m.tool_calls)) for m in messages] == [
            ("user", "q", 0),
            ("assistant", "", 1),
            ("tool", "42", 0),
            ("assistant", "", 1),
            ("tool", "42", 0),
        ]

    @pytest.mark.parametrize(
        "items",
        [
            [result("1")],
            [said("user", "q"), result("1")],
            [call("1"), result("2")],
            [call("1"), result("1"), result("1")],
            [call("1"), said("user", "q")],
            [call("1"), said("system", "s"), result("1")],
            [call("1"), call("2"), result("1"), said("assistant", "a"), result("2")],
            [call("1"), call("2"), result("1"), call("3")],
            [call("1"), call("1")],
            [call("1"), CompactionItem(id="c", summary="s")],
        ],
    )
    def test_what_does_not_belong_together_is_refused(self, items: list[Item]) -> None:
        """A result without its call, a call without its result, two calls of one id: the caller's error, at its place."""
        with pytest.raises(InvalidRequest) as caught:
            transcript.read(items, "somewhere", 0)
        assert caught.value.param == "somewhere"

    def test_ids_may_come_again(self) -> None:
        """Clients that number the calls of each turn anew are understood."""
        assert len(read(call("1"), result("1"), said("user", "q"), call("1"), result("1"))) == 5

    def test_a_call_that_was_cut_is_none(self) -> None:
        """The model ran out of tokens in it: it is not one to make, and nobody has to answer it, but may."""
        cut = call("1", status="incomplete")
        assert read(said("user", "q"), said("assistant", "a"), cut, said("user", "r")) == [
            Message("user", "q"),
            Message("assistant", "a"),
            Message("user", "r"),
        ]
        assert len(read(said("user", "q"), cut, result("1"))) == 3

    def test_a_call_may_wait_for_its_result(self) -> None:
        """At the end of all items, where a turn has just ended in calls."""
        assert read(said("user", "q"), call("1"))[1].tool_calls


class TestLayout:
    async def test_every_part_has_its_place(self, builder: ContextBuilder) -> None:
        """What changes least stands first, what is of one turn only stands last."""
        context = await builder.build(
            task(
                4096,
                profile=msgspec.structs.replace(PROFILE, system="Profile.", tool_style="brief"),
                instructions="Instructions.",
                tools=[TOOL],
                json_schema={"type": "object"},
                trim=Trim(upto=4, summary="They met.", summarised_upto=4),
                pinned=stored([said("system", "Pinned.")]),
                history=stored([said("user", "First."), said("assistant", "Second.")], 5),
                input=[said("user", "Third.")],
                memory=["Remembered."],
                retrieval=["Found.", "Found, too."],
            )
        )
        names = ["tools", "system", "summary", "history", "input", "memory", "retrieval", "frame"]
        assert [part.name for part in context.parts] == names
        assert [len(part.turns) for part in context.parts] == [2, 3, 1, 2, 1, 1, 2, 0]
        assert texts(context, "system") == ["Profile.", "Instructions.", "Pinned."]
        assert texts(context, "summary")[0].endswith("\n\nThey met.")
        assert texts(context, "history") == ["First.", "Second."]
        assert texts(context, "retrieval") == ["Found.", "Found, too."]
        roles = [turn.role for part in context.parts for turn in part.turns]
        assert roles == ["system"] * 6 + ["user", "assistant", "user"] + ["system"] * 3

    async def test_it_is_the_prompt_of_the_same_chat(
        self, any_builder: ContextBuilder, renderer: PromptRenderer
    ) -> None:
        """A conversation has the ids that /v1/chat/completions makes of the same messages, with and without a system."""
        for system in ([], ["Be brief."]):
            for tools in ([], [TOOL]):
                items = [*(said("system", text) for text in system), *talk(2)]
                items += [said("user", "q"), said("assistant", "hm"), call("1"), result("1")]
                context = await any_builder.build(task(4096, tools=tools, history=stored(items[:4]), input=items[4:]))
                chat = Chat(messages=read(*items), tools=tools)
                assert context.prompt_ids == renderer.prompt(renderer.turns(chat))

    async def test_what_is_switched_off_is_not_there(self, builder: ContextBuilder) -> None:
        """Summary, memory, retrieval: each by its own switch; JSON mode's words by the profile."""
        full = task(
            4096,
            input=[said("user", "q")],
            trim=Trim(upto=4, summary="They met.", summarised_upto=4),
            memory=["Remembered."],
            retrieval=["Found."],
            json_schema={"type": "object"},
        )
        everything = {part.name for part in (await builder.build(full)).parts}
        for name in ("summary", "memory", "retrieval"):
            without = msgspec.structs.replace(
                full, switches=msgspec.structs.replace(ContextSettings(), **{name: False})
            )
            assert {part.name for part in (await builder.build(without)).parts} == everything - {name}
        without = msgspec.structs.replace(full, profile=msgspec.structs.replace(PROFILE, json_prompt=False))
        assert "tools" not in {part.name for part in (await builder.build(without)).parts}

    async def test_system_messages_of_the_first_turn_stay_where_they_are(self, any_builder: ContextBuilder) -> None:
        """They are input, then history, then pinned: three times the same bytes, and no trim leaves them out."""
        rules, rest = [said("system", "One."), said("developer", "Two.")], talk(1)
        first = await any_builder.build(task(4096, input=[*rules, rest[0]]))
        second = await any_builder.build(task(4096, history=stored([*rules, *rest]), input=[said("user", "q")]))
        third = await any_builder.build(
            task(4096, pinned=stored(rules), history=stored(rest, 3), input=[said("user", "q")])
        )
        assert second.prompt_ids == third.prompt_ids
        assert second.prompt_ids[: first.prefix_tokens] == first.prompt_ids[: first.prefix_tokens]
        assert texts(first, "system") == texts(second, "system") == ["One.", "Two."]
        trimmed = await any_builder.build(task(400, history=stored([*rules, *talk(9)]), input=[said("user", "q")]))
        assert trimmed.trim.upto > 2
        assert texts(trimmed, "system") == ["One.", "Two."]

    async def test_the_models_own_system_turn_stays(self, any_builder: ContextBuilder) -> None:
        """With no system message at all the head is the same before and after a trim and a summary."""
        before = await any_builder.build(task(4096, history=stored(talk(9)), input=[said("user", "q")]))
        after = await any_builder.build(
            task(
                4096,
                history=stored(talk(9)),
                input=[said("user", "q")],
                trim=Trim(upto=8, summary="s", summarised_upto=8),
            )
        )
        assert texts(before, "system") == texts(after, "system")
        assert after.tokens("system") == before.tokens("system")


class TestBudget:
    @pytest.mark.parametrize(
        ("window", "asked", "profile", "budget", "soft", "hard"),
        [
            (8192, None, None, None, 8092, 8191),  # the reserve
            (200, None, None, None, 150, 199),  # at most a quarter of the window
            (8192, None, 20, None, 8172, 8191),  # no longer than the profile's answers
            (8192, 300, 20, None, 7892, 7892),  # what is asked for is kept free
            (8192, None, None, 1000, 1000, 1000),  # the conversation's own budget
            (8192, 8000, None, 1000, 192, 192),  # whichever is less
        ],
    )
    def test_the_room_of_a_prompt(
        self, window: int, asked: int | None, profile: int | None, budget: int | None, soft: int, hard: int
    ) -> None:
        """The window without the answer's reserve, or the conversation's budget."""
        it = task(
            window,
            max_output_tokens=asked,
            profile=msgspec.structs.replace(PROFILE, max_tokens=profile),
            switches=ContextSettings(budget_tokens=budget),
        )
        assert trimming.budget(it, LIMITS) == trimming.Budget(prompt_tokens=soft, most_tokens=hard)

    async def test_what_the_answer_may_have(self, builder: ContextBuilder) -> None:
        """What is asked for, or else what the window leaves, as far as the profile allows."""
        it = task(512, input=[said("user", "q")])
        context = await builder.build(it)
        assert context.answer_tokens == 512 - len(context.prompt_ids)
        short = msgspec.structs.replace(PROFILE, max_tokens=20)
        assert (await builder.build(msgspec.structs.replace(it, profile=short))).answer_tokens == 20
        assert (await builder.build(msgspec.structs.replace(it, max_output_tokens=7))).answer_tokens == 7

    async def test_an_answer_may_be_shorter_than_its_reserve(self, builder: ContextBuilder) -> None:
        """Where all history is gone and the input still reaches into the reserve, the answer gets what is left."""
        history, long = stored(talk(5)), said("user", "why " * 400)
        context = await builder.build(task(512, history=history, input=[long]))
        assert texts(context, "history") == []
        assert context.trim == Trim(upto=10)
        assert 0 < context.answer_tokens < 100

    async def test_too_long(self, builder: ContextBuilder) -> None:
        """What does not fit when all history is gone is refused, with numbers and the place."""
        long = said("user", "why " * 600)
        with pytest.raises(
            ContextLengthExceeded, match=r"512 tokens.*requested \d{3} tokens \(\d{3} in the here, 1 in"
        ):
            await builder.build(task(512, history=stored(talk(5)), input=[long], input_param="here"))
        with pytest.raises(ContextLengthExceeded, match="budget is 50 tokens") as caught:
            await builder.build(task(512, input=talk(3), switches=ContextSettings(budget_tokens=50)))
        assert caught.value.param == "input"
        with pytest.raises(ContextLengthExceeded):
            await builder.build(task(512, input=[said("user", "q")], max_output_tokens=512))

    async def test_without_trimming(self, builder: ContextBuilder) -> None:
        """History that does not fit is an error, with all of it in the number; the answer's reserve is not needed."""
        off = ContextSettings(trim=False)
        fits = await builder.build(task(512, history=stored(talk(1)), input=[said("user", "why " * 380)], switches=off))
        assert 412 < len(fits.prompt_ids) < 512
        assert texts(fits, "history")
        lengths = []
        for exchanges in (20, 200):
            history = stored(talk(exchanges))
            with pytest.raises(ContextLengthExceeded) as caught:
                await builder.build(task(512, history=history, input=[said("user", "q")], switches=off))
            lengths.append(int(caught.value.message.split("requested ")[1].split()[0]))
        assert lengths[1] > 9 * lengths[0]


class TestTrim:
    async def test_nothing_is_cut_that_fits(self, builder: ContextBuilder) -> None:
        """Up to the last token of the room."""
        it = task(8192, history=stored(talk(10)), input=[said("user", "q")])
        full = await builder.build(it)
        exact = len(full.prompt_ids)
        for tokens, cut in ((exact, False), (exact - 1, True)):
            context = await builder.build(msgspec.structs.replace(it, switches=ContextSettings(budget_tokens=tokens)))
            assert (context.trim != it.trim) is cut
            assert (context.prompt_ids == full.prompt_ids) is not cut

    async def test_whole_exchanges_go_until_the_share_is_reached(self, builder: ContextBuilder) -> None:
        """From the beginning, each with its answer, as many as are needed and none more."""
        it = task(1024, history=stored(talk(40)), input=[said("user", "q")])
        context = await builder.build(it)
        kept = texts(context, "history")
        assert kept[0].startswith("Question")
        first = int(kept[0].split("?")[0].removeprefix("Question "))
        assert context.trim == Trim(upto=2 * first)
        assert len(kept) == 2 * (40 - first)
        room = 1024 - 100 - (len(context.prompt_ids) - context.tokens("history"))
        assert context.tokens("history") <= LIMITS.keep_share * room
        one_more = context.tokens("history") * 1.2
        assert one_more > LIMITS.keep_share * room

    async def test_the_trim_is_the_next_prompts_beginning(self, builder: ContextBuilder) -> None:
        """With the stored trim nothing is cut again, and the bytes are the same; what was left out may be given or not."""
        it = task(1024, history=stored(talk(40)), input=[said("user", "q")])
        cut = await builder.build(it)
        for history in (it.history, it.history[cut.trim.upto :]):
            again = await builder.build(msgspec.structs.replace(it, trim=cut.trim, history=history))
            assert again.trim == cut.trim
            assert again.prompt_ids == cut.prompt_ids

    async def test_a_summary_stays_as_it_is(self, builder: ContextBuilder) -> None:
        """A turn that trims keeps the old summary, and does not claim that it holds more than it does."""
        trim = Trim(upto=4, summary="They met.", summarised_upto=4)
        context = await builder.build(task(1024, history=stored(talk(40)), input=[said("user", "q")], trim=trim))
        assert context.trim.upto > 4
        assert msgspec.structs.replace(context.trim, upto=4) == trim
        assert texts(context, "summary")

    async def test_the_newest_exchange_stays_if_it_fits(self, builder: ContextBuilder) -> None:
        """Though it fills more than the share: what was just said is what is asked about."""
        history = stored([*talk(3), *talk(1, words=150)])
        context = await builder.build(task(512, history=history, input=[said("user", "q")]))
        assert context.trim == Trim(upto=6)
        assert len(texts(context, "history")) == 2

    async def test_calls_and_results_are_not_split(self, builder: ContextBuilder) -> None:
        """Wherever the cut falls, history begins with a user's message."""
        items: list[Item] = []
        for n in range(12):
            items += [said("user", f"{n}?"), call(f"a{n}"), call(f"b{n}"), result(f"a{n}", "x " * 9), result(f"b{n}")]
            items += [said("assistant", "Well."), call(f"c{n}"), result(f"c{n}", "y " * 9), said("assistant", "Yes.")]
        full = await builder.build(task(8192, history=stored(items), input=[said("user", "q")]))
        least = len(full.prompt_ids) - full.tokens("history")
        begun = set()
        for budget in range(least, len(full.prompt_ids), 7):
            switches = ContextSettings(budget_tokens=budget)
            context = await builder.build(
                task(8192, history=stored(items), input=[said("user", "q")], switches=switches)
            )
            assert context.trim.upto % 9 == 0
            begun.add(context.trim.upto)
        assert len(begun) > 6

    async def test_an_unanswered_call_stays(self, builder: ContextBuilder) -> None:
        """The exchange whose calls get their results in the input is not left out, and nothing behind it."""
        waiting: list[Item] = [said("user", "Sum?"), said("assistant", "why " * 120), call("1"), call("2")]
        history = stored([*talk(4), *waiting])
        outputs = [result("1", "x " * 150), result("2")]
        context = await builder.build(task(512, history=history, input=outputs))
        assert context.trim == Trim(upto=8)
        assert texts(context, "history")[0] == "Sum?"
        with pytest.raises(ContextLengthExceeded):
            await builder.build(task(400, history=history, input=outputs, max_output_tokens=100))

    async def test_system_notes_go_with_the_message_behind_them(self, builder: ContextBuilder) -> None:
        """A note to the assistant before a question belongs to that question."""
        items: list[Item] = []
        for n in range(20):
            items += [said("developer", f"Note {n}."), said("user", f"{n}? " + "why " * 20), said("assistant", "So.")]
        items = [said("user", "Hi."), *items]
        context = await builder.build(task(512, history=stored(items), input=[said("user", "q")]))
        assert context.trim.upto % 3 == 1
        assert texts(context, "history")[0].startswith("Note")

    async def test_a_long_history_costs_no_more_than_a_window(self, builder: ContextBuilder) -> None:
        """What is left out in any case is not tokenised, and the cut is where it would be if it were."""
        items = talk(2000)
        for kept in (60, 2000):
            history = stored(items, 1)[-2 * kept :]
            context = await builder.build(task(512, history=history, input=[said("user", "q")]))
            assert texts(context, "history")[-1].startswith("Answer 1999.")
            last = context
        assert last.trim == context.trim
        assert builder._tokenizer._cache.size_bytes < 100_000

    async def test_chains_are_trimmed_the_same_way(self, builder: ContextBuilder) -> None:
        """`upto` is then the number of items that are dropped: positions count from one."""
        chain = stored([said("system", "Rule."), *talk(20)])
        context = await builder.build(task(512, pinned=chain[:1], history=chain[1:], input=[said("user", "q")]))
        again = await builder.build(
            task(
                512,
                pinned=chain[:1],
                history=chain[1:],
                input=[said("user", "q")],
                trim=Trim(upto=context.trim.upto),
            )
        )
        assert again.prompt_ids == context.prompt_ids
        assert texts(again, "system") == ["Rule."]


EXCHANGES = st.lists(
    st.tuples(st.text(max_size=30), st.integers(0, 60), st.sampled_from(["", "call", "calls", "note"])), max_size=12
)


def items_of(exchanges: list[tuple[str, int, str]]) -> list[Item]:
    items: list[Item] = []
    for n, (text, words, kind) in enumerate(exchanges):
        if kind == "note":
            items.append(said("developer", text))
        items.append(said("user", text + " why" * words))
        if kind.startswith("call"):
            names = ["a", "b"][: len(kind) - 3]
            items += [call(f"{name}{n}") for name in names]
            items += [result(f"{name}{n}", text) for name in names]
        items.append(said("assistant", text + " so" * words))
    return items


class TestTokens:
    @CASES
    @given(exchanges=EXCHANGES, window=st.integers(400, 1200), question=st.text(max_size=20), extra=st.booleans())
    def test_the_parts_add_up(
        self,
        any_builder: ContextBuilder,
        exchanges: list[tuple[str, int, str]],
        window: int,
        question: str,
        extra: bool,
    ) -> None:
        """To the prompt's tokens, whatever was cut; and the ids are those of the renderer without any cache."""
        it = task(
            window,
            history=stored(items_of(exchanges)),
            input=[said("user", question)],
            instructions=question if extra else None,
            memory=[question] if extra else [],
        )
        context = asyncio.run(any_builder.build(it))
        assert sum(part.tokens for part in context.parts) == len(context.prompt_ids)
        assert all(part.tokens == sum(turn.tokens for turn in part.turns) for part in context.parts[:-1])
        items = items_of(exchanges)
        first = [item for item in items[:1] if transcript.is_system(item)]
        kept = items[max(context.trim.upto, len(first)) :]
        of_turn = [said("system", question)] if extra else []
        renderer = any_builder._renderer
        turns = renderer.turns(Chat(messages=read(*of_turn, *first)))
        turns += [renderer.message(message) for message in read(*kept, said("user", question), *of_turn)]
        assert context.prompt_ids == renderer.prompt(turns)

    @CASES
    @given(exchanges=EXCHANGES, window=st.integers(300, 1200))
    def test_every_process_builds_the_same(
        self, renderer: PromptRenderer, threads: ThreadPoolExecutor, exchanges: list[tuple[str, int, str]], window: int
    ) -> None:
        """One that has seen the conversation before, one that has not, and one that keeps nothing."""
        warm = ContextBuilder(Tokenizer(renderer, threads, 10**6), LIMITS)
        it = task(window, history=stored(items_of(exchanges)), input=[said("user", "q")])
        asyncio.run(warm.build(it))
        others = [ContextBuilder(Tokenizer(renderer, threads, 0, cache_bytes), LIMITS) for cache_bytes in (0, 10**6)]
        first, *rest = [asyncio.run(each.build(it)) for each in (warm, *others)]
        assert all(each == first for each in rest)

    @CASES
    @given(exchanges=EXCHANGES.filter(lambda exchanges: len(exchanges) > 3), window=st.integers(1500, 2500))
    def test_a_prompt_begins_like_the_one_before(
        self, any_builder: ContextBuilder, exchanges: list[tuple[str, int, str]], window: int
    ) -> None:
        """From one trim to the next, up to where the answer began; and `fill` tells how near the next trim is."""
        history: list[Item] = []
        trim, before = Trim(), None
        for exchange in exchanges:
            items = items_of([exchange])
            pinned = [each for each in stored(history)[:1] if transcript.is_system(each.item)]
            it = task(window, pinned=pinned, history=stored(history)[len(pinned) :], input=items[:-1], trim=trim)
            context = asyncio.run(any_builder.build(it))
            if before is not None and context.trim == trim:
                assert context.prompt_ids[: before.prefix_tokens] == before.prompt_ids[: before.prefix_tokens]
            assert context.trim.upto >= trim.upto
            assert context.prefix_tokens < len(context.prompt_ids)
            history += items
            trim, before = context.trim, context


class TestOutlook:
    async def test_where_the_next_trim_will_be(self, builder: ContextBuilder) -> None:
        """Seen from before, nearly the same as then: so much is left that the rest of the way adds up to the share."""
        planned = []
        for exchanges in range(1, 60):
            it = task(1024, history=stored(talk(exchanges, words=8)))
            off = msgspec.structs.replace(it, switches=ContextSettings(trim=False))
            outlook = await builder.outlook(it, 0.9)
            assert outlook.fill == pytest.approx((await builder.build(off)).fill())
            if 0.75 < outlook.fill < 0.95:
                planned.append(outlook.trim.upto)
            if outlook.fill > 0.95:
                break
        assert exchanges < 59
        assert len(planned) > 4
        assert max(planned) - min(planned) <= 4
        cut = await builder.build(msgspec.structs.replace(it, trim=Trim(upto=planned[-1])))
        assert 0.65 < cut.fill() < 0.8

    async def test_what_a_turn_adds_counts(self, builder: ContextBuilder) -> None:
        """The fill of a turn, with its answer, is that of the next one's history."""
        items = talk(6)
        context = await builder.build(task(1024, history=stored(items[:-2]), input=[items[-2]]))
        answer = (await builder.build(task(1024, history=stored(items[-1:])))).tokens("history")
        after = await builder.build(task(1024, history=stored(items)))
        assert context.fill(answer) == pytest.approx(after.fill())


class TestCache:
    def test_it_is_bounded(self) -> None:
        """By bytes: the one that was not asked for longest goes first, and one that is too large is not kept at all."""
        one = array("i", range(50))
        cache = TurnCache(10 * size(one))
        for n in range(10):
            cache.put(b"%d" % n, one)
        assert cache.get(b"0") is one
        cache.put(b"new", one)
        assert cache.get(b"1") is None
        assert cache.get(b"0") is one
        assert cache.size_bytes == 10 * size(one)
        cache.put(b"large", array("i", range(500)))
        assert cache.get(b"large") is None
        cache.put(b"0", one)
        assert cache.size_bytes == 10 * size(one)

    def test_keys_tell_ours_from_theirs(self) -> None:
        """A tag in our words is a token; in anybody else's it is text; and no two lists of pieces have one key."""
        keys = [
            digest(pieces)
            for pieces in (
                ["user\n", "<tool_call>"],
                ["user\n", Marked("<tool_call>")],
                ["user\n<tool_call>"],
                ["user\n", "<tool_call>", ""],
                ["user\n", "<tool", "_call>"],
                ["user\nt11:<tool_call>"],
            )
        ]
        assert len(set(keys)) == len(keys)

    async def test_only_what_is_new_is_tokenised(
        self, renderer: PromptRenderer, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next turn costs its own text."""
        seen: list[int] = []
        encode = Encoder.encode

        def noted(self: Encoder, text: str) -> list[int]:
            seen.append(len(text))
            return encode(self, text)

        monkeypatch.setattr(Encoder, "encode", noted)
        builder = ContextBuilder(Tokenizer(renderer, threads, 10**6), LIMITS)
        history = stored(talk(50))
        await builder.build(task(8192, history=history, input=[said("user", "First?")]))
        assert sum(seen) > 5000
        seen.clear()
        await builder.build(task(8192, history=history, input=[said("user", "Second?")]))
        assert sum(seen) < 20

    async def test_long_texts_are_tokenised_in_a_thread(
        self, renderer: PromptRenderer, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Short ones at once: the event loop goes on meanwhile."""
        where: set[str] = set()
        encode = Encoder.encode

        def noted(self: Encoder, text: str) -> list[int]:
            where.add(threading.current_thread().name)
            return encode(self, text)

        monkeypatch.setattr(Encoder, "encode", noted)
        builder = ContextBuilder(Tokenizer(renderer, threads, 1000), LIMITS)
        await builder.build(task(8192, input=[said("user", "short")]))
        assert where == {threading.current_thread().name}
        where.clear()
        await builder.build(task(8192, input=[said("user", "long " * 400)]))
        assert threading.current_thread().name not in where

    async def test_a_full_window_is_built_quickly(self, builder: ContextBuilder) -> None:
        """8k tokens in 200 items, all of them seen before: printed, and bounded far above what it takes."""
        history = stored(talk(100, words=29))
        it = task(8192, history=history, input=[said("user", "q")], switches=ContextSettings(trim=False))
        context = await builder.build(it)
        best = float("inf")
        for _ in range(20):
            started = time.perf_counter()
            await builder.build(it)
            best = min(best, time.perf_counter() - started)
        print(f"{len(context.prompt_ids)} tokens, {len(history)} items: {best * 1e3:.2f} ms")
        assert len(context.prompt_ids) > 7500
        assert best < 0.02
