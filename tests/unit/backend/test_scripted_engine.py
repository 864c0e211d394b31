"""hermes2_backend.scripted_engine: replies by rule, as tokens of the model that it stands for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hermes2_backend.config import BackendConfig
from hermes2_backend.generation import Delta, Generation
from hermes2_backend.scripted_engine import ScriptedEngine
from tokenizers import Tokenizer

from tests.support import llama

CHAT = "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n"
Make = Callable[..., ScriptedEngine]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    llama.make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def tokenizer(model: Path) -> Tokenizer:
    return Tokenizer.from_file(str(model / "tokenizer.json"))


@pytest.fixture
def make(model: Path, tmp_path: Path) -> Make:
    def engine(*rules: object) -> ScriptedEngine:
        file = tmp_path / "replies.json"
        file.write_text(json.dumps(rules))
        return ScriptedEngine.from_config(
            BackendConfig(
                engine="scripted",
                scripted_token_interval_ms=0.01,
                scripted_replies=str(file),
                vllm={"model": str(model)},
            )
        )

    return engine


async def run(
    engine: ScriptedEngine, prompt: str | list[int] = CHAT, stream: bool = True, **sampling: object
) -> list[Delta]:
    generation = Generation(
        prompt_ids=None if isinstance(prompt, str) else prompt,
        prompt_text=prompt if isinstance(prompt, str) else None,
        sampling={"max_tokens": 100} | sampling,
        stream=stream,
        prepend_input=False,
        returns=frozenset(),
    )
    return [delta async for delta in engine.generate(generation, "test")]


def text(deltas: list[Delta], index: int = 0) -> str:
    return "".join(delta.sequences[index].text for delta in deltas)


def finish(deltas: list[Delta]) -> list[str | None]:
    return [delta.sequences[0].finish_reason for delta in deltas if delta.sequences[0].finish_reason]


async def test_the_first_rule_that_matches_replies(make: Make) -> None:
    """In the order of the file; a prompt that no rule knows gets the fixed text."""
    engine = make({"when": "Weather", "reply": "Rain."}, {"when": "user", "reply": "Hello."})
    assert text(await run(engine)) == "Rain."
    assert text(await run(engine, "user")) == "Hello."
    assert text(await run(engine, "nobody", max_tokens=3)) == "Paris is the"


async def test_rules_see_control_tokens(make: Make, tokenizer: Tokenizer) -> None:
    """A prompt of token ids is searched as text that still says where turns begin and end."""
    engine = make({"when": r"<\|im_start\|>user\nWeather\?<\|im_end\|>", "reply": "Rain."})
    assert text(await run(engine, tokenizer.encode(CHAT, add_special_tokens=False).ids)) == "Rain."


async def test_a_reply_comes_in_tokens_of_the_model(make: Make, tokenizer: Tokenizer) -> None:
    """One delta a token, with its id and log probability; the last is the token that ends a turn, and shows nothing."""
    deltas = await run(make({"when": "", "reply": "The capital of France."}), logprobs=0)
    gained = [delta.sequences[0] for delta in deltas]
    ids = [token_id for sequence in gained for token_id in sequence.token_ids]
    assert ids == [*tokenizer.encode("The capital of France.").ids[1:], tokenizer.token_to_id("<|im_end|>")]
    assert [len(sequence.token_ids) for sequence in gained] == [1] * len(ids)
    assert [[p.token_id for p in sequence.logprobs[0]] for sequence in gained if sequence.logprobs] == [
        [i] for i in ids
    ]
    assert text(deltas) == "The capital of France."
    assert finish(deltas) == ["stop"]


async def test_characters_come_whole(make: Make) -> None:
    """A character of several tokens is shown when its last token has come; half of one never is."""
    deltas = await run(make({"when": "", "reply": "Größe 🌍 漢字."}))
    assert len(deltas) > len("Größe 🌍 漢字.")
    assert text(deltas) == "Größe 🌍 漢字."
    assert "\ufffd" not in "".join(delta.sequences[0].text for delta in deltas)


@pytest.mark.parametrize(("stop", "shown"), [("b\nc", "a"), ("\n", "ab"), ("abc", "ab\ncd"), ("d", "ab\nc")])
async def test_a_stop_string_is_never_seen(make: Make, stop: str, shown: str) -> None:
    """However it lies across tokens, nothing of it is shown; what only began like one is shown in the end."""
    deltas = await run(make({"when": "", "reply": "ab\ncd"}), stop=["zzz", stop])
    assert text(deltas) == shown
    assert finish(deltas) == ["stop"]


async def test_a_reply_ends_for_length(make: Make) -> None:
    """When max_tokens are said, or when the rule has it so; a reply that fits to the last token stops by itself."""
    engine = make({"when": "Weather", "reply": "12", "finish": "length"}, {"when": "", "reply": "a\nb"})
    assert finish(await run(engine)) == ["length"]
    assert finish(await run(engine, "", max_tokens=3)) == ["length"]
    assert finish(await run(engine, "", max_tokens=4)) == ["stop"]


async def test_every_sequence_says_the_same(make: Make) -> None:
    """n sequences, streamed or whole."""
    engine = make({"when": "", "reply": "Rain, all day."})
    for stream in (True, False):
        deltas = await run(engine, stream=stream, n=3)
        assert [text(deltas, index) for index in range(3)] == ["Rain, all day."] * 3
        assert deltas[-1].finished
        assert stream or len(deltas) == 1


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ({"when": "(", "reply": "x"}, "regular expression"),
        ({"when": "x", "reply": ""}, "reply"),
        ({"when": "x"}, "reply"),
        ({"when": "x", "reply": "x", "finish": "later"}, "finish"),
        ({"when": "x", "reply": "x", "pause": 1}, "pause"),
    ],
)
def test_a_wrong_rule_is_named(make: Make, rule: object, named: str) -> None:
    """The engine does not load, and says which file and what in it."""
    with pytest.raises(ValueError, match=rf"replies\.json.*{named}"):
        make(rule)


async def test_beside_many_others_tokens_come_several_at_a_time(make: Make) -> None:
    """The first alone, the last with what is left; as the real engine gives them. A stop is not passed over."""
    engine = make({"when": "user", "reply": "Hello."})
    generation = Generation(None, "nobody", {"max_tokens": 1000}, True, False, frozenset())
    others = [engine.generate(generation, f"other-{number}") for number in range(16)]
    for other in others:
        await anext(other)
    sizes = [len(delta.sequences[0].token_ids) for delta in await run(engine, "nobody", max_tokens=12)]
    stopped = await run(engine, "nobody", stop=["of"])
    for other in others:
        await other.aclose()
    assert sizes == [1, 3, 3, 3, 2]
    assert (text(stopped), finish(stopped)) == ("Paris is the capital ", ["stop"])
    assert [len(delta.sequences[0].token_ids) for delta in stopped] == [1, 3, 1]
    alone = [len(delta.sequences[0].token_ids) for delta in await run(engine, "nobody", max_tokens=3)]
    assert alone == [1, 1, 1]
