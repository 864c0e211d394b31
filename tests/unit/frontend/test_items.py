"""Items over the wire: what clients send is understood or refused by its path, and what is kept is shown as specified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from frontend.api.items.mapping import to_body, to_items
from frontend.api.items.schema import InputItem
from frontend.domain.errors import InvalidRequest
from frontend.domain.generation import Candidate, TokenLogprobs
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.items import (
    CompactionItem,
    FunctionCallItem,
    FunctionOutputItem,
    InputText,
    Item,
    ItemReference,
    MessageItem,
    OutputText,
    Part,
    Refusal,
)
from frontend.domain.seal import Seal
from tests.support.compatibility import OF_RESPONSES

SEAL = Seal(b"a secret of 32 bytes for the test")
MINE = SEAL.of("tenant")
CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "ok"}
LOGPROBS = [TokenLogprobs(Candidate(5, -0.25), [Candidate(5, -0.25)])]
BODIES: dict[str, tuple[Item, dict[str, Any]]] = {
    "a question": (
        MessageItem(id="msg_1", role="user", content=[InputText("Hi")]),
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    ),
    "an answer": (
        MessageItem(id="msg_1", role="assistant", content=[OutputText("Hi", LOGPROBS)], status="incomplete"),
        {
            "type": "message",
            "role": "assistant",
            "status": "incomplete",
            "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
        },
    ),
    "a refusal": (
        MessageItem(id="msg_1", role="assistant", content=[Refusal("No.")]),
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ),
    "a call": (FunctionCallItem(id="fc_1", call_id="call_1", name="f", arguments="{}"), CALL),
    "a result": (FunctionOutputItem(id="fco_1", call_id="call_1", output="ok"), RESULT),
    "a result in parts": (
        FunctionOutputItem(id="fco_1", call_id="call_1", output=[InputText("o"), InputText("k")]),
        RESULT | {"output": [{"type": "input_text", "text": "o"}, {"type": "input_text", "text": "k"}]},
    ),
}


def shown(item: Item, encoder: Encoder, *, with_logprobs: bool = False) -> dict[str, Any]:
    """The JSON of its body."""
    body: dict[str, Any] = json.loads(msgspec.json.encode(to_body(item, encoder, MINE, with_logprobs)))
    return body


def one(data: dict[str, Any]) -> Item | ItemReference:
    (item,) = to_items([data], "input", MINE)
    return item


def content(data: dict[str, Any]) -> list[Part]:
    item = one(data)
    assert isinstance(item, MessageItem)
    return list(item.content)


@pytest.fixture(scope="module")
def encoder(smollm2: Path) -> Encoder:
    return Encoder.from_folder(smollm2)


class TestIn:
    @pytest.mark.compat(OF_RESPONSES, "input items: messages in all of OpenAI's forms, calls and their results")
    def test_a_message_needs_no_type(self) -> None:
        """OpenAI's EasyInputMessage: a role, and a text or parts of one."""
        parts = [{"type": "input_text", "text": "H"}, {"type": "text", "text": "i"}]
        assert content({"role": "user", "content": "Hi"}) == [InputText("Hi")]
        assert content({"role": "user", "content": parts}) == [InputText("H"), InputText("i")]
        assert content({"role": "developer", "type": "message", "content": "Hi"}) == [InputText("Hi")]

    def test_what_an_assistant_said_is_output(self) -> None:
        """Whatever its parts are called; a refusal stays one, and log probabilities are not taken back."""
        said = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": [{"token": "Hi"}]}
        for parts in ([said], [{"type": "input_text", "text": "Hi"}], "Hi"):
            assert content({"role": "assistant", "content": parts}) == [OutputText("Hi")]
        assert content({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}) == [Refusal("No.")]
        assert content({"role": "user", "content": [said]}) == [InputText("Hi")]

    @pytest.mark.parametrize("name", BODIES)
    def test_what_was_given_out_can_be_sent_back(self, name: str, encoder: Encoder) -> None:
        """The item is the same but for its id and its log probabilities: a client's own ids could be those of others."""
        item, _ = BODIES[name]
        again = one(shown(item, encoder))
        assert not isinstance(again, ItemReference)
        assert again.id != item.id
        assert len(again.id.rsplit("_", 1)[1]) == 32
        assert shown(msgspec.structs.replace(again, id=item.id), encoder) == shown(item, encoder)

    def test_nulls_count_as_absent(self) -> None:
        """Clients dump answers with every field that their own types know: `namespace`, `caller`, `phase`."""
        call = one(CALL | {"id": None, "status": None, "namespace": None, "caller": None})
        assert isinstance(call, FunctionCallItem)
        assert (call.call_id, call.status) == ("call_1", "completed")
        assert content({"role": "user", "content": "Hi", "phase": None, "id": None}) == [InputText("Hi")]

    @pytest.mark.parametrize(
        "data", [{"id": "msg_1"}, {"id": "msg_1", "type": None}, {"id": "msg_1", "type": "item_reference"}]
    )
    @pytest.mark.compat(OF_RESPONSES, "input items: `item_reference`, `compaction`; `reasoning` is left out")
    def test_a_reference_needs_no_type(self, data: dict[str, Any]) -> None:
        """An id alone stands for an item that is kept."""
        assert one(data) == ItemReference("msg_1")

    def test_reasoning_is_left_out(self) -> None:
        """A history that began with another model can be gone on with."""
        thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
        assert to_items([thought], "input", MINE) == []

    def test_a_compaction_is_opened(self, encoder: Encoder) -> None:
        """What we gave out, as we gave it out."""
        kept = CompactionItem(id="cmp_1", summary="They talked.")
        opened = one(shown(kept, encoder))
        assert isinstance(opened, CompactionItem)
        assert opened.summary == "They talked."

    @pytest.mark.parametrize(
        ("data", "param", "code"),
        [
            ({}, "input[0].id", "missing_required_parameter"),
            ({"role": "user"}, "input[0].content", "missing_required_parameter"),
            ({"role": "tool", "content": "x"}, "input[0].role", "invalid_value"),
            ({"role": "user", "content": 5}, "input[0].content", "invalid_value"),
            ({"role": "user", "content": "x", "name": "n"}, "input[0].name", "unknown_parameter"),
            ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text", None),
            ({"role": "user", "content": [{"text": "x"}]}, "input[0].content[0].type", None),
            (
                {"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_image"}]},
                "input[0].content[1]",
                "unsupported_parameter",
            ),
            (
                {"role": "user", "content": [{"type": "input_file", "file_id": "f"}]},
                "input[0].content[0]",
                "unsupported_parameter",
            ),
            (
                {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
                "input[0].content[0]",
                "unsupported_parameter",
            ),
            ({"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}, "input[0].content[0]", None),
            ({"type": "web_search_call", "id": "ws_1"}, "input[0].type", "unsupported_parameter"),
            ({"type": 5}, "input[0].type", "unsupported_parameter"),
            ({"type": "function_call", "call_id": "c", "name": "f"}, "input[0].arguments", None),
            (CALL | {"name": "a b"}, "input[0].name", "invalid_value"),
            (CALL | {"call_id": ""}, "input[0].call_id", "invalid_value"),
            (CALL | {"arguments": {}}, "input[0].arguments", "invalid_value"),
            (CALL | {"namespace": "n"}, "input[0].namespace", "unknown_parameter"),
            (RESULT | {"output": {"a": 1}}, "input[0].output", "invalid_value"),
            (RESULT | {"output": [{"type": "input_image"}]}, "input[0].output[0]", "unsupported_parameter"),
            (RESULT | {"output": [{"type": "output_text", "text": ""}]}, "input[0].output[0].type", None),
            ({"id": "a b"}, "input[0].id", "invalid_value"),
            ({"id": "x\0"}, "input[0].id", "invalid_value"),
            ({"type": "compaction"}, "input[0].encrypted_content", "missing_required_parameter"),
            (
                {"type": "compaction", "encrypted_content": "gAAAAA"},
                "input[0].encrypted_content",
                "invalid_encrypted_content",
            ),
        ],
    )
    @pytest.mark.compat(OF_RESPONSES, "images, files, audio", says="no: 400 `unsupported_parameter` with the path")
    def test_refusals_name_the_place(self, data: dict[str, Any], param: str, code: str | None) -> None:
        """By the path in the request, and a code that tells what is wrong."""
        with pytest.raises(InvalidRequest) as refused:
            one(data)
        assert refused.value.param == param
        assert code in (None, refused.value.code)

    def test_a_name_that_is_too_long_is_not_echoed(self) -> None:
        """An error is not as long as the request."""
        with pytest.raises(InvalidRequest) as refused:
            one({"type": "x" * 10**6})
        assert len(refused.value.message) < 400

    def test_the_schema_has_them_all(self) -> None:
        """The OpenAPI page tells of each kind, without references that nothing there resolves."""
        schema = msgspec.json.schema(list[InputItem])
        assert [kind["title"] for kind in schema["items"]["anyOf"]] == [
            "InputMessageItem", "InputFunctionCall", "InputFunctionOutput", "InputCompaction",
            "InputFileSearchCall", "InputReasoning", "InputReference",
        ]  # fmt: skip
        assert "$ref" not in json.dumps(schema)


class TestOut:
    @pytest.mark.parametrize("name", BODIES)
    def test_bodies(self, name: str, encoder: Encoder) -> None:
        """Every field that the specifications require, and the log probabilities only where they are asked for."""
        item, body = BODIES[name]
        assert shown(item, encoder) == {"id": item.id, "status": "completed"} | body

    def test_log_probabilities_are_shown_where_they_are_asked_for(self, encoder: Encoder) -> None:
        """With the bytes of each token."""
        item, _ = BODIES["an answer"]
        (part,) = shown(item, encoder, with_logprobs=True)["content"]
        token = encoder.token_bytes(5)
        expected = {"token": token.decode(), "logprob": -0.25, "bytes": list(token)}
        assert part["logprobs"] == [expected | {"top_logprobs": [expected]}]


class TestSeal:
    def test_only_the_tenant_that_got_it_can_use_it(self) -> None:
        """Not another tenant, not with another secret."""
        sealed = MINE.seal("They talked.")
        assert MINE.unseal(sealed, "p") == "They talked."
        for other in (SEAL.of("other"), Seal(b"another secret").of("tenant"), SEAL.of("")):
            with pytest.raises(InvalidRequest, match="not what this service gave out"):
                other.unseal(sealed, "p")

    @pytest.mark.parametrize("position", [0, 10, 50, -3])
    def test_it_cannot_be_changed(self, position: int) -> None:
        """Neither the signature nor what it says."""
        sealed = list(MINE.seal("They talked."))
        sealed[position] = "A" if sealed[position] != "A" else "B"
        with pytest.raises(InvalidRequest):
            MINE.unseal("".join(sealed), "p")

    @pytest.mark.parametrize("sealed", ["", "=", "é", "a b", "AAAA", "A" * 43])
    def test_nonsense_is_refused(self, sealed: str) -> None:
        """With the parameter's name."""
        with pytest.raises(InvalidRequest) as refused:
            MINE.unseal(sealed, "input[0].encrypted_content")
        assert refused.value.param == "input[0].encrypted_content"
