"""The engine: tokens, caches, vLLM's and Triton's own numbers."""

from __future__ import annotations

from deploy.grafana.panels import A_SECOND, COUNT, SECONDS, SHARE, TOKENS_A_SECOND, Panel, Query, Row, rates

ENGINE = Row(
    "Engine: tokens, cache, vLLM and Triton",
    (
        Panel(
            title="Tokens",
            description="prompt: read; cached: those of them that the prefix cache held; completion: written; embedding: "
            "embedded.",
            unit=TOKENS_A_SECOND,
            queries=rates("hermes2_tokens_total", "kind"),
        ),
        Panel(
            title="Prompt tokens from the cache",
            description="The share that needed no computing. A fall means new conversations, or a cache that is too small for "
            "those that come back (then the panel beside this one is full).",
            unit=SHARE,
            most=1,
            queries=(
                Query(
                    "of prompts",
                    'sum(rate(hermes2_tokens_total{@, kind="cached"}[$__rate_interval])) '
                    '/ sum(rate(hermes2_tokens_total{@, kind="prompt"}[$__rate_interval]))',
                ),
                Query(
                    "of vLLM's blocks",
                    "max(rate(vllm:prefix_cache_hits_total{@}[$__rate_interval]) "
                    "/ rate(vllm:prefix_cache_queries_total{@}[$__rate_interval]))",
                ),
            ),
        ),
        Panel(
            title="KV cache in use",
            description="By running requests. Near 1: requests wait in the engine or are put back (preemptions). Give it more "
            "memory (engine.kv_cache), or fewer sequences (engine.max_num_seqs).",
            unit=SHARE,
            most=1,
            queries=(Query("{{model_name}}", "max by (model_name) (vllm:kv_cache_usage_perc{@})"),),
        ),
        Panel(
            title="Batch",
            description="Requests that vLLM decodes together, and those that wait inside it: these should be 0, as the queue "
            "is the frontend's. Several frontends of one engine tell the same, so this is the largest and not the "
            "sum.",
            unit=COUNT,
            queries=(
                Query("running", "max(vllm:num_requests_running{@})"),
                Query("waiting in vLLM", "max(vllm:num_requests_waiting{@})"),
                Query("in the Python stub", "max(hermes2_engine_requests{@})"),
            ),
        ),
        Panel(
            title="Tokens per step",
            description="Of prompts and answers, in one step of the engine: how well it is used. About the batch where it "
            "only decodes.",
            unit=COUNT,
            queries=(
                Query(
                    "tokens",
                    "max(rate(vllm:iteration_tokens_total_sum{@}[$__rate_interval]) "
                    "/ rate(vllm:iteration_tokens_total_count{@}[$__rate_interval]))",
                ),
            ),
        ),
        Panel(
            title="Where vLLM's time goes (p95)",
            description="First token as vLLM sees it, and the phases: queue, prefill, decode. Our time to first token less "
            "vLLM's is what frontend, queue and Triton add.",
            unit=SECONDS,
            queries=tuple(
                Query(
                    legend, f"histogram_quantile(0.95, sum by (le) (rate(vllm:{name}_bucket{{@}}[$__rate_interval])))"
                )
                for legend, name in (
                    ("first token", "time_to_first_token_seconds"),
                    ("queue", "request_queue_time_seconds"),
                    ("prefill", "request_prefill_time_seconds"),
                    ("decode", "request_decode_time_seconds"),
                )
            ),
        ),
        Panel(
            title="Preemptions",
            description="Requests a second that vLLM puts back for want of KV cache, to compute them again later. Should be "
            "0.",
            unit=A_SECOND,
            queries=(
                Query("{{model_name}}", "max by (model_name) (rate(vllm:num_preemptions_total{@}[$__rate_interval]))"),
            ),
        ),
        Panel(
            title="Triton's requests",
            description="By model: those that came a second, those that failed, and those that wait in Triton. A queue before "
            "the embedding model: many files are being read, or its cores are too few (embedder.threads).",
            unit=COUNT,
            queries=(
                Query("{{model}} a second", "max by (model) (rate(nv_inference_request_success{@}[$__rate_interval]))"),
                Query(
                    "{{model}} failed a second",
                    "max by (model) (rate(nv_inference_request_failure{@}[$__rate_interval]))",
                ),
                Query("{{model}} waiting", "max by (model) (nv_inference_pending_request_count{@})"),
            ),
        ),
        Panel(
            title="The engine's machine",
            description="Memory and CPU in use where Triton runs, all processes together, of what the machine has.",
            unit=SHARE,
            most=1,
            queries=(
                Query("memory", "max(nv_cpu_memory_used_bytes{@} / nv_cpu_memory_total_bytes{@})"),
                Query("CPU", "max(nv_cpu_utilization{@})"),
            ),
        ),
    ),
)
