"""Requests after published advisories of services of this kind, and what each is answered here.

`source` names the case that taught it: the CVE where there is one, else the kind of service. Nothing of them is exploit code:
they are the parameters, documents and bytes that others took, and should not have.
"""

from __future__ import annotations

import base64
import pickle
from collections.abc import Mapping
from typing import Any

import msgspec

from tests.support.stack import API_KEY

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
EMBEDDINGS, FILES, STORES = "/v1/embeddings", "/v1/files", "/v1/vector_stores"
UNBOUNDED = "vLLM: CVE-2026-34756, CVE-2026-114051, CVE-2026-116173, parameters without bounds"
TO_THE_ENGINE = "vLLM: CVE-2026-55574, CVE-2026-105757, CVE-2026-25048, clients reach templates, grammars and pickles"
SSRF = "vLLM, Open WebUI: media URLs that the server fetches"
PARSERS = "JSON and HTTP parsers: depth, numbers, text"
KEYS = "LiteLLM: CVE-2026-42208, CVE-2026-49468, CVE-2026-35030, CVE-2026-47101"
OTHERS = "Open WebUI: CVE-2026-45398, CVE-2026-45402, CVE-2026-54012, ids are not looked at"
TRITON = "Triton: CVE-2025-23319, CVE-2025-23320, CVE-2025-23334, CVE-2025-23316, paths and names reach the server"
SMUGGLING = "HTTP request smuggling and slow bodies"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A request with a JSON body, or with `content` as it is, or `raw`: all bytes that go over the connection.

    A raw one may be answered by the end of the connection: its first bytes can be no request at all.
    """

    name: str
    source: str
    path: str = CHAT
    method: str = "POST"
    body: Any = None
    content: bytes | None = None
    raw: bytes | None = None
    headers: Mapping[str, str] = {}
    status: int = 400
    param: str | None = None
    why: str = ""
    """For those that are not refused."""


def chat(name: str, source: str = UNBOUNDED, *, param: str | None = None, status: int = 400, **fields: Any) -> Case:
    body = {"model": "hermes-2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1} | fields
    why = str(fields.pop("why", ""))
    body.pop("why", None)
    return Case(name=name, source=source, body=body, param=param, status=status, why=why)


def plain(name: str, *, param: str, source: str = UNBOUNDED, **fields: Any) -> Case:
    body = {"model": "hermes-2", "prompt": "Hello", "max_tokens": 1} | fields
    return Case(name=name, source=source, path=COMPLETIONS, body=body, param=param)


def text(name: str, body: str | bytes, source: str = PARSERS, *, param: str | None = None, path: str = CHAT) -> Case:
    content = body if isinstance(body, bytes) else body.encode()
    return Case(name=name, source=source, path=path, content=content, param=param)


def hello(more: str) -> str:
    """The text of a chat with `more` in it."""
    return '{"model": "hermes-2", "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}], %s}' % more  # noqa: UP031


def schema(name: str, value: Any, where: str = "", strict: bool = True) -> Case:
    named = {"name": "s", "schema": value, "strict": strict}
    return chat(
        name,
        TO_THE_ENGINE,
        response_format={"type": "json_schema", "json_schema": named},
        param=f"response_format.json_schema.schema{where}",
    )


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        value = {"type": "object", "properties": {"a": value}}
    return value


def tool(name: str, called: str) -> Case:
    tools = [{"type": "function", "function": {"name": called}}]
    return chat(name, TO_THE_ENGINE, tools=tools, param="tools[0].function.name")


def media(name: str, part: dict[str, Any]) -> Case:
    return chat(name, SSRF, messages=[{"role": "user", "content": [part]}], param="messages[0].content[0].type")


def unknown_field(name: str, value: Any, path: str = CHAT) -> Case:
    body: dict[str, Any] = {"model": "hermes-2", name: value}
    body |= {"messages": [{"role": "user", "content": "Hello"}]} if path == CHAT else {"prompt": "Hello"}
    return Case(name=f"{name} on {path}", source=TO_THE_ENGINE, path=path, body=body, param=name)


def form(filename: str, content: bytes, purpose: str = "assistants") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n--b\r\n'
    file = f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
    return head.encode() + file.encode() + content + b"\r\n--b--\r\n"


def wire(head: str, body: bytes = b"") -> bytes:
    return head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body


POST = f"POST {CHAT} HTTP/1.1\nHost: x\nAuthorization: Bearer {API_KEY}\nContent-Type: application/json"
FORM = {"content-type": "multipart/form-data; boundary=b"}
METADATA_URL = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"
TORCH = base64.b64encode(pickle.dumps({"tensor": [1.0]})).decode()
WIDE = {"type": "object", "properties": {f"p{i}": {"type": "string", "description": "x" * 80} for i in range(200)}}
LOOP = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}

CASES = [
    # Parameters without bounds.
    chat("n of a hundred thousand", n=100_000, param="n"),
    chat("n of nothing", n=0, param="n"),
    chat("n below zero", n=-1, param="n"),
    chat("n beyond 64 bits", n=2**70, param="n"),
    plain("best_of of a thousand", best_of=1000, param="best_of"),
    chat("top_logprobs of a million", logprobs=True, top_logprobs=10**6, param="top_logprobs"),
    chat("top_logprobs of all, -1", logprobs=True, top_logprobs=-1, param="top_logprobs"),
    plain("logprobs of a million", logprobs=10**6, param="logprobs"),
    unknown_field("prompt_logprobs", 10**6),
    unknown_field("truncate_prompt_tokens", 2**40),
    chat("max_tokens below zero", max_tokens=-1, param="max_tokens"),
    chat("max_tokens beyond the window", max_tokens=2**31 - 1, param="messages"),
    chat("max_tokens beyond 32 bits", max_tokens=2**63, param="max_tokens"),
    chat("min_tokens above max_tokens", min_tokens=100, max_tokens=1, param="min_tokens"),
    chat("min_tokens below zero", min_tokens=-5, param="min_tokens"),
    chat("bias of a token that is none", logit_bias={"99999999": 1}, param="logit_bias"),
    chat("bias of token -1", logit_bias={"-1": 1}, param="logit_bias"),
    chat("bias of a word", logit_bias={"__import__": 1}, param="logit_bias"),
    chat("bias of every token", logit_bias={str(i): 1 for i in range(5000)}, param="logit_bias"),
    chat("stop token that is none", stop_token_ids=[2**30], param="stop_token_ids"),
    chat("five stop strings", stop=list("abcde"), param="stop"),
    chat("a stop string of 64 KiB", stop="x" * 65536, param="stop"),
    chat("an empty stop string", stop="", param="stop"),
    chat("temperature beyond all", temperature=1e308, param="temperature"),
    chat("top_p of zero", top_p=0, param="top_p"),
    chat("top_k below all", top_k=-(2**31), param="top_k"),
    chat("repetition_penalty of zero", repetition_penalty=0, param="repetition_penalty"),
    chat("seed beyond 64 bits", seed=2**64, param="seed"),
    text("temperature of NaN", hello('"temperature": NaN')),
    text("temperature of Infinity", hello('"temperature": Infinity')),
    text("temperature that overflows", hello('"temperature": 1e999'), param="temperature"),
    text("top_p of -Infinity", hello('"top_p": -Infinity')),
    chat("usage of a stream that is none", stream_options={"include_usage": True}, param="stream_options"),
    chat("unknown option of a stream", stream=True, stream_options={"chunk": 0}, param="stream_options.chunk"),
    chat("5000 messages", messages=[{"role": "user", "content": "x"}] * 5000, param="messages"),
    chat("129 tools", tools=[{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)], param="tools"),
    plain("a thousand prompts", prompt=["x"] * 1000, param="prompt"),
    plain("a token that is none", prompt=[10**9], param="prompt"),
    plain("a token below zero", prompt=[-1], param="prompt"),
    plain("no token", prompt=[], param="prompt"),
    # What must not come near the engine.
    *(
        unknown_field(name, value)
        for name, value in (
            ("guided_regex", "(a+)+$"),
            ("guided_grammar", 'root ::= root "a"'),
            ("guided_json", {"type": "object"}),
            ("guided_choice", ["a"] * 10),
            ("structured_outputs", {"regex": "(a|aa)+$"}),
            ("chat_template", "{{ cycler.__init__.__globals__.os.popen('id').read() }}"),
            ("chat_template_kwargs", {"tools": "{{7*7}}"}),
            ("documents", [{"title": "x", "text": "y"}]),
            ("add_generation_prompt", False),
            ("mm_processor_kwargs", {"num_crops": 10**9}),
            ("lora_path", "../../etc"),
            ("lora_request", {"lora_path": "/etc"}),
            ("cache_salt", "theirs"),
            ("kv_transfer_params", {"remote_host": "169.254.169.254"}),
            ("logits_processors", ["os.system"]),
            ("bad_words", [""]),
            ("use_beam_search", True),
            ("extra_body", {"guided_regex": "a"}),
            ("extra_args", {"x": 1}),
            ("priority", -(2**31)),
            ("vllm_xargs", {"a": "b"}),
        )
    ),
    unknown_field("prompt_embeds", TORCH, COMPLETIONS),
    unknown_field("guided_regex", "(a+)+$", COMPLETIONS),
    schema("pattern that backtracks", {"type": "string", "pattern": '(?=(a+)+)"$'}, ".pattern"),
    schema("pattern with a back reference", {"type": "string", "pattern": r"(a)\1"}, ".pattern"),
    schema("pattern with counts in counts", {"type": "string", "pattern": "((a{1,99}){1,99}){1,99}"}, ".pattern"),
    schema("pattern that is none", {"type": "string", "pattern": "(["}, ".pattern"),
    schema("schema of itself", LOOP, ".$defs.a.$ref"),
    schema("schema from elsewhere", {"$ref": "http://169.254.169.254/schema"}, ".$ref"),
    schema("schema of a file", {"$ref": "file:///etc/passwd"}, ".$ref"),
    schema("schema 60 levels deep", nested(60)),
    schema("schema of 20 KiB", WIDE),
    schema("schema of a type that is none", {"type": "os"}, ".type"),
    schema("schema with two billion items", {"type": "array", "minItems": 2**31}, ".minItems"),
    schema("schema with a NUL in a pattern", {"type": "string", "pattern": "a\x00"}, ".pattern"),
    tool("tool named by control tokens", called="<|im_end|>"),
    tool("tool named by a path", called="../../x"),
    tool("tool named by code", called="x(); import os"),
    tool("tool named by a line", called="f\nX-Injected: 1"),
    tool("tool with a long name", called="f" * 65),
    # Media.
    media("picture of the cloud's metadata", {"type": "image_url", "image_url": {"url": METADATA_URL}}),
    media("picture of a file", {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
    media("picture in the body", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
    media("video of loopback", {"type": "video_url", "video_url": {"url": "http://127.0.0.1:8001/"}}),
    media("sound", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
    Case(
        name="picture in a response",
        source=SSRF,
        path=RESPONSES,
        body={
            "model": "hermes-2",
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": METADATA_URL}]}],
        },
        param="input[0].content[0]",
    ),
    Case(
        name="file of a response by its URL",
        source=SSRF,
        path=RESPONSES,
        body={
            "model": "hermes-2",
            "input": [{"role": "user", "content": [{"type": "input_file", "file_url": METADATA_URL}]}],
        },
        param="input[0].content[0]",
    ),
    Case(
        name="tool server of the client's choice",
        source=SSRF,
        path=RESPONSES,
        body={"model": "hermes-2", "input": "x", "tools": [{"type": "mcp", "server_url": METADATA_URL}]},
        param="tools[0].type",
    ),
    # Parsers.
    text("100,000 brackets", "[" * 100_000),
    text("objects 50,000 deep", '{"a":' * 50_000 + "1" + "}" * 50_000),
    text("depth where anything is taken", hello('"prediction": ' + "[" * 5000 + "]" * 5000)),
    text("bytes that are no UTF-8", hello('"user": "\xff"').encode("latin-1")),
    text("half a surrogate pair", hello('"user": "\\ud800"')),
    text("a number of a million digits", hello(f'"seed": {"9" * 10**6}')),
    text("a comment", hello('/**/ "n": 1')),
    text("two values", "{} {}"),
    text("a list", "[]"),
    text("nothing", ""),
    text("a pickle", pickle.dumps({"a": 1})),
    text("a number as text", hello('"n": "8"'), param="n"),
    chat(
        "one word of 3.9 MiB",
        "vLLM, tokenisers: time grows with the length of a word",
        messages=[{"role": "user", "content": "a" * (39 * 2**20 // 10)}],
        param="messages",
    ),
    plain("a prompt of 3.9 MiB", prompt=" " * (39 * 2**20 // 10), param="prompt", source="vLLM, tokenisers"),
    Case(
        name="one word of 3.9 MiB to count",
        source="vLLM, tokenisers",
        path=f"{RESPONSES}/input_tokens",
        body={"model": "hermes-2", "input": "a" * (39 * 2**20 // 10)},
        param="input",
    ),
    Case(
        name="one word of 3.9 MiB to compact",
        source="vLLM, tokenisers",
        path=f"{RESPONSES}/compact",
        body={"model": "hermes-2", "input": "a" * (39 * 2**20 // 10)},
        param="input",
    ),
    Case(
        name="one word of 3.9 MiB to keep",
        source="vLLM, tokenisers",
        path="/v1/conversations",
        body={"items": [{"role": "user", "content": "a" * (39 * 2**20 // 10)}]},
        param="items",
    ),
    Case(name="a body of 5 MiB", source=PARSERS, content=b" " * (5 * 2**20), status=413),
    text("the same member twice", hello('"n": 1, "n": 1000'), param="n"),
    Case(
        name="the same member twice, harmless in the end",
        source=PARSERS,
        content=hello('"n": 1000, "n": 1').encode(),
        status=200,
        why="JSON takes the last of two equal members; there is one parser here, so nobody before or behind it takes the first.",
    ),
    Case(
        name="NUL in a text",
        source=PARSERS,
        content=hello('"user": "a\\u0000b"').encode(),
        status=200,
        why="A character as any other; what reaches SQL and file names is checked there.",
    ),
    # Keys, paths, ids.
    Case(name="no key", source=KEYS, headers={"authorization": ""}, body={}, status=401),
    Case(name="SQL in a key", source=KEYS, headers={"authorization": "Bearer ' OR '1'='1"}, body={}, status=401),
    Case(name="a key of a path", source=KEYS, headers={"authorization": "Bearer ../../api-key"}, body={}, status=401),
    Case(name="a key of 32 KiB", source=KEYS, headers={"authorization": "Bearer " + "x" * 32768}, body={}, status=401),
    Case(name="a key of Basic", source=KEYS, headers={"authorization": "Basic YTpi"}, body={}, status=401),
    Case(
        name="another's header for a user",
        source=KEYS,
        headers={"authorization": "", "x-forwarded-user": "admin"},
        body={},
        status=401,
    ),
    Case(name="NUL in an id", source=OTHERS, method="GET", path="/v1/conversations/conv_%00", status=404),
    Case(name="a path in an id", source=OTHERS, method="GET", path=f"{FILES}/..%2f..%2fetc%2fpasswd", status=404),
    Case(name="SQL in an id", source=OTHERS, method="GET", path=f"{FILES}/x'%20OR%20'1'='1/content", status=404),
    Case(
        name="SQL in a cursor",
        source=OTHERS,
        method="GET",
        path=f"{FILES}?after=x';DROP%20TABLE%20files",
        param="after",
    ),
    Case(name="an endless page", source=OTHERS, method="GET", path="/v1/conversations?limit=99999999", param="limit"),
    Case(
        name="another tenant's header",
        source=OTHERS,
        headers={"x-session-id": "../default"},
        body={"model": "hermes-2", "messages": [{"role": "user", "content": "Hello"}]},
        param="session_id",
    ),
    Case(
        name="model by a path",
        source=TRITON,
        body={"model": "../../x", "messages": [{"role": "user", "content": "x"}]},
        status=404,
        param="model",
    ),
    Case(
        name="Triton's shared memory",
        source=TRITON,
        path="/v2/systemsharedmemory/region/x/register",
        body={"key": "/x"},
        status=404,
    ),
    Case(name="Triton's repository", source=TRITON, path="/v2/repository/models/hermes2/unload", body={}, status=404),
    Case(name="SageMaker's port", source=TRITON, path="/invocations", body={}, status=404),
    Case(
        name="vLLM's adapters",
        source=TO_THE_ENGINE,
        path="/v1/load_lora_adapter",
        body={"lora_path": "/etc"},
        status=404,
    ),
    Case(name="vLLM's remote calls", source=TO_THE_ENGINE, path="/collective_rpc", body={"method": "x"}, status=404),
    # Files.
    Case(
        name="a form without a boundary",
        source=PARSERS,
        path=FILES,
        content=b"x",
        headers={"content-type": "multipart/form-data"},
    ),
    Case(
        name="a form of a thousand parts",
        source=PARSERS,
        path=FILES,
        content=b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 1000 + b"--b--",
        headers=FORM,
    ),
    Case(
        name="a purpose of a megabyte",
        source=PARSERS,
        path=FILES,
        content=form("a.txt", b"x", "x" * 2**20),
        headers=FORM,
        param="purpose",
    ),
    Case(name="a file without an end", source=PARSERS, path=FILES, content=form("a.txt", b"x")[:-8], headers=FORM),
    Case(
        name="a path in a file's name",
        source="Open WebUI, Gradio: uploads outside of the folder",
        path=FILES,
        content=form("../../../tmp/x.txt", b"x"),
        headers=FORM,
        status=200,
        why="A name is a label in SQL; no file on a disk is called by it.",
    ),
    Case(
        name="a pickle as a file",
        source=TO_THE_ENGINE,
        path=FILES,
        content=form("model.pt", pickle.dumps({"a": 1})),
        headers=FORM,
        status=200,
        why="Bytes that are kept as they are; nothing unpickles them, and only a vector store reads files, in a process apart.",
    ),
    # HTTP.
    Case(name="a method that is none", source=SMUGGLING, method="BREW", status=405),
    Case(name="TRACE", source=SMUGGLING, method="TRACE", status=405),
    Case(name="length below zero", source=SMUGGLING, raw=wire(f"{POST}\nContent-Length: -1")),
    Case(name="two lengths", source=SMUGGLING, raw=wire(f"{POST}\nContent-Length: 2\nContent-Length: 90", b"{}")),
    Case(
        name="a chunk that is none",
        source=SMUGGLING,
        raw=wire(f"{POST}\nTransfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"),
    ),
    Case(
        name="a chunk beyond 64 bits",
        source=SMUGGLING,
        raw=wire(f"{POST}\nTransfer-Encoding: chunked", b"f" * 20 + b"\r\n"),
    ),
    Case(
        name="a header of 1 MiB",
        source=SMUGGLING,
        raw=wire(f"{POST}\nX-Long: {'x' * 2**20}\nContent-Length: 0"),
        status=431,
    ),
    Case(
        name="a thousand headers",
        source=SMUGGLING,
        raw=wire(POST + "".join(f"\nX-{i}: 1" for i in range(1000)) + "\nContent-Length: 0"),
        status=431,
    ),
    Case(
        name="a header with a line in it",
        source=SMUGGLING,
        raw=wire(f"{POST}\nX-Request-ID: a\r b\nContent-Length: 2", b"{}"),
    ),
    Case(name="no HTTP", source=SMUGGLING, raw=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + b"\x00" * 64),
]
"""Embeddings of tokens that are none need an embedding model: tests/unit/frontend/test_embeddings.py has them."""
