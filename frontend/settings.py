"""The one settings tree, and the only reader of the environment. Every default, unit and bound stands here.

A setting's path gives its environment variable: `port` is HERMES2_PORT, `engine.max_model_len` is
HERMES2_ENGINE_MAX_MODEL_LEN. A TOML file named by HERMES2_CONFIG may hold the same tree; the environment wins.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "HERMES2_"
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class SettingsError(Exception):
    """A wrong value; the message begins with the setting's path and variable."""


class ByteSize(int):
    """A number of bytes, written "30GB", "512MiB" or plain; KB, MB, GB are powers of ten, KiB, MiB, GiB of two."""

    @classmethod
    def parse(cls, text: object) -> ByteSize:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
        if match is None or match[2].upper() not in UNITS:
            raise ValueError(f"a size such as 30GB or 512MiB was expected, not {text!r}")
        return cls(float(match[1]) * UNITS[match[2].upper()])

    def __str__(self) -> str:
        return f"{self / 1e9:.2f} GB"


class Secret(str):
    """A string that does not show itself."""

    @classmethod
    def parse(cls, text: object) -> Secret:
        if len(str(text)) < 24:
            raise ValueError("at least 24 characters were expected")
        return cls(text)

    def __repr__(self) -> str:
        return "Secret(...)"


class SecretUrl(str):
    """A URL that does not show its password."""

    @classmethod
    def parse(cls, text: object) -> SecretUrl:
        return cls(text)

    def __repr__(self) -> str:
        shown = re.sub(r"(://[^/@:]*):.*@|(password=)[^&]*", lambda m: f"{m[1]}:...@" if m[1] else f"{m[2]}...", self)
        return f"SecretUrl({shown!r})"


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A branch of the tree."""


class EngineSettings(Group, frozen=True):
    """vLLM, inside Triton."""

    environment: Annotated[Path, Meta(description="Python environment with Triton and vLLM")] = ROOT / ".venv-engine"
    backend: Annotated[
        Literal["vllm", "scripted"], Meta(description="scripted: no model, fixed replies, for tests only")
    ] = "vllm"
    scripted_token_interval_ms: Annotated[
        float, Meta(gt=0, description="Pace of the scripted engine, ms per token")
    ] = 5.0
    scripted_replies: Annotated[
        Path | None, Meta(description="Rules of the scripted engine (JSON); unset: it repeats a fixed text")
    ] = None
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"] | None,
        Meta(description="Type of weights and activations; auto: as the model is stored; unset: the profile's"),
    ] = None
    profile: Annotated[
        Literal["auto", "cpu-int8", "cpu-bf16", "cpu-f32"],
        Meta(description="Fills in dtype, weights, enforce_eager and extra; auto: by CPU flags (docs/performance.md)"),
    ] = "auto"
    weights: Annotated[
        Literal["as-is", "int8"] | None,
        Meta(description="int8: Linears in INT8 W8A8, made when the model is prepared; unset: the profile's"),
    ] = None
    max_model_len: Annotated[
        int, Meta(ge=16, description="Context window in tokens; a model with a shorter one keeps its own")
    ] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1, le=4096, description="Sequences decoded together")] = 64
    max_queued: Annotated[
        int, Meta(ge=1, description="Requests in the engine, waiting and running, before it answers 503")
    ] = 512
    kv_cache: Annotated[
        ByteSize | None,
        Meta(description="KV cache, bytes; unset: 1024 tokens for each of max_num_seqs, if the budget has them"),
    ] = None
    enforce_eager: Annotated[
        bool | None, Meta(description="false: torch.compile, a slower start for faster steps; unset: the profile's")
    ] = None
    start_timeout_s: Annotated[float, Meta(gt=0, description="How long loading may take, seconds")] = 600.0
    hang_timeout_s: Annotated[
        float, Meta(gt=0, description="A loop that does not answer for so long is restarted, seconds")
    ] = 8.0
    drain_timeout_s: Annotated[
        float, Meta(gt=0, description="How long running requests may finish on shutdown, seconds")
    ] = 30.0
    extra: Annotated[
        dict[str, Any], Meta(description="More of vLLM's engine arguments, a JSON object or a TOML table")
    ] = msgspec.field(default_factory=dict)


class EmbedderSettings(Group, frozen=True):
    """The embedding model, inside Triton."""

    enabled: Annotated[bool, Meta(description="false: no embedding model, and no /v1/embeddings")] = True
    model: Annotated[str, Meta(min_length=1, description="The name it is asked for by, beside hermes-2-embedder")] = (
        "all-MiniLM-L6-v2"
    )
    model_dir: Annotated[
        Path | None,
        Meta(description="Its sentence-transformers folder; unset: all-MiniLM-L6-v2 from engine.environment"),
    ] = None
    threads: Annotated[int, Meta(ge=1, description="Cores that one batch may use; vLLM works on the same ones")] = 1
    max_queued: Annotated[int, Meta(ge=1, description="Batches that wait before it answers 503")] = 256
    timeout_s: Annotated[float, Meta(gt=0, description="How long one batch may wait and run, seconds")] = 30.0


class TritonSettings(Group, frozen=True):
    """Triton Inference Server. It listens on loopback only when the launcher starts it."""

    grpc_host: Annotated[str, Meta(min_length=1, description="Where the frontend finds Triton")] = "127.0.0.1"
    grpc_port: Annotated[int, Meta(ge=1, le=65535, description="Triton's gRPC port")] = 8001
    metrics_port: Annotated[int, Meta(ge=1, le=65535, description="Triton's own Prometheus metrics, loopback")] = 8002


class ValkeySettings(Group, frozen=True):
    """Valkey: hot state that can be lost."""

    url: Annotated[
        str | None,
        Meta(description="unix:///path or valkey://host:port/0; unset: the launcher's own on a socket in home"),
    ] = None
    timeout_s: Annotated[float, Meta(gt=0, description="Longest wait for one command, seconds")] = 0.04


class SqlSettings(Group, frozen=True):
    """The database: conversations, responses, keys. The truth; what it has acknowledged is not lost."""

    url: Annotated[
        SecretUrl | None,
        Meta(description="postgresql://user:password@host/name; unset: SQLite, in hermes2.db in home"),
    ] = None
    pool_size: Annotated[int, Meta(ge=1, le=256, description="Connections of one frontend process")] = 8
    timeout_s: Annotated[
        float, Meta(gt=0, description="Longest wait for a connection, or for another writer to finish, seconds")
    ] = 5.0
    synchronous: Annotated[
        Literal["full", "normal"],
        Meta(description="SQLite only. full: a commit survives power loss; normal: the end of any process"),
    ] = "full"


class ContextSettings(Group, frozen=True):
    """How conversations are fitted into the model's window."""

    reserve_tokens: Annotated[
        int,
        Meta(ge=1, description="Room for the answer where the request does not say; at most a quarter of the window"),
    ] = 1024
    keep_share: Annotated[
        float,
        Meta(gt=0, lt=1, description="A trim leaves so much of the room for history filled; smaller: rarer trims"),
    ] = 0.7
    trim_ahead_share: Annotated[
        float,
        Meta(
            gt=0, le=1, description="History that fills so much of its room is trimmed in the background, after a turn"
        ),
    ] = 0.9
    summary_tokens: Annotated[int, Meta(ge=0, description="Longest summary of what was left out; 0: none")] = 256
    background: Annotated[int, Meta(ge=0, description="Summaries made at the same time, by one process")] = 1


class ConversationSettings(Group, frozen=True):
    """Conversations, responses and sessions that are kept."""

    most_per_tenant: Annotated[int, Meta(ge=1, description="Conversations of one tenant")] = 10_000
    most_items: Annotated[int, Meta(ge=1, description="Items of one conversation")] = 20_000
    sessions_per_tenant: Annotated[int, Meta(ge=1, description="Sessions of one tenant")] = 10_000
    session_idle_s: Annotated[int, Meta(ge=1, description="A session that is not used for so long ends, seconds")] = (
        86_400
    )
    session_lifetime_s: Annotated[int, Meta(ge=1, description="A session ends after so long, seconds")] = 30 * 86_400
    lease_s: Annotated[
        float, Meta(gt=0, description="A turn whose process has vanished is given up after so long, seconds")
    ] = 15.0
    events_s: Annotated[
        int, Meta(ge=0, description="The events of a finished response can be streamed again for so long, seconds")
    ] = 3600
    background_per_tenant: Annotated[int, Meta(ge=1, description="Background responses of one tenant and process")] = 32


class RetrievalSettings(Group, frozen=True):
    """Files, vector stores, file search and what conversations recall."""

    max_file: Annotated[ByteSize, Meta(description="Largest uploaded file, bytes")] = ByteSize(512 * 2**20)
    files_per_tenant: Annotated[int, Meta(ge=1, description="Files of one tenant")] = 10_000
    bytes_per_tenant: Annotated[ByteSize, Meta(description="All files of one tenant, bytes")] = ByteSize(10 * 2**30)
    stores_per_tenant: Annotated[int, Meta(ge=1, description="Vector stores of one tenant")] = 1_000
    files_per_store: Annotated[int, Meta(ge=1, description="Files of one vector store")] = 10_000
    waiting_per_tenant: Annotated[
        int, Meta(ge=1, description="Files of one tenant that wait to be put into stores")
    ] = 10_000
    max_text: Annotated[int, Meta(ge=1, description="Longest text of one file, characters")] = 20_000_000
    parse_timeout_s: Annotated[float, Meta(gt=0, description="How long reading one file may take, seconds")] = 120.0
    parse_memory: Annotated[ByteSize, Meta(description="Memory of the process that reads a file")] = ByteSize(2**30)
    workers: Annotated[int, Meta(ge=0, description="Files put into stores at once, by one frontend process")] = 2
    lease_s: Annotated[
        float, Meta(gt=0, description="A file whose process has vanished is begun anew after so long, seconds")
    ] = 30.0
    attempts: Annotated[int, Meta(ge=1, description="Processes that may die over one file before it has failed")] = 3
    context_tokens: Annotated[
        int, Meta(ge=0, description="Passages in a prompt, tokens; at most a quarter of the window")
    ] = 2048
    memory_tokens: Annotated[
        int, Meta(ge=0, description="What a conversation recalls in a prompt, tokens; at most an eighth of the window")
    ] = 400
    score_threshold: Annotated[
        float,
        Meta(ge=0, le=1, description="File search puts no passage that is less alike into a prompt, cosine"),
    ] = 0.2


class MemorySettings(Group, frozen=True):
    """Shares of memory_limit that are not the model's. The start shows the whole sum, and refuses one that is too large."""

    engine_runtime: Annotated[
        ByteSize, Meta(description="Stub, engine and worker processes without weights and KV cache")
    ] = ByteSize(3 * 10**9)
    triton: Annotated[ByteSize, Meta(description="tritonserver itself")] = ByteSize(300 * 10**6)
    embedder: Annotated[ByteSize, Meta(description="The embedding model's process")] = ByteSize(600 * 10**6)
    frontend_worker: Annotated[ByteSize, Meta(description="One frontend process")] = ByteSize(400 * 10**6)
    valkey: Annotated[ByteSize, Meta(description="Valkey's maxmemory")] = ByteSize(256 * 10**6)
    sql: Annotated[ByteSize, Meta(description="SQL page caches")] = ByteSize(256 * 10**6)
    indexes: Annotated[ByteSize, Meta(description="Vector and full-text indexes held in memory")] = ByteSize(10**9)


class HttpSettings(Group, frozen=True):
    """Bounds of one HTTP exchange."""

    max_body: Annotated[ByteSize, Meta(description="Largest request body, bytes")] = ByteSize(4 * 2**20)
    prime_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            description="A stream's 200 waits so long for its first token, so that early failures keep their status",
        ),
    ] = 5.0
    keepalive_s: Annotated[float, Meta(gt=0, description="A silent stream gets a comment this often, seconds")] = 10.0
    request_timeout_s: Annotated[float, Meta(gt=0, description="Longest generation, seconds")] = 600.0
    drain_timeout_s: Annotated[
        float, Meta(gt=0, description="How long open requests may finish on shutdown, seconds")
    ] = 30.0
    tls_certificate: Annotated[
        Path | None,
        Meta(description="PEM certificate with its chain; with tls_key the API speaks HTTPS, and nothing else"),
    ] = None
    tls_key: Annotated[Path | None, Meta(description="PEM private key of tls_certificate")] = None
    allow_plaintext: Annotated[
        bool,
        Meta(description="true: plain HTTP beyond loopback too, for a proxy with TLS on a network that is trusted"),
    ] = False
    cors_origins: Annotated[
        tuple[str, ...], Meta(description="Origins whose pages may call the API, with commas between; none by default")
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses and networks whose x-forwarded-for is believed, with commas between; none by default"
        ),
    ] = ()


class AdmissionSettings(Group, frozen=True):
    """The queue before the engine, of one frontend process: fair between tenants by the tokens that they were served."""

    slots: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Choices in the engine at once; unset: engine.max_num_seqs / workers"),
    ] = None
    max_waiting: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="Requests that wait for a slot before others get 503; unset: an eighth of the slots, and those"
            " alone that should get one soon (docs/overload.md)"
        ),
    ] = None
    max_wait_s: Annotated[float, Meta(gt=0, description="A request that has waited so long gets 503, seconds")] = 4.0


class LimitSettings(Group, frozen=True):
    """Bounds of one request's content, and the plans of tenants."""

    plans: Annotated[
        Path | None,
        Meta(description="Plans of tenants (TOML), read again when it changes; unset: the built-in one for all"),
    ] = None

    n: Annotated[int, Meta(ge=1, le=128, description="Most choices per request")] = 8
    messages: Annotated[int, Meta(ge=1, description="Most messages per request")] = 2048
    prompts: Annotated[int, Meta(ge=1, description="Most prompts per plain completion")] = 64
    tokenize_inline_chars: Annotated[
        int, Meta(ge=0, description="Longer prompts are tokenised in a thread, away from the event loop, characters")
    ] = 8192


class LogSettings(Group, frozen=True):
    """Structured logs on standard output."""

    format: Annotated[Literal["pretty", "json"], Meta(description="pretty for people, json for collectors")] = "pretty"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severity that is logged")
    ] = "info"


class Settings(Group, frozen=True):
    home: Annotated[Path, Meta(description="Everything the service keeps")] = ROOT / ".hermes2"
    models: Annotated[Path | None, Meta(description="Prepared models; unset: models/ in home")] = None
    host: Annotated[str, Meta(min_length=1, description="Address the API listens on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="Port of the API")] = 11401
    workers: Annotated[int, Meta(ge=1, le=64, description="Frontend processes")] = 1
    api_key: Annotated[
        Secret | None,
        Meta(description="The bootstrap key, at least 24 characters; unset: generated once and kept in home/api-key"),
    ] = None
    model: Annotated[str, Meta(min_length=1, description="smollm2-135m, a Hugging Face id, or a folder")] = (
        "smollm2-135m"
    )
    model_dir: Annotated[
        Path | None,
        Meta(description="A prepared model (with hermes2.json); set by the launcher, or by a deployment without it"),
    ] = None
    profiles: Annotated[
        Path | None, Meta(description="A folder of conversation profiles (TOML), beside the built-in ones")
    ] = None
    memory_limit: Annotated[ByteSize, Meta(description="Memory of the whole service")] = ByteSize(30 * 10**9)
    cpus: Annotated[int, Meta(ge=1, description="CPU cores of the whole service")] = 4
    engine: EngineSettings = EngineSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    triton: TritonSettings = TritonSettings()
    valkey: ValkeySettings = ValkeySettings()
    sql: SqlSettings = SqlSettings()
    context: ContextSettings = ContextSettings()
    conversations: ConversationSettings = ConversationSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    memory: MemorySettings = MemorySettings()
    http: HttpSettings = HttpSettings()
    admission: AdmissionSettings = AdmissionSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()

    @property
    def models_dir(self) -> Path:
        return self.models or self.home / "models"

    @property
    def api_key_file(self) -> Path:
        return self.home / "api-key"


class Leaf(msgspec.Struct, frozen=True):
    """One setting: its dotted path, its environment variable, and what it is."""

    path: str
    variable: str
    annotation: Any
    default: object


def leaves(group: type[Group] = Settings, prefix: str = "") -> Iterator[Leaf]:
    """Every setting of the tree, in the order of its definition."""
    hints = get_type_hints(group, include_extras=True)
    for field in msgspec.structs.fields(group):
        hint, path = hints[field.name], f"{prefix}{field.name}"
        if isinstance(hint, type) and issubclass(hint, Group):
            yield from leaves(hint, f"{path}.")
        else:
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            yield Leaf(path, PREFIX + path.replace(".", "_").upper(), hint, default)


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Reads HERMES2_CONFIG's file, then the environment. Raises SettingsError naming the setting."""
    environment = os.environ if environment is None else environment
    tree = read_file(environment.get(f"{PREFIX}CONFIG"))
    for leaf in leaves():
        if (text := environment.get(leaf.variable)) is not None and text != "":
            place(tree, leaf.path, parse(leaf, text))
    try:
        return msgspec.convert(tree, Settings, strict=False, dec_hook=decode)
    except msgspec.ValidationError as exc:
        raise SettingsError(explain(str(exc))) from exc


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """Variables that look like ours and are not: probably misspelt. The launcher warns of them."""
    environment = os.environ if environment is None else environment
    known = {leaf.variable for leaf in leaves()} | {f"{PREFIX}{name}" for name in OTHER_VARIABLES}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


OTHER_VARIABLES = (
    "CLIENTS_ENVIRONMENT",
    "CONFIG",
    "CONTRACTS_DIR",
    "DEV_ENVIRONMENT",
    "EVAL_DATA",
    "SERVICE_ENVIRONMENT",
    "TORCH_INDEX",
)


def read_file(name: str | None) -> dict[str, Any]:
    if not name:
        return {}
    try:
        return tomllib.loads(Path(name).read_text())
    except (OSError, ValueError) as exc:
        raise SettingsError(f"{PREFIX}CONFIG: {name} cannot be read: {exc}") from exc


def parse(leaf: Leaf, text: str) -> object:
    """A variable's text, where it is more than one word."""
    if isinstance(leaf.default, tuple):
        return [word for word in (each.strip() for each in text.split(",")) if word]
    if not isinstance(leaf.default, dict):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        raise SettingsError(f"{leaf.path} ({leaf.variable}): a JSON object was expected: {exc}") from exc


def place(tree: dict[str, Any], path: str, value: object) -> None:
    *groups, name = path.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[name] = value


def decode(kind: type, value: object) -> object:
    if kind in (ByteSize, Secret, SecretUrl):
        return kind.parse(value)
    if issubclass(kind, Path):
        return Path(str(value)).expanduser().absolute()
    raise NotImplementedError(kind)


def explain(message: str) -> str:
    """msgspec's "Expected `int` >= 1 - at `$.port`" as "port (HERMES2_PORT): expected `int` >= 1"."""
    match = re.fullmatch(r"(.*?)(?: - at `\$\.(.+)`)?", message, re.DOTALL)
    assert match is not None
    what = match[1][:1].lower() + match[1][1:]
    if match[2] is None:
        return what
    return f"{match[2]} ({PREFIX}{match[2].replace('.', '_').upper()}): {what}"
