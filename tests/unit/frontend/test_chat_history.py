"""frontend/services/chat_history: what a conversation holds already is not new, however its client sends it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.domain.conversations import Conversation, Trim, Window
from frontend.domain.errors import InvalidRequest
from frontend.domain.items import CompactionItem, FunctionCallItem, Item, MessageItem, OutputText, StoredItem
from frontend.domain.messages import Message
from frontend.domain.tools import ToolCall
from frontend.services.chat_history import Comparison, asked_again, behind_question, is_resent, items_of

SYSTEM = Message("system", "Be brief.")
HELLO, PARIS = Message("user", "Hello"), Message("user", "What is the capital of France?")
HI, ANSWER = Message("assistant", "Hi."), Message("assistant", "Paris.")
CALL = ToolCall("call_1", "weather", '{"city": "Paris", "days": 1}')
CALLING, RESULT = Message("assistant", "", [CALL]), Message("tool", "sunny", tool_call_id="call_1")


def stored(items: Sequence[Item], response_id: str | None = None) -> list[StoredItem]:
    return [StoredItem(item=item, seq=i, response_id=response_id, created_at=1) for i, item in enumerate(items, 1)]


def kept(*messages: Message) -> list[StoredItem]:
    """As turns keep them."""
    return stored(items_of(messages))


def cut(text: str) -> MessageItem:
    return MessageItem(id="msg_cut", role="assistant", content=[OutputText(text)], status="incomplete")


def cut_call(call: ToolCall) -> FunctionCallItem:
    return FunctionCallItem(id="fc_cut", call_id=call.id, name=call.name, arguments=call.arguments, status="incomplete")


def window(*parts: Message | Item, response_id: str | None = None) -> Window:
    """Of a conversation of these messages and items; leading system messages are pinned."""
    items = [item for part in parts for item in (items_of([part]) if isinstance(part, Message) else [part])]
    all_of_them = stored(items, response_id)
    pinned = [s for s in all_of_them[:1] if isinstance(s.item, MessageItem) and s.item.role == "system"]
    conversation = Conversation(id="conv_1", metadata={}, created_at=1, last_active_at=1, trim=Trim(), head=len(items))
    return Window(conversation=conversation, pinned=pinned, history=all_of_them[len(pinned) :])


def new(sent: Sequence[Message], held: Window) -> Sequence[Message]:
    """What the service finds to be new."""
    if not is_resent(sent):
        return behind_question(sent, held)
    comparison = Comparison(sent)
    comparison.read([*held.pinned, *held.history])
    return comparison.rest()


def refused(sent: Sequence[Message], held: Window) -> str | None:
    """The `param` of the mismatch."""
    with pytest.raises(InvalidRequest) as raised:
        new(sent, held)
    assert raised.value.code == "conversation_mismatch"
    assert "SECRET" not in str(raised.value)
    return raised.value.param


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
calls = st.builds(
    ToolCall, st.from_regex(r"call_[a-z0-9]{1,6}", fullmatch=True), texts, st.builds(json.dumps, json_values)
)
messages = st.lists(
    st.one_of(
        st.builds(Message, st.sampled_from(["system", "user"]), texts),
        st.builds(Message, st.just("assistant"), texts, st.lists(calls, max_size=2)),
        st.builds(Message, st.just("assistant"), st.just(""), st.lists(calls, min_size=1, max_size=2)),
        st.builds(Message, st.just("tool"), texts, tool_call_id=st.sampled_from(["call_1", "call_2"])),
    ),
    max_size=8,
)
histories = messages.filter(is_resent)


class TestResentHistory:
    @given(histories, messages, st.integers(1, 5))
    def test_an_equal_beginning_is_not_new(self, before: list[Message], after: list[Message], size: int) -> None:
        """Whatever was said, and in pieces of whatever size it is read: what follows is new, all of it and nothing else."""
        comparison, items = Comparison([*before, *after]), kept(*before)
        for begin in range(0, len(items), size):
            comparison.read(items[begin : begin + size])
        assert comparison.rest() == after

    @given(histories, st.data())
    def test_any_other_beginning_is_refused(self, before: list[Message], data: st.DataObject) -> None:
        """A message that was changed is named by its place; the text is nowhere in the error."""
        place = data.draw(st.integers(0, len(before) - 1))
        changed = Message(before[place].role, f"{before[place].text} SECRET", before[place].tool_calls, None, "call_1")
        sent = [*before[:place], changed, *before[place + 1 :]]
        param = refused(sent, window(*before))
        named = int(str(param).removeprefix("messages[").removesuffix("]"))
        assert named <= place
        assert all(message.role in ("assistant", "system") for message in sent[named:place])

    @pytest.mark.parametrize(
        ("sent", "param"),
        [
            ([PARIS, HI], "messages[0]"),
            ([HELLO, ANSWER, PARIS], "messages[1]"),
            ([HELLO, HI, HELLO], "messages[2]"),
            ([SYSTEM, HELLO, HI, PARIS], "messages[0]"),
            ([HELLO, HI], "messages"),
        ],
    )
    def test_the_first_difference_is_named(self, sent: list[Message], param: str) -> None:
        """A history that ends too early differs behind its end."""
        assert refused(sent, window(HELLO, HI, PARIS, ANSWER)) == param

    @pytest.mark.parametrize(
        "variant",
        [
            Message("assistant", " \n", [CALL]),
            Message("assistant", "", [ToolCall("call_1", "weather", '{"days":1.0,"city":"Paris"}')]),
            Message("assistant", "", [ToolCall("call_1", "weather", '\n{"city":\t"Paris", "days": 1 }')]),
        ],
    )
    def test_one_call_has_several_spellings(self, variant: Message) -> None:
        """White space, the order of members and 1.0 for 1 are what clients make of JSON that they have parsed."""
        assert new([PARIS, variant, RESULT], window(PARIS, CALLING)) == [RESULT]

    @pytest.mark.parametrize(
        "other",
        [
            ToolCall("call_2", "weather", CALL.arguments),
            ToolCall("call_1", "time", CALL.arguments),
            ToolCall("call_1", "weather", '{"city": "Paris", "days": true}'),
            ToolCall("call_1", "weather", '{"city": "Paris"}'),
            ToolCall("call_1", "weather", '{"city": "Paris", "days": 1'),
            ToolCall("call_1", "weather", "[" * 100_000),
        ],
    )
    def test_another_call_is_another(self, other: ToolCall) -> None:
        """By its id, its name, or one value in its arguments."""
        assert refused([PARIS, Message("assistant", "", [other]), RESULT], window(PARIS, CALLING)) == "messages[1]"

    def test_no_arguments_have_two_spellings(self) -> None:
        """Nothing, and an empty object."""
        held = window(PARIS, Message("assistant", "", [ToolCall("call_1", "now", "")]))
        sent = [PARIS, Message("assistant", "", [ToolCall("call_1", "now", "{}")]), RESULT]
        assert new(sent, held) == [RESULT]

    def test_text_and_calls_of_one_answer(self) -> None:
        """They are several items, and one message to those who read completions; or two, to some."""
        held = window(PARIS, Message("assistant", "Let me see.", [CALL]))
        together = Message("assistant", "Let me see.", [CALL])
        apart = [Message("assistant", "Let me see."), CALLING]
        assert new([PARIS, together, RESULT], held) == [RESULT]
        assert new([PARIS, *apart, RESULT], held) == [RESULT]

    def test_leading_system_messages_may_be_missing(self) -> None:
        """They may have been put there by somebody else; but those in between must be there."""
        held = window(SYSTEM, HELLO, HI)
        assert new([HELLO, HI, PARIS], held) == [PARIS]
        assert new([SYSTEM, HELLO, HI, PARIS], held) == [PARIS]
        assert refused([Message("system", "Be long."), HELLO, HI, PARIS], held) == "messages[0]"
        assert refused([HELLO, HI, PARIS], window(HELLO, SYSTEM, HI)) == "messages[1]"

    def test_a_compaction_is_nobodys_message(self) -> None:
        """It stands for others, and no client of chats has seen it."""
        held = window(HELLO, HI, CompactionItem(id="cmp_1", summary="They met."))
        assert new([HELLO, HI, PARIS], held) == [PARIS]

    def test_an_empty_conversation(self) -> None:
        """Everything is new, an assistant's examples too."""
        examples = [SYSTEM, HELLO, HI, PARIS]
        assert new(examples, window()) == examples


class TestCutAnswers:
    @pytest.mark.parametrize("seen", ["Paris is the", "Paris is", "", "Paris is the capital."])
    def test_a_client_may_have_seen_any_part(self, seen: str) -> None:
        """All of it, less, nothing, or more: it is not sure where it was cut."""
        assert new([PARIS, Message("assistant", seen), HELLO], window(PARIS, cut("Paris is the"))) == [HELLO]

    @given(st.text(max_size=12), st.text(max_size=12))
    def test_either_is_the_beginning_of_the_other(self, seen: str, kept_text: str) -> None:
        """And otherwise they differ."""
        one, other = seen.strip(), kept_text.strip()
        sent, held = [PARIS, Message("assistant", seen), HELLO], window(PARIS, cut(kept_text), HI)
        if one.startswith(other) or other.startswith(one):
            assert new([*sent[:2], HI, HELLO], held) == [HELLO]
        elif one != HI.text:
            assert refused([*sent[:2], HI, HELLO], held) == "messages[1]"

    def test_a_client_may_have_forgotten_it(self) -> None:
        """It is not there in what it sends; what it sends next is new."""
        held = window(HELLO, HI, PARIS, cut("Paris is"))
        assert new([HELLO, HI, PARIS, HELLO], held) == [HELLO]
        assert new([HELLO, HI, PARIS], held) == []

    def test_one_that_was_made_again(self) -> None:
        """Clients keep the second, or both, or both and what they saw of a third."""
        held = window(PARIS, cut("Par"), cut("Paris is"), ANSWER)
        for between in ([ANSWER], [Message("assistant", "Pa"), ANSWER], [cut_text("Par"), cut_text("Paris"), ANSWER]):
            assert new([PARIS, *between, HELLO], held) == [HELLO]

    def test_a_call_that_was_cut(self) -> None:
        """It is the same call with any part of its arguments, and with fewer calls behind it."""
        half = ToolCall("call_1", "weather", '{"ci')
        other = ToolCall("call_2", "weather", "{}")
        held = window(PARIS, MessageItem(id="m", role="assistant", content=[OutputText("So:")]), cut_call(half))
        for seen in (Message("assistant", "So:", [half]), Message("assistant", "So:", [CALL]), cut_text("So:")):
            assert new([PARIS, seen, HELLO], held) == [HELLO]
        assert refused([PARIS, Message("assistant", "So:", [other]), HELLO], held) == "messages[1]"

    def test_very_many(self) -> None:
        """Nobody can make a comparison slow with them."""
        held = window(PARIS, *(cut("") for _ in range(500)), ANSWER)
        sent = [PARIS, *(cut_text("") for _ in range(500)), ANSWER]
        assert new([*sent, HELLO], held) == [HELLO]
        asked = [Message("user", "Again?")] * 500
        assert new(asked[:3], window(*asked)) == []
        assert new([*asked[:100], HELLO], window(*asked)) == [HELLO]


def cut_text(text: str) -> Message:
    return Message("assistant", text)


class TestWhatIsSaidNext:
    @given(messages.filter(lambda each: not is_resent(each) and bool(each)))
    def test_everything_is_new(self, sent: list[Message]) -> None:
        """To a conversation whose last question was answered, even if it was said before."""
        held = window(*[Message("user", "x" * 9), ANSWER])
        assert new(sent, held) == sent
        assert new([HELLO], window(HELLO, HI)) == [HELLO]

    def test_a_result_answers_a_stored_call(self) -> None:
        """Without the call."""
        assert new([RESULT], window(PARIS, CALLING)) == [RESULT]

    def test_the_leading_system_message(self) -> None:
        """Is kept once; another is refused; one that comes later is new; where there was none it is new as well."""
        held = window(SYSTEM, HELLO, HI)
        assert new([Message("system", "Be brief. "), PARIS], held) == [PARIS]
        assert refused([Message("system", "Be long."), PARIS], held) == "messages[0]"
        assert new([PARIS, SYSTEM], held) == [PARIS, SYSTEM]
        assert new([SYSTEM, Message("system", "Now in French."), PARIS], held)[1:] == [PARIS]
        assert new([SYSTEM, PARIS], window(HELLO, HI)) == [SYSTEM, PARIS]

    @pytest.mark.parametrize("answer", [[], [cut("Paris is")], [cut("Pa"), cut("Paris is")], [cut_call(CALL)]])
    def test_a_question_that_nobody_saw_answered(self, answer: list[Item]) -> None:
        """Asked again it is not new, alone or before another one."""
        held = window(SYSTEM, HELLO, HI, PARIS, *answer)
        assert new([PARIS], held) == []
        assert [s.item.text for s in asked_again([PARIS], held) if isinstance(s.item, MessageItem)] == [PARIS.text]
        assert new([SYSTEM, PARIS, HELLO], held) == [HELLO]
        assert new([HELLO], held) == [HELLO]

    def test_several_of_them(self) -> None:
        """All since the last answer, or the last ones."""
        held = window(HELLO, HI, HELLO, cut("H"), PARIS, cut("P"))
        assert new([HELLO, PARIS, SYSTEM], held) == [SYSTEM]
        assert new([PARIS, SYSTEM], held) == [SYSTEM]
        assert new([HELLO, SYSTEM], held) == [HELLO, SYSTEM]

    def test_an_answer_that_a_limit_cut_was_seen(self) -> None:
        """Who says "Go on" twice wants to go on twice: a response says itself why it is incomplete."""
        go_on = Message("user", "Go on")
        assert new([go_on], window(go_on, cut("and"), response_id="resp_1")) == [go_on]
        assert new([go_on], window(go_on, ANSWER)) == [go_on]


class TestNothingNew:
    @pytest.mark.parametrize(
        ("sent", "held"),
        [
            ([HELLO, HI], window(HELLO, HI)),
            ([HELLO, cut_text("H")], window(HELLO, cut("H"))),
            ([SYSTEM], window(SYSTEM)),
            ([SYSTEM], window(SYSTEM, HELLO)),
        ],
    )
    def test_is_refused(self, sent: list[Message], held: Window) -> None:
        """There is no question that could be answered."""
        assert new(sent, held) == []
        with pytest.raises(InvalidRequest, match="nothing to answer") as raised:
            asked_again(sent, held)
        assert raised.value.param == "messages"


@given(messages)
def test_messages_are_kept_as_they_are(sent: list[Message]) -> None:
    """Each becomes one item for its text and one for each of its calls; every item has an id of its own."""
    items = items_of(sent)
    assert len({item.id for item in items}) == len(items)
    told: list[Any] = []
    for message in sent:
        if message.text:
            told.append(message.text)
        told += [(call.id, call.name, call.arguments) for call in message.tool_calls]
    assert [
        (item.call_id, item.name, item.arguments) if isinstance(item, FunctionCallItem) else item.text  # type: ignore[union-attr]  # no compactions
        for item in items
    ] == told
